# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""How fast the protocol core is, by ratios to what it cannot do without.

    python -m benchmarks.core [--json] [--pairs N]

The two sides of a ratio are measured in turn in one run, and the median over
all pairs is what counts, so that a busy machine slows both. Below 1 is faster
than the reference.

launch_ratio
    Session, verification and packing for a platform whose chain was verified
    before, over the same primitives called bare. At most 1.3.
cold_ratio
    The same with a chain seen for the first time. At most 1.3.
digest_cold_ratio
    Launch digest of a 4 MiB firmware file and 64 SEV-ES vCPUs, over
    sev-snp-measure's functions. Below 1.
digest_seen_ratio
    The same when the loaded firmware and the policy were seen before. At
    most 0.02.
hostile_firmware_seconds, hostile_firmware_bytes
    To refuse 64 MiB that end in the largest firmware table there can be,
    damaged in its last entry; and memory taken beside the image.
cached_policy_bytes, cached_policy_digests
    Memory of one cached policy, and how many launch digests it stands for.
"""

import argparse
import hashlib
import json
import os
import pathlib
import statistics
import struct
import tempfile
import time
import tracemalloc
import uuid

from sevsnpmeasure import guest
from sevsnpmeasure import sev_mode
from sevsnpmeasure import vcpu_types

from benchmarks import bare
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import digest
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import expectation
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import machine
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import profile as launch_profile
from nova_sev_attest.launch import secret
from nova_sev_attest.launch import vmsa
from tests.unit.launch import platforms

TARGETS = {'launch_ratio': 1.3, 'cold_ratio': 1.3, 'digest_cold_ratio': 1.0,
           'digest_seen_ratio': 0.02}
_MIB = 1024 * 1024
_VCPUS = 64
_MODEL = 'EPYC-Milan'
_RSA_BITS = 4096  # of every generation but the first
_POLICY = launch_policy.LaunchPolicy.for_technology('amd-sev')
_SECRETS = {secret.LUKS_PASSPHRASE_GUID: bytes(range(32))}


def _timed(function, *arguments):
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


def _compare(pairs, ours, reference):
    """Measure two functions that return seconds, in turn.

    :returns: (median ratio, median seconds of ours, and of the reference).
    """
    ours(), reference()
    taken = []
    for number in range(pairs):
        # Neither side always comes after the other.
        if number % 2:
            mine, other = ours(), reference()
        else:
            other, mine = reference(), ours()
        taken.append((mine / other, mine, other))
    return tuple(statistics.median(column) for column in zip(*taken))


def _image(size):
    page = platforms.firmware(size=firmware.GRANULE)
    return os.urandom(size - len(page)) + page


class _Launches:
    """One launch by the engine's machine, and by bare primitives."""

    def __init__(self):
        self._made = platforms.platform(bits=_RSA_BITS)
        self._anchors = [platforms.anchor(bits=_RSA_BITS)]
        self._verified = self._made.parse().verify(self._anchors)
        self._bare = bare.Platform(self._made, platforms.ask_ark(
            bits=_RSA_BITS))
        self._bare_pdh = self._bare.verify()
        image = firmware.Firmware.parse(_image(4 * _MIB))
        self._area = image.require_secret_area()
        self._digest = digest.launch_digest(image)
        self._allowed = {self._digest: {
            'firmware_sha256': image.sha256.hex()}}

    def _verify_chain(self):
        return chain.PlatformCertificates.from_libvirt(
            self._made.pdh, self._made.cert_chain).verify(self._anchors)

    def _launch(self, platform):
        begun, issued = _timed(
            machine.begin, platform, uuid.uuid4(), _POLICY)
        # The platform's part, which is not the engine's.
        blank = measurement.Evidence(bytes(32), os.urandom(16), 1, 51, 3)
        blob = measurement.compute_measure(
            issued.keys, _POLICY, blank, self._digest) + blank.mnonce

        def finish():
            evidence = measurement.Evidence.parse(blob, 1, 51, 3)
            return issued.verify(evidence, self._allowed).release(
                _SECRETS, self._area)

        finished, released = _timed(finish)
        assert len(released.packet.data) % 16 == 0
        return begun + finished

    def warm(self):
        return self._launch(self._verified)

    def cold(self):
        verifying, platform = _timed(self._verify_chain)
        return verifying + self._launch(platform)

    def _bare_launch(self, pdh):
        begun, keys = _timed(bare.session, pdh, _POLICY.word)
        mnonce = os.urandom(16)
        measure = bare.measure(keys, _POLICY.word, self._digest, mnonce)
        finished, _ = _timed(bare.verify_and_pack, keys, _POLICY.word,
                             self._digest, measure, mnonce, _SECRETS)
        return begun + finished

    def bare_warm(self):
        return self._bare_launch(self._bare_pdh)

    def bare_cold(self):
        verifying, pdh = _timed(self._bare.verify)
        return verifying + self._bare_launch(pdh)


