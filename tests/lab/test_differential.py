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

"""Measurements and launch secrets against Debian's virt-qemu-sev-validate.

The tool is libvirt's, run as its users run it, by its command line, in the
compute root that has it. It leaves MXCSR and FCW of the save areas zero, as
the older KVM interface does: the profile LEGACY. Of save areas given as
files it takes any.
"""

import base64
import collections
import dataclasses
import hmac
import json
import os
import pathlib
import random
import subprocess
import uuid

import pytest

from devstack.lab import chroot
from devstack.lab import compute_root
from devstack.lab import layout as lab_layout
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import secret
from nova_sev_attest.launch import session
from nova_sev_attest.launch import vmsa
from tests.differential import cases
from tests.differential import validate_worker

SEED = 20260302
COUNT = 1000
_INSIDE = pathlib.PurePosixPath('/mnt')
_HOLDS, _MISMATCH = 0, 1

# Who refuses where the other does not, and why.
NO_LOOK = ('virt-qemu-sev-validate does not look whether the firmware has a '
           'place for the kernel hashes; QEMU refuses one that has none')
NO_RESET = ('virt-qemu-sev-validate wants to know where application '
            'processors start even for one vCPU, whose start is fixed')
OLD_API = ("virt-qemu-sev-validate leaves the policy's minimum API version "
           'to the platform, which cannot be older than the minimum it '
           'enforces; ours refuses the evidence, too')
TOO_LARGE = ('virt-qemu-sev-validate packs a secret table of any size; the '
             'platform takes 16384 bytes')
FULL_PAD = ('virt-qemu-sev-validate pads a secret table that is a multiple '
            'of 16 with 16 bytes more; readers go by the length inside')


class Validator:
    """The tool, kept running in its tree."""

    def __init__(self, root, folder):
        self._folder = folder
        self._process = subprocess.Popen(
            chroot.command_line(
                root, ['/usr/bin/python3', '-c',
                       pathlib.Path(validate_worker.__file__).read_text()],
                binds=[f'{folder}:{_INSIDE}']),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, *arguments):
        """(exit code, what it said)."""
        self._process.stdin.write(json.dumps(arguments) + '\n')
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f'the worker ended: {self._process.wait(10)}'
        return json.loads(answer)

    def file(self, name, data, keep=False):
        """Write a file; returns the path that the tool knows it by."""
        path = self._folder / name
        if not (keep and path.exists()):
            path.write_bytes(data)
        return str(_INSIDE / name)

    def read(self, name):
        return (self._folder / name).read_bytes()

    def close(self):
        self._process.stdin.close()
        assert self._process.wait(10) == 0
        self._process.stdout.close()


@pytest.fixture(scope='module')
def validator(tmp_path_factory):
    if os.geteuid():
        reason = 'unpacking and entering a compute root needs root'
        if os.environ.get('CI'):
            pytest.fail(reason)
        pytest.skip(reason)
    lab = lab_layout.Layout.from_environment()
    compute_root.build(lab.compute_root, lab.cache)
    made = Validator(lab.compute_root, tmp_path_factory.mktemp('validate'))
    yield made
    made.close()


