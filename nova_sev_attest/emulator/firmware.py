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

"""What QEMU takes from the firmware, and the hash table it makes.

OVMF ends in a table of entries found by GUID, walked backwards from 32 bytes
before the image's end (QEMU docs/specs/sev-guest-firmware.rst). Integers are
little-endian.
"""

import dataclasses
import hashlib
import struct
import uuid

_RESET = uuid.UUID('00f771de-1a7e-4fcb-890e-68c77e2fb44e')
_FOOTER = uuid.UUID('96b582de-1fb2-45f7-baea-a366c55a082d')
_SECRET = uuid.UUID('4c2eb361-7d9b-4cc3-8081-127c90d3d294')
_HASHES = uuid.UUID('7255371f-3a3b-4b04-927b-1da6efa8d454')
# Bytes between the last entry and the image's end.
_FOOTER_GAP = 32
_ENTRY = struct.Struct('<H16s')

_TABLE = uuid.UUID('9438d606-4f22-4cc9-b479-a793d411fd21')
_TABLE_ENTRIES = (uuid.UUID('97d02dd8-bd20-4c94-aa78-e7714d36ab2a'),
                  uuid.UUID('44baf731-3a2f-4bd7-9af1-41e29169781d'),
                  uuid.UUID('4de79437-abd2-427f-b835-d5b172d2045b'))
_TABLE_ENTRY_SIZE = _ENTRY.size + hashlib.sha256().digest_size
_TABLE_SIZE = _ENTRY.size + len(_TABLE_ENTRIES) * _TABLE_ENTRY_SIZE
_TABLE_ALIGNMENT = 16


class FirmwareError(Exception):
    """The firmware lacks what the guest needs; the text says what."""


@dataclasses.dataclass(frozen=True)
class Area:
    """A range of guest memory: first address and size in bytes."""

    base: int
    size: int


@dataclasses.dataclass(frozen=True)
class Firmware:
    """The entries of an image that matter to SEV; None where it has none.

    :ivar reset: where application processors start, 32 bits.
    """

    secret: Area | None
    hashes: Area | None
    reset: int | None


def parse(image):
    """Find the entries of a firmware image.

    :raises FirmwareError: the table is there and malformed.
    """
    entries = _entries(image)

    def numbers(guid, count):
        if guid not in entries:
            return None
        if len(entries[guid]) != 4 * count:
            raise FirmwareError(f'entry {guid} of the firmware has '
                                f'{len(entries[guid])} bytes, not '
                                f'{4 * count}')
        return struct.unpack(f'<{count}I', entries[guid])

    def area(guid):
        found = numbers(guid, 2)
        return found and Area(*found)

    reset = numbers(_RESET, 1)
    return Firmware(area(_SECRET), area(_HASHES), reset and reset[0])


def _entries(image):
    end = len(image) - _FOOTER_GAP
    footer = _entry(image, end)
    if footer is None or footer[0] != _FOOTER:
        return {}
    first = end - footer[1]
    if first < 0:
        raise FirmwareError("the firmware's table is longer than the image")
    found = {}
    at = end - _ENTRY.size
    while at > first:
        entry = _entry(image, at)
        if entry is None or not _ENTRY.size <= entry[1] <= at - first:
            raise FirmwareError("the firmware's table is malformed")
        guid, size = entry
        found[guid] = image[at - size:at - _ENTRY.size]
        at -= size
    return found


def _entry(image, end):
    if end < _ENTRY.size:
        return None
    size, guid = _ENTRY.unpack_from(image, end - _ENTRY.size)
    return uuid.UUID(bytes_le=guid), size


def hash_table(area, kernel, initrd, command_line):
    """The table by which the firmware knows the measured kernel.

    :param area: the firmware's area for the table, or None.
    :param command_line: as the guest gets it, with its final NUL.
    :returns: bytes to put at the start of the area.
    :raises FirmwareError: the firmware has no room for it.
    """
    blobs = (command_line, initrd, kernel)
    table = _head(_TABLE, _TABLE_SIZE) + b''.join(
        _head(guid, _TABLE_ENTRY_SIZE) + hashlib.sha256(blob).digest()
        for guid, blob in zip(_TABLE_ENTRIES, blobs))
    table += bytes(-len(table) % _TABLE_ALIGNMENT)
    if area is None or not area.base or area.size < len(table):
        raise FirmwareError(
            'kernel hashes are on, and the firmware has no area for the '
            'table of hashes (use an AmdSev build of OVMF)')
    return table


def _head(guid, size):
    return guid.bytes_le + struct.pack('<H', size)
