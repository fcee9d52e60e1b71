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

import hashlib
import io
import random
import struct
import tracemalloc
import uuid

import hypothesis
from hypothesis import strategies
import pytest

from nova_sev_attest.launch import errors
from nova_sev_attest.launch import firmware
from tests.unit.launch import platforms
from tests import vectors

parse = firmware.Firmware.parse
Area = firmware.Area
#: Where TDX's metadata is, and SEV-SNP's.
OTHER_ENTRIES = [('e47a6535-984a-4798-865e-4685a7bf8ec2', 4),
                 ('dc886566-984a-4798-a75e-5585a7bf67cc', 4)]


def test_amdsev_build():
    image = parse(vectors.read(
        'virtee-sev/tests/measurement/ovmf_AmdSev_suffix.bin'))
    assert image.require_secret_area() == Area(0x810000, 0xC00)
    assert image.require_hash_table() == Area(0x810C00, 0x400)
    assert image.reset_eip == 0x80b004
    assert image.sha256.hex().startswith('8f765dfabc127fc0')


def test_older_amdsev_build():
    image = parse(vectors.read(
        'virtee-sevctl/tests/data/OVMF.amdsev.fd_trimmed_edk2-ovmf-'
        '20220126gitbb1bba3d77-4.el9'))
    assert image.require_secret_area() == Area(0x80c000, 0xC00)
    assert image.require_hash_table() == Area(0x80cc00, 0x400)


@pytest.mark.parametrize('name', [
    'debian-ovmf/OVMF.fd.last4096',
    'virtee-sev/tests/measurement/ovmf_OvmfX64_suffix.bin'])
def test_stock_build_is_refused(name):
    image = parse(vectors.read(name))
    assert image.secret_area == image.hash_table_area == Area(0, 0)
    assert image.reset_eip == 0x80b004
    for require in (image.require_secret_area, image.require_hash_table):
        with pytest.raises(errors.FirmwareUnusable,
                           match=r'stock OVMF .*; use a build of edk2 '
                                 r'OvmfPkg/AmdSev \(Debian: package '
                                 r'ovmf-amdsev\)$') as exc:
            require()
        assert exc.value.code == 'firmware_unusable'


@pytest.mark.parametrize('name', ('v1-policy-3b', 'v2-policy-3f-es'))
def test_image_without_a_table(name):
    image = parse(vectors.read(f'session-ecdh/{name}/firmware.bin'))
    assert image.secret_area is None
    assert image.hash_table_area is None
    assert image.reset_eip is None
    with pytest.raises(errors.FirmwareUnusable,
                       match='declares no area for the launch secret;'):
        image.require_secret_area()
    with pytest.raises(errors.FirmwareUnusable,
                       match='no area for the table of kernel hashes;'):
        image.require_hash_table()


def test_size_and_hash():
    data = platforms.firmware()
    image = parse(data)
    assert image.size == len(data) == 8192
    assert image.sha256 == hashlib.sha256(data).digest()
    hasher = image.hasher()
    hasher.update(b'more')
    assert hasher.digest() == hashlib.sha256(data + b'more').digest()
    assert image.sha256 == hashlib.sha256(data).digest()
    assert len(repr(image)) < 300


@pytest.mark.parametrize('size', (0, 1, 4095, 4097))
def test_size_of_the_image(size):
    with pytest.raises(errors.FirmwareMalformed, match='multiple of 4096'):
        parse(bytes(size))


def test_largest_image(monkeypatch):
    assert firmware.MAX_SIZE == 64 << 20
    monkeypatch.setattr(firmware, 'MAX_SIZE', 8192)
    assert parse(bytes(8192)).size == 8192
    with pytest.raises(errors.FirmwareMalformed, match='at most 8192'):
        parse(bytes(8192 + 4096))


@pytest.mark.parametrize(('area', 'message'), [
    ((0, 0), 'base 0x0 and size 0x0'),
    ((0, 0xC00), 'base 0x0 and size 0xc00'),
    ((0x810000, 0), 'size 0x0'),
    ((0x810008, 0xC00), 'multiple of 16'),
    ((0x810000, 32), 'at least 48 bytes'),
    ((0xfffffff0, 0xC00), 'below 4 GiB'),
])
def test_unreal_secret_area(area, message):
    image = parse(platforms.firmware(secret=area))
    with pytest.raises(errors.FirmwareUnusable, match=message):
        image.require_secret_area()