@dataclasses.dataclass
class Launch:
    """A launch of a case: session, evidence and, maybe, what is wrong."""

    case: cases.Case
    policy: launch_policy.LaunchPolicy
    keys: session.TransportKeys
    evidence: measurement.Evidence
    digest: bytes
    profile: vmsa.Profile
    wrong: str | None

    @classmethod
    def make(cls, case, rng):
        flags = launch_policy.Flag(rng.randrange(64))
        flags = (flags | launch_policy.Flag.ES if case.mode == 'seves'
                 else flags & ~launch_policy.Flag.ES)
        minimum = rng.choice(((0, 0), (0, 0), (rng.randrange(3),
                                               rng.randrange(60))))
        policy = launch_policy.LaunchPolicy(flags, minimum)
        keys = session.TransportKeys(rng.randbytes(16), rng.randbytes(16))
        # The tool builds save areas of one profile, but takes any as files.
        profile = rng.choice((vmsa.LEGACY, vmsa.LEGACY, vmsa.INIT2))
        digest = case.unchecked_digest(profile)
        blank = measurement.Evidence(
            bytes(32), rng.randbytes(16), rng.choice((0, 1, 1, 255)),
            rng.randrange(256), rng.randrange(256))
        wrong = rng.choice([None] * 16 + ['measure', 'nonce', 'policy', 'TIK'])
        measured = dataclasses.replace(blank, measure=measurement.
                                       compute_measure(keys, policy, blank,
                                                       digest))
        made = cls(case, policy, keys, measured, digest, profile, wrong)
        made._spoil(rng)
        return made

    def _spoil(self, rng):
        bit = 1 << rng.randrange(8)
        if self.wrong == 'measure':
            self.evidence = dataclasses.replace(
                self.evidence, measure=_flip(self.evidence.measure, bit, rng))
        elif self.wrong == 'nonce':
            self.evidence = dataclasses.replace(
                self.evidence, mnonce=_flip(self.evidence.mnonce, bit, rng))
        elif self.wrong == 'policy':
            self.policy = launch_policy.LaunchPolicy.parse(
                self.policy.word ^ launch_policy.Flag.NODBG)
        elif self.wrong == 'TIK':
            self.keys = session.TransportKeys(
                self.keys.tek, _flip(self.keys.tik, bit, rng))

    def arguments(self, validator):
        case, evidence = self.case, self.evidence
        blob = base64.b64encode(evidence.measure + evidence.mnonce).decode()
        # Joined by '=', because a blob may begin like an option.
        words = [
            f'--measurement={blob}',
            f'--api-major={evidence.api_major}',
            f'--api-minor={evidence.api_minor}',
            f'--build-id={evidence.build}', f'--policy={self.policy.word}',
            '--tk=' + validator.file('tk', self.keys.tek + self.keys.tik),
            '--firmware=' + validator.file(
                f'firmware-{case.mode}-{case.image.number}',
                case.image.data, keep=True)]
        for name in ('kernel', 'initrd'):
            data = getattr(case, name)
            if data is not None:
                words.append(f'--{name}={validator.file(name, data)}')
        if case.command_line is not None:
            words.append(f'--cmdline={case.command_line}')
        if case.mode == 'seves':
            words += self._vcpus(validator)
        return words

    def _vcpus(self, validator):
        words = [f'--num-cpus={self.case.vcpus}']
        if self.as_files:
            pages = self.case.save_areas(self.profile)
            words += ['--vmsa-cpu0=' + validator.file('cpu0', pages[0]),
                      '--vmsa-cpu1=' + validator.file('cpu1', pages[-1])]
        else:
            words += [f'--cpu-{name}={value}' for name, value in zip(
                ('family', 'model', 'stepping'), self.case.cpu)]
        return words

    @property
    def as_files(self):
        return self.profile is not vmsa.LEGACY

    @property
    def difference(self):
        """What the tool does not see as ours does; None when both agree."""
        case = self.case
        if (case.mode == 'seves' and case.vcpus == 1 and not self.as_files and
                case.image.kind in ('no reset entry', 'no table')):
            return NO_RESET
        if case.kernel is not None and case.image.kind in (
                'stock', 'no hash table', 'small hash table', 'no table'):
            return NO_LOOK
        if self.evidence.api < self.policy.min_api:
            return OLD_API
        return None

    def verify(self):
        """Ours: True, or False for a mismatch; raises otherwise."""
        digest = self.case.digest(self.profile)
        try:
            measurement.verify_measurement(self.keys, self.policy,
                                           self.evidence, [digest])
        except errors.MeasurementMismatch:
            return False
        return True


def _flip(data, bit, rng):
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= bit
    return bytes(changed)


def launches(seed, mode):
    rng = random.Random(seed + 1)
    for case in cases.cases(seed, COUNT, mode):
        # Neither side can build these: nobody says where the others start.
        if (mode == 'seves' and case.vcpus > 1 and
                case.image.firmware.reset_eip is None):
            with pytest.raises(errors.VmsaMalformed):
                case.save_areas(vmsa.LEGACY)
            yield case, None
        else:
            yield case, Launch.make(case, rng)


