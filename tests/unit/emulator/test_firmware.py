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

import base64
import hashlib
import hmac
import struct
import uuid

import pytest

from nova_sev_attest.emulator import firmware
from tests import vectors

_SECRET = '4c2eb361-7d9b-4cc3-8081-127c90d3d294'
_HASHES = '7255371f-3a3b-4b04-927b-1da6efa8d454'
_RESET = '00f771de-1a7e-4fcb-890e-68c77e2fb44e'
_FOOTER = '96b582de-1fb2-45f7-baea-a366c55a082d'


def _entry(guid, data, size=None):
    size = len(data) + 18 if size is None else size
    return data + struct.pack('<H', size) + uuid.UUID(guid).bytes_le


def _image(*entries, total=None):
    table = b''.join(entries)
    total = len(table) + 18 if total is None else total
    return (bytes(4096) + table + struct.pack('<H', total)
            + uuid.UUID(_FOOTER).bytes_le + bytes(32))


def test_finds_the_entries_of_an_amdsev_build():
    name = ('virtee-sevctl/tests/data/OVMF.amdsev.fd_trimmed_edk2-ovmf-'
            '20220126gitbb1bba3d77-4.el9')
    found = firmware.parse(vectors.read(name))
    assert found == firmware.Firmware(
        secret=firmware.Area(0x80c000, 0xc00),
        hashes=firmware.Area(0x80cc00, 0x400), reset=0x80b004)


def test_finds_empty_areas_of_a_stock_build():
    found = firmware.parse(vectors.read('debian-ovmf/OVMF.fd.last4096'))
    assert found.secret == found.hashes == firmware.Area(0, 0)


@pytest.mark.parametrize('image', [b'', bytes(49), bytes(4096)])
def test_firmware_without_a_table_has_nothing(image):
    assert firmware.parse(image) == firmware.Firmware(None, None, None)


def test_reads_made_entries():
    found = firmware.parse(_image(
        _entry('11111111-1111-1111-1111-111111111111', b'whatever'),
        _entry(_SECRET, struct.pack('<II', 0x810000, 0xc00))))
    assert found == firmware.Firmware(
        firmware.Area(0x810000, 0xc00), None, None)


@pytest.mark.parametrize('image, text', [
    (_image(_entry(_SECRET, bytes(7))), 'has 7 bytes'),
    (_image(_entry(_RESET, bytes(8))), 'has 8 bytes, not 4'),
    (_image(_entry(_SECRET, bytes(8), size=17)), 'malformed'),
    (_image(_entry(_SECRET, bytes(8), size=60)), 'malformed'),
    (_image(total=5000), 'longer than the image'),
])
def test_malformed_tables_are_refused(image, text):
    with pytest.raises(firmware.FirmwareError, match=text):
        firmware.parse(image)


def test_hash_table_gives_the_published_measurement():
    """The published blob is an HMAC over the digest: rebuild and compare."""
    base = 'virtee-sevctl/tests/data/'
    told = vectors.expected()['sev_measurement']
    case = next(one for one in told['cases'] if 'vmlinuz' in one['name'])
    image = vectors.read(base + 'OVMF.amdsev.fd_trimmed_edk2-ovmf-'
                         '20220126gitbb1bba3d77-4.el9')
    table = firmware.hash_table(
        firmware.parse(image).hashes,
        vectors.read(base + 'measurement/vmlinuz-fake'),
        vectors.read(base + 'measurement/initrd-fake'),
        b'foo bar baz fake kernel=cmdline\0')
    assert len(table) == 176
    blob = base64.b64decode(case['blob_b64'])
    digest = hashlib.sha256(image + table).digest()
    message = (b'\4' + bytes(told['api']) + struct.pack('<I', told['policy'])
               + digest + blob[32:])
    assert hmac.new(vectors.read(told['tik']), message,
                    hashlib.sha256).digest() == blob[:32]


@pytest.mark.parametrize('area', [
    None, firmware.Area(0, 0), firmware.Area(0, 1024),
    firmware.Area(0x810c00, 175)])
def test_firmware_without_room_for_hashes_is_refused(area):
    with pytest.raises(firmware.FirmwareError, match='no area'):
        firmware.hash_table(area, b'kernel', b'', b'\0')