def test_area_may_end_at_4_gib():
    image = parse(platforms.firmware(secret=(0xfffff400, 0xC00)))
    assert image.require_secret_area().end == 1 << 32


def test_hash_table_must_hold_the_table():
    image = parse(platforms.firmware(hash_table=(0x810C00, 175)))
    with pytest.raises(errors.FirmwareUnusable, match='at least 176'):
        image.require_hash_table()
    parse(platforms.firmware(
        hash_table=(0x810C00, 176))).require_hash_table()


@pytest.mark.parametrize(('table', 'fits'), [
    ((0x810BF0, 0x400), False), ((0x80FF00, 0x110), False),
    ((0x810000, 0xC00), False), ((0x80FC00, 0x400), True),
    ((0, 0), True), (None, True)])
def test_areas_must_not_overlap(table, fits):
    image = parse(platforms.firmware(hash_table=table))
    if fits:
        assert image.require_secret_area().size == 0xC00
    else:
        with pytest.raises(errors.FirmwareUnusable,
                           match='^the firmware lets the launch secret and '
                                 'the kernel hashes overlap; it is damaged '
                                 'or badly built$'):
            image.require_secret_area()


def test_unknown_entries_are_passed_over():
    image = parse(platforms.firmware(
        more=platforms.table_entry(b'!' * 16, b'') +
        platforms.table_entry(b'?' * 16, b'whatever')))
    assert image.require_secret_area().base == 0x810000
    assert image.other_entries == (
        firmware.OtherEntry(uuid.UUID(bytes_le=b'!' * 16), 0),
        firmware.OtherEntry(uuid.UUID(bytes_le=b'?' * 16), 8))


def test_other_entries_of_edk2():
    image = parse(vectors.read(
        'virtee-sev/tests/measurement/ovmf_AmdSev_suffix.bin'))
    assert [(str(entry.guid), entry.size)
            for entry in image.other_entries] == OTHER_ENTRIES


def test_table_without_entries():
    image = parse(platforms.with_table(b''))
    assert image.secret_area is image.hash_table_area is None


def test_table_that_begins_where_the_image_does():
    # 32 bytes follow the table, 18 are its footer.
    entry = platforms.table_entry(b'?' * 16, bytes(8192 - 32 - 18 - 18))
    entry, = parse(platforms.with_table(entry)).other_entries
    assert entry.size == 8192 - 32 - 18 - 18


class Dribble(io.RawIOBase):
    """A stream that never gives all that is asked for."""

    def __init__(self, data, most):
        self._data = io.BytesIO(data)
        self._most = most

    def readinto(self, buffer):
        return self._data.readinto(memoryview(buffer)[:self._most])


