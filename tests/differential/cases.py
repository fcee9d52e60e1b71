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

"""Random launches, the same for every tool that ours is compared with.

A seed makes the same launches again. Most are what users have; some have
firmware that one side or the other has to refuse.
"""

import dataclasses
import hashlib
import random
import uuid

from nova_sev_attest.launch import digest
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import vmsa
from tests.unit.launch import platforms

#: What the firmware of a launch is like -> how it is made.
FIRMWARES = {
    'whole': {},
    'stock': {'secret': (0, 0), 'hash_table': (0, 0)},
    'no hash table': {'hash_table': None},
    'small hash table': {'hash_table': (0x810C00, 0x80)},
    'no reset entry': {'reset_eip': None},
    'reset at 0': {'reset_eip': 0},
    'no table': None,
}
_PAGE = firmware.GRANULE
_LARGEST = 4 * 1024 * 1024
_WHOLE_IMAGES = 24


@dataclasses.dataclass(frozen=True)
class Image:
    """A firmware, by a number that names its file."""

    number: int
    kind: str
    data: bytes
    firmware: firmware.Firmware

    @classmethod
    def of(cls, number, kind, data):
        return cls(number, kind, data, firmware.Firmware.parse(data))


@dataclasses.dataclass(frozen=True)
class Case:
    """One launch.

    :ivar mode: ``sev`` or ``seves``, as sev-snp-measure calls them.
    :ivar kernel: bytes, or None for a launch without a measured kernel.
    :ivar initrd: bytes or None; None without a kernel.
    :ivar command_line: str or None; None without a kernel.
    :ivar cpu: (family, model, stepping).
    """

    number: int
    mode: str
    image: Image
    kernel: bytes | None
    initrd: bytes | None
    command_line: str | None
    vcpus: int
    cpu: tuple

    @property
    def hashes(self):
        if self.kernel is None:
            return None
        return kernel_hashes.KernelHashes.from_bytes(
            self.kernel, self.initrd, self.command_line or '')

    def save_areas(self, profile):
        """The measured pages; none for SEV."""
        if self.mode == 'sev':
            return []
        return vmsa.save_areas(profile, self.vcpus,
                               vmsa.cpu_signature(*self.cpu),
                               self.image.firmware.reset_eip)

    def digest(self, profile):
        """Our launch digest; raises what the core raises."""
        return digest.launch_digest(self.image.firmware, self.hashes,
                                    self.save_areas(profile))

    def unchecked_digest(self, profile):
        """The same where our side refuses the firmware's hash table."""
        table = b'' if self.hashes is None else self.hashes.table()
        return hashlib.sha256(self.image.data + table + b''.join(
            self.save_areas(profile))).digest()


def images(rng):
    """Firmware of many sizes, 4 KiB to 4 MiB, and of every kind."""
    kinds = ['whole'] * _WHOLE_IMAGES + list(FIRMWARES)
    made = []
    for number, kind in enumerate(kinds):
        pages = max(1, int(_LARGEST / _PAGE * 2 ** rng.uniform(-10, 0)))
        data = rng.randbytes((pages - 1) * _PAGE) + _last_page(kind, rng)
        made.append(Image.of(number, kind, data))
    # The largest is always among them.
    made[0] = Image.of(0, 'whole', (
        rng.randbytes(_LARGEST - _PAGE) + _last_page('whole', rng)))
    return made


def _last_page(kind, rng):
    options = FIRMWARES[kind]
    if options is None:
        return rng.randbytes(_PAGE)
    eip = rng.randrange(1, 1 << 32)
    return platforms.firmware(**{'size': _PAGE, 'reset_eip': eip, **options})


def cases(seed, count, mode, cpus=()):
    """Random launches.

    :param seed: an int; print it with a failure.
    :param mode: ``sev`` or ``seves``.
    :param cpus: (family, model, stepping) of named models, which every
        other launch has.
    """
    rng = random.Random(seed)
    pool = images(rng)
    # One in eight launches has odd firmware.
    whole = [image for image in pool if image.kind == 'whole']
    odd = [image for image in pool if image.kind != 'whole']
    for number in range(count):
        image = rng.choice(odd if rng.random() < 1 / 8 else whole)
        kernel = initrd = command_line = None
        if rng.random() < 2 / 3:
            kernel = rng.randbytes(rng.randrange(1, 65536))
            initrd = rng.choice((None, b'', rng.randbytes(
                rng.randrange(1, 65536))))
            command_line = rng.choice((None, '', text(rng), text(rng)))
        cpu = (rng.choice(cpus) if cpus and rng.random() < 1 / 2 else
               (rng.randrange(271), rng.randrange(256), rng.randrange(16)))
        # Few vCPUs as often as many; both ends for certain.
        vcpus = rng.choice((1, 2, 64, rng.randint(1, 8), rng.randint(1, 64)))
        yield Case(number, mode, image, kernel, initrd, command_line, vcpus,
                   cpu)


def text(rng):
    """A command line, not always ASCII."""
    words = ('console=ttyS0', 'root=/dev/vda1', 'ro', 'quiet', ' ', '  ',
             'x="a b"', 'naïve', '名前=1', '😀', '\t', '%s', '\\')
    line = ' '.join(rng.choices(words, k=rng.randrange(1, 12)))
    return line + 'y' * rng.choice((0, 0, 0, rng.randrange(4096)))


def secrets(rng, luks):
    """Entries of a secret table, mostly few and small.

    :param luks: the GUID that tools have another name for.
    :returns: dict of uuid.UUID to bytes.
    """
    made = {}
    for _ in range(rng.choice((1, 1, 2, 3, rng.randint(1, 16)))):
        guid = luks if rng.random() < 1 / 3 else uuid.UUID(
            bytes=rng.randbytes(16))
        made[guid] = rng.randbytes(rng.choice((
            1, 8, 16, 32, rng.randint(1, 64), rng.randint(1, 1024))))
    if rng.random() < 1 / 50:
        made[uuid.UUID(bytes=rng.randbytes(16))] = rng.randbytes(16384)
    return made
