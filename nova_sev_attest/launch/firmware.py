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

"""What OVMF firmware says about itself.

OVMF ends in a table of entries found by GUID, which is read backwards: QEMU
``docs/specs/sev-guest-firmware.rst`` and edk2
``OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm``. The footer's GUID is at
end-48, the table's length (u16, the footer's 18 bytes included) at end-50;
before it each entry is data, u16 length (18 bytes included), GUID.
"""

import dataclasses
import functools
import hashlib
import struct
import uuid

from nova_sev_attest.launch import errors

#: QEMU maps firmware in units of this many bytes.
GRANULE = 4096
#: OVMF builds have 2 to 8 MiB; below 4 GiB there is room for no more.
MAX_SIZE = 64 * 1024 * 1024

_FOOTER = uuid.UUID('96b582de-1fb2-45f7-baea-a366c55a082d')
_RESET_EIP = uuid.UUID('00f771de-1a7e-4fcb-890e-68c77e2fb44e')
_SECRET_AREA = uuid.UUID('4c2eb361-7d9b-4cc3-8081-127c90d3d294')
_HASH_TABLE = uuid.UUID('7255371f-3a3b-4b04-927b-1da6efa8d454')

_RESET_VECTOR_SIZE = 32  # what follows the table
_ENTRY_HEADER = struct.Struct('<H16s')
_AREA = struct.Struct('<II')
_EIP = struct.Struct('<I')

_KNOWN = frozenset((_RESET_EIP, _SECRET_AREA, _HASH_TABLE))
#: What a table and what follows it can take up of an image at most.
_LARGEST_END = 0xffff + _RESET_VECTOR_SIZE
#: Of this many bytes an image is read at a time: they stay in a processor's
#: cache from reading to hashing.
_PIECE = 256 * 1024

_PADDED_HASH_TABLE_SIZE = 176
_SMALLEST_SECRET_TABLE = 48


@dataclasses.dataclass(frozen=True)
class Area:
    """A range of guest-physical memory.

    :ivar base: address of its first byte.
    :ivar size: bytes.
    """

    base: int
    size: int

    @property
    def end(self):
        """Address of the first byte behind it."""
        return self.base + self.size


@dataclasses.dataclass(frozen=True)
class OtherEntry:
    """An entry of the table that means nothing to an attested launch.

    :ivar guid: uuid.UUID.
    :ivar size: bytes of its data, without length and GUID.
    """

    guid: uuid.UUID
    size: int


@dataclasses.dataclass(frozen=True)
class Firmware:
    """A firmware image: its identity and what its table declares.

    The image itself is not kept: one is hashed once, when it is read.

    :ivar size: bytes of the image.
    :ivar sha256: SHA-256 of the image, 32 bytes.
    :ivar secret_area: Area for the launch secret, or None when the firmware
        has no such entry. Distributions' stock builds have one at address 0
        of size 0: see :meth:`require_secret_area`.
    :ivar hash_table_area: Area for the table of kernel hashes, or None.
    :ivar reset_eip: where the application processors of a SEV-ES guest
        start, or None.
    :ivar other_entries: tuple of OtherEntry, as they lie in the image.
    """

    size: int
    sha256: bytes
    secret_area: Area | None
    hash_table_area: Area | None
    reset_eip: int | None
    other_entries: tuple
    # What has taken in the image: one launch is checked against many digests
    # that all begin with the same firmware.
    _hashed: object = dataclasses.field(repr=False, compare=False)

    @classmethod
    def parse(cls, data):
        """Parse a firmware image.

        An image without a table is fine here: it can be measured.

        :param data: the file's bytes, a non-zero multiple of 4096 of at
            most 64 MiB.
        :raises FirmwareMalformed: another size, or a damaged table.
        """
        # Before it is hashed, so that a wrong one costs nothing.
        _require_size(len(data))
        return cls._of(len(data), bytes(data[-_LARGEST_END:]),
                       functools.partial(hashlib.sha256, data))

    @classmethod
    def read(cls, stream):
        """Parse a firmware image from a file, in little memory.

        :param stream: binary file object with ``readinto``, read to its end
            or until it has more than 64 MiB.
        :raises FirmwareMalformed: as :meth:`parse`.
        :raises OSError: it cannot be read.
        """
        hasher, size, end = hashlib.sha256(), 0, b''
        piece = memoryview(bytearray(_PIECE))
        while count := _fill(stream, piece):
            size += count
            if size > MAX_SIZE:
                break
            hasher.update(piece[:count])
            if count < _PIECE:
                end += piece[:count]
                break
            end = bytes(piece[-_LARGEST_END:])
        _require_size(size)
        return cls._of(size, end[-_LARGEST_END:], lambda: hasher)

    @classmethod
    def _of(cls, size, end, hashed):
        entries = _read_table(end)
        areas = [_area(entries, guid, what) for guid, what in (
            (_SECRET_AREA, 'secret area'), (_HASH_TABLE, 'hash table'))]
        eip = _eip(entries)
        hasher = hashed()
        return cls(size, hasher.digest(), *areas, eip, tuple(
            OtherEntry(guid, len(value))
            for guid, value in reversed(entries.items())
            if guid not in _KNOWN), hasher)

    def hasher(self):
        """A new SHA-256 object that has taken in the image."""
        return self._hashed.copy()

    def require_secret_area(self):
        """The Area that a launch secret can be put in.

        :raises FirmwareUnusable: there is none, or it is not real.
        """
        area = _require(self.secret_area, 'launch secret',
                        _SMALLEST_SECRET_TABLE)
        table = self.hash_table_area
        if (table is not None and table.size and
                area.base < table.end and table.base < area.end):
            raise errors.FirmwareUnusable(
                'the firmware lets the launch secret and the kernel hashes '
                'overlap; it is damaged or badly built')
        return area

    def require_hash_table(self):
        """The Area that the kernel hashes are measured in.

        :raises FirmwareUnusable: there is none, or it is not real.
        """
        return _require(self.hash_table_area, 'table of kernel hashes',
                        _PADDED_HASH_TABLE_SIZE)