class TestRead:
    """Piece by piece, with the same result."""

    @pytest.mark.parametrize('size', (
        8192, 0x40000 - 4096, 0x40000, 0x40000 + 4096, 0x80000,
        0x100000 + 8192))
    @pytest.mark.parametrize('most', (1 << 30, 100001))
    def test_as_parse(self, size, most):
        data = random.Random(size).randbytes(size - 8192)
        data += platforms.firmware()
        read = firmware.Firmware.read(Dribble(data, most))
        assert read == parse(data)
        assert (read.size, read.sha256) == (
            size, hashlib.sha256(data).digest())
        assert read.secret_area == Area(0x810000, 0xC00)
        more = read.hasher()
        more.update(b'x')
        assert more.digest() == hashlib.sha256(data + b'x').digest()
        assert read.hasher().digest() == read.sha256

    @pytest.mark.parametrize('size', (0x40000, 0x40000 + 4096))
    def test_table_over_two_pieces(self, size):
        # As large as one can be; 32 bytes follow it, 18 are its footer.
        entry = platforms.table_entry(b'?' * 16, bytes(0xffff - 18 - 18))
        data = platforms.with_table(entry, size=size)
        read = firmware.Firmware.read(io.BytesIO(data))
        assert read == parse(data)
        assert read.other_entries[0].size == 0xffff - 18 - 18

    @pytest.mark.parametrize('size', (4096, 8192))
    @pytest.mark.parametrize('more', (1, 4, 4096))
    def test_table_longer_than_the_image(self, size, more):
        data = bytearray(platforms.with_table(b'', size=size))
        struct.pack_into('<H', data, size - 50, size - 32 + more)
        for read in (parse, lambda data: firmware.Firmware.read(
                io.BytesIO(data))):
            with pytest.raises(errors.FirmwareMalformed, match='cannot be'):
                read(bytes(data))

    @pytest.mark.parametrize('size', (0, 1, 4095, 4097, 0x40000 + 1))
    def test_sizes(self, size):
        with pytest.raises(errors.FirmwareMalformed,
                           match=f'^firmware of {size} bytes; expected'):
            firmware.Firmware.read(io.BytesIO(bytes(size)))

    def test_no_more_is_read_than_an_image_can_have(self, monkeypatch):
        monkeypatch.setattr(firmware, 'MAX_SIZE', 0x80000)
        assert firmware.Firmware.read(io.BytesIO(bytes(0x80000)))
        stream = io.BytesIO(bytes(0x200000))
        with pytest.raises(errors.FirmwareMalformed,
                           match='^firmware of 786432 bytes or more; expe'):
            firmware.Firmware.read(stream)
        assert stream.tell() == 0xc0000

    def test_images_of_the_same_tables_differ(self):
        data = platforms.firmware()
        assert parse(data) != parse(b'x' + data[1:])

    def test_the_image_is_not_kept(self):
        data = bytes(1 << 22) + platforms.firmware()
        tracemalloc.start()
        try:
            image = firmware.Firmware.read(io.BytesIO(data))
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert image.size == len(data)
        assert kept < 64 * 1024 and peak < 1 << 20


class TestDamagedTable:

    def refused(self, message, *args, **kwargs):
        with pytest.raises(errors.FirmwareMalformed, match=message) as exc:
            parse(platforms.with_table(*args, **kwargs))
        assert exc.value.code == 'firmware_malformed'

    def entry(self, length, data=b'12345678', guid=b'?' * 16):
        return data + struct.pack('<H', length) + guid

    @pytest.mark.parametrize('length', (0, 17, 8192, 65535))
    def test_length_of_the_table(self, length):
        self.refused(f'length of {length} bytes', b'', 8192, length)

    def test_bytes_of_no_entry(self):
        self.refused('17 bytes of the firmware table belong', bytes(17))

    @pytest.mark.parametrize('length', (0, 17, 27, 65535))
    def test_length_of_an_entry(self, length):
        self.refused(f'claims {length} bytes of the 26', self.entry(length))

    def test_entry_twice(self):
        self.refused('twice', self.entry(26) + self.entry(26))

    @pytest.mark.parametrize(('guid', 'name', 'size'), [
        (platforms._SECRET, 'secret area', 8),
        (platforms._HASHES, 'hash table', 8),
        (platforms._RESET, 'reset vector', 4)])
    def test_size_of_an_entrys_data(self, guid, name, size):
        self.refused(f"^the firmware's {name} entry has 5 bytes, expected "
                     f'{size}$', platforms.table_entry(guid, b'12345'))

    @hypothesis.given(strategies.integers(4096, 8191), strategies.binary(
        min_size=1, max_size=30))
    def test_arbitrary_changes(self, offset, value):
        data = bytearray(platforms.firmware())
        data[offset:offset + len(value)] = value
        data = bytes(data[:8192])
        try:
            image = parse(data)
        except errors.FirmwareMalformed:
            return
        assert image.sha256 == hashlib.sha256(data).digest()
        for require in (image.require_secret_area, image.require_hash_table):
            try:
                assert require().size
            except errors.FirmwareUnusable:
                pass

    @hypothesis.given(strategies.binary(max_size=200),
                      strategies.none() | strategies.integers(0, 65535))
    def test_arbitrary_tables(self, entries, length):
        try:
            image = parse(platforms.with_table(entries, length=length))
        except errors.FirmwareMalformed:
            return
        assert image.size == 8192