@pytest.mark.parametrize('mode', ['sev', 'seves'])
def test_random_measurements(validator, mode):
    seen = collections.Counter()
    for case, launch in launches(SEED, mode):
        what = f'seed {SEED}, case {case.number}: {case.image.kind}'
        if launch is None:
            code, said = _without_reset(validator, case)
            assert code not in (_HOLDS, _MISMATCH), f'{what}: {said}'
            seen['refused'] += 1
            continue
        code, said = validator.run(*launch.arguments(validator))
        why = launch.difference
        if why is NO_RESET:
            assert code not in (_HOLDS, _MISMATCH), f'{what}: {said}'
        else:
            assert code == (_MISMATCH if launch.wrong else _HOLDS), (
                f'{what}, {launch.wrong} wrong: {said}')
        if why is None:
            assert launch.verify() == (launch.wrong is None), what
            seen['mismatch' if launch.wrong else 'equal'] += 1
            continue
        seen[why] += 1
        if why is NO_LOOK:
            with pytest.raises(errors.FirmwareUnusable):
                launch.verify()
        elif why is OLD_API:
            with pytest.raises(errors.ApiVersionTooOld):
                launch.verify()
    print(f'{mode}, seed {SEED}: {dict(seen)}')
    assert seen['equal'] >= COUNT / 2 and seen['mismatch'] >= COUNT / 20
    causes = {NO_LOOK, OLD_API} | ({NO_RESET} if mode == 'seves' else set())
    assert set(seen) - {'equal', 'mismatch', 'refused'} == causes


def _without_reset(validator, case):
    """What the tool says when it cannot build the save areas."""
    rng = random.Random(case.number)
    blob = base64.b64encode(rng.randbytes(48)).decode()
    image = validator.file(f'firmware-{case.mode}-{case.image.number}',
                           case.image.data, keep=True)
    return validator.run(
        f'--measurement={blob}', '--api-major=1', '--api-minor=51',
        '--build-id=3', '--policy=63', f'--firmware={image}',
        '--tk=' + validator.file('tk', rng.randbytes(32)),
        f'--num-cpus={case.vcpus}', '--cpu-family=25', '--cpu-model=1',
        '--cpu-stepping=1')


def test_random_secrets(validator):
    """A packet of the tool's is, byte for byte, ours under the same IV."""
    rng = random.Random(SEED)
    seen = collections.Counter()
    image = validator.file('tiny', bytes(4096))
    policy = launch_policy.LaunchPolicy.for_technology('amd-sev')
    digest = bytes.fromhex('ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a'
                           '85dabd8b48892ca7')  # of 4096 zero bytes
    for number in range(COUNT):
        what = f'seed {SEED}, case {number}'
        keys = session.TransportKeys(rng.randbytes(16), rng.randbytes(16))
        blank = measurement.Evidence(bytes(32), rng.randbytes(16), 1, 51, 3)
        measure = measurement.compute_measure(keys, policy, blank, digest)
        entries = cases.secrets(rng, secret.LUKS_PASSPHRASE_GUID)
        words = [f'--inject-secret={_name(guid, rng)}:'
                 f'{validator.file(f"secret-{place}", data)}'
                 for place, (guid, data) in enumerate(entries.items())]
        code, said = validator.run(
            '--measurement=' + base64.b64encode(
                measure + blank.mnonce).decode(),
            '--api-major=1', '--api-minor=51', '--build-id=3',
            f'--policy={policy.word}', f'--firmware={image}',
            '--tk=' + validator.file('tk', keys.tek + keys.tik),
            f'--secret-header={_INSIDE / "header"}',
            f'--secret-payload={_INSIDE / "payload"}', *words)
        assert code == 0, f'{what}: {said}'
        header = base64.b64decode(validator.read('header'))
        payload = base64.b64decode(validator.read('payload'))
        try:
            table = secret.build_secret_table(entries)
        except errors.SecretTooLarge:
            assert len(payload) > secret.MAX_SIZE, what
            seen[TOO_LARGE] += 1
            continue
        if _clear_size(entries) % 16 == 0:
            table += bytes(16)
            seen[FULL_PAD] += 1
        else:
            seen['equal'] += 1
        ours = secret._encrypt(keys, measure, table, iv=header[4:20])
        assert hmac.compare_digest(ours.header, header), what
        assert ours.data == payload, what
    print(f'secrets, seed {SEED}: {dict(seen)}')
    assert seen['equal'] >= COUNT / 2
    assert set(seen) == {'equal', TOO_LARGE, FULL_PAD}


def _name(guid, rng):
    if guid == secret.LUKS_PASSPHRASE_GUID and rng.random() < 1 / 2:
        return 'luks-key'
    assert isinstance(guid, uuid.UUID)
    return str(guid)


def _clear_size(entries):
    return 20 + sum(20 + len(data) for data in entries.values())