def _require_size(size):
    if not size or size % GRANULE or size > MAX_SIZE:
        more = ' or more' if size > MAX_SIZE else ''
        raise errors.FirmwareMalformed(
            f'firmware of {size} bytes{more}; expected a non-zero multiple '
            f'of {GRANULE} of at most {MAX_SIZE}')


def _fill(stream, piece):
    """Read until a piece is full or the stream ends; bytes read."""
    at = 0
    while at < len(piece) and (count := stream.readinto(piece[at:])):
        at += count
    return at


def _require(area, what, minimum):
    advice = ('use a build of edk2 OvmfPkg/AmdSev (Debian: package '
              'ovmf-amdsev)')
    if area is None:
        raise errors.FirmwareUnusable(
            f'the firmware declares no area for the {what}; {advice}')
    if not area.base or not area.size:
        raise errors.FirmwareUnusable(
            f'the firmware declares the area for the {what} with base '
            f"{area.base:#x} and size {area.size:#x}: stock OVMF does, and "
            f'using it would overwrite the guest; {advice}')
    if area.base % 16 or area.size < minimum or area.end > 1 << 32:
        raise errors.FirmwareUnusable(
            f'the firmware declares the area for the {what} at '
            f'{area.base:#x} of {area.size:#x} bytes; expected a multiple of '
            f'16, at least {minimum} bytes, below 4 GiB; {advice}')
    return area


def _read_table(data):
    end = len(data) - _RESET_VECTOR_SIZE
    length, guid = _ENTRY_HEADER.unpack_from(data, end - _ENTRY_HEADER.size)
    if uuid.UUID(bytes_le=guid) != _FOOTER:
        return {}
    start = end - length
    end -= _ENTRY_HEADER.size
    if not 0 <= start <= end:
        raise errors.FirmwareMalformed(
            f'the firmware table claims a length of {length} bytes, which '
            f'cannot be')
    entries = {}
    while end > start:
        if end - start < _ENTRY_HEADER.size:
            raise errors.FirmwareMalformed(
                f'{end - start} bytes of the firmware table belong to no '
                f'entry')
        length, guid = _ENTRY_HEADER.unpack_from(
            data, end - _ENTRY_HEADER.size)
        guid = uuid.UUID(bytes_le=guid)
        if not _ENTRY_HEADER.size <= length <= end - start:
            raise errors.FirmwareMalformed(
                f'entry {guid} of the firmware table claims {length} bytes '
                f'of the {end - start} that there are')
        if guid in entries:
            raise errors.FirmwareMalformed(
                f'the firmware table has entry {guid} twice')
        entries[guid] = data[end - length:end - _ENTRY_HEADER.size]
        end -= length
    return entries


def _unpack(entries, guid, form, what):
    data = entries.get(guid)
    if data is None:
        return None
    if len(data) != form.size:
        raise errors.FirmwareMalformed(
            f"the firmware's {what} entry has {len(data)} bytes, expected "
            f'{form.size}')
    return form.unpack(data)


def _area(entries, guid, what):
    values = _unpack(entries, guid, _AREA, what)
    return None if values is None else Area(*values)


def _eip(entries):
    values = _unpack(entries, _RESET_EIP, _EIP, 'reset vector')
    return None if values is None else values[0]