class _Digests:
    """One launch digest from a file, or for firmware that is loaded."""

    _profile = launch_profile.LaunchProfile.sev_es(
        _VCPUS, _MODEL, vmsa.INIT2.name)

    def __init__(self, folder):
        self._path = pathlib.Path(folder) / 'firmware'
        self._path.write_bytes(_image(4 * _MIB))
        self._loaded = self._load()
        self._signature = vcpu_types.CPU_SIGS[_MODEL]
        self._cache = expectation.Cache()
        self.seen()
        assert self._cold() == self._seen() == self._reference()

    def _load(self):
        with self._path.open('rb', buffering=0) as stream:
            return firmware.Firmware.read(stream)

    def _cold(self):
        image = self._load()
        return digest.launch_digest(image, None, vmsa.save_areas(
            vmsa.INIT2, _VCPUS, self._signature, image.reset_eip))

    def _seen(self):
        lists = expectation.Lists(
            firmwares=(self._loaded.sha256.hex(),),
            profiles=(self._profile,), firmware_boot=True)
        found, = self._cache.expected_digests(lists, [self._loaded])
        return found

    def _reference(self):
        return guest.calc_launch_digest(
            sev_mode.SevMode.SEV_ES, _VCPUS, self._signature,
            str(self._path), '', '', '', 0)

    def cold(self):
        return _timed(self._cold)[0]

    def seen(self):
        return _timed(self._seen)[0]

    def reference(self):
        return _timed(self._reference)[0]


def _hostile_image():
    """64 MiB whose table claims 64 KiB of entries, the first one too long.

    The table is read backwards: all others are looked at before it.
    """
    size, small, room = firmware.MAX_SIZE, 18, 0xffff - 18
    entries = b''.join(
        struct.pack('<H', small) + number.to_bytes(16, 'little')
        for number in range(room // small - 1))
    bad = struct.pack('<H', 0xffff) + bytes(range(16))
    table = platforms.with_table(bad + entries, size=firmware.GRANULE * 32)
    return bytes(size - len(table)) + table


def _hostile_firmware(rounds):
    data = _hostile_image()

    def refuse():
        try:
            firmware.Firmware.parse(data)
        except errors.FirmwareMalformed:
            return
        raise AssertionError('hostile firmware was accepted')

    seconds = statistics.median(
        _timed(refuse)[0] for _ in range(rounds))
    return seconds, _peak(refuse)[0]


def _peak(function):
    """(peak bytes, bytes kept) of what a function allocates and returns."""
    tracemalloc.start()
    try:
        result = function()
        kept, peak = tracemalloc.get_traced_memory()
        del result
    finally:
        tracemalloc.stop()
    return peak, kept


def _cached_policy():
    """Bytes of a policy of ordinary size, and its number of digests."""
    images = [firmware.Firmware.parse(_image(firmware.GRANULE))
              for _ in range(2)]
    # This hashes each of them, as loading it does.
    listed = tuple(image.sha256.hex() for image in images)
    hashed = [hashlib.sha256(bytes([number])).hexdigest()
              for number in range(4)]
    lists = expectation.Lists(
        firmwares=listed,
        kernels=tuple(hashed[:2]), initrds=tuple(hashed[2:]),
        command_lines=('console=ttyS0', 'console=ttyS0 quiet'),
        profiles=launch_profile.combinations(
            launch_profile.SEV_ES, (1, 2, 4, 8), (_MODEL, 'EPYC-Genoa')))
    cache = expectation.Cache()
    _, kept = _peak(lambda: cache.expected_digests(lists, images))
    assert len(cache) == lists.count()
    return kept, len(cache)


def run(pairs):
    """All figures, by their names."""
    launches = _Launches()
    figures = {'pairs': pairs}
    for name, ours, reference in (
            ('launch', launches.warm, launches.bare_warm),
            ('cold', launches.cold, launches.bare_cold)):
        (figures[f'{name}_ratio'], figures[f'{name}_seconds'],
         figures[f'{name}_bare_seconds']) = _compare(pairs, ours, reference)
    with tempfile.TemporaryDirectory() as folder:
        digests = _Digests(folder)
        for name, ours in (('cold', digests.cold), ('seen', digests.seen)):
            (figures[f'digest_{name}_ratio'],
             figures[f'digest_{name}_seconds'], reference) = _compare(
                 pairs, ours, digests.reference)
    figures['digest_reference_seconds'] = reference
    (figures['hostile_firmware_seconds'],
     figures['hostile_firmware_bytes']) = _hostile_firmware(5)
    (figures['cached_policy_bytes'],
     figures['cached_policy_digests']) = _cached_policy()
    figures['targets_missed'] = [
        name for name, most in TARGETS.items() if figures[name] > most]
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--json', action='store_true')
    parser.add_argument('--pairs', type=int, default=200)
    options = parser.parse_args()
    figures = run(options.pairs)
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        print(f'{name:28} {value:.6g}' if isinstance(value, float)
              else f'{name:28} {value}')


if __name__ == '__main__':
    main()
