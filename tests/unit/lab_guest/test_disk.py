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

import struct

from oslo_utils.imageutils import format_inspector
import pytest

from devstack.lab.guest import disk

# IEEE 1619-2007, annex B, vector 10: AES-256-XTS, data unit 255.
_KEY = bytes.fromhex(
    '2718281828459045235360287471352662497757247093699959574966967627'
    '3141592653589793238462643383279502884197169399375105820974944592')
_PLAIN = bytes(range(256)) * 2
_CIPHER_START = bytes.fromhex(
    '1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b')


def test_sectors_are_encrypted_as_ieee_1619_says():
    encrypted = disk.encrypt_sectors(_KEY, _PLAIN * 256)
    assert len(encrypted) == 256 * disk.SECTOR
    assert encrypted[255 * disk.SECTOR:].startswith(_CIPHER_START)
    assert not encrypted.startswith(_CIPHER_START), 'each has its own tweak'


@pytest.mark.parametrize('key, data, reason', [
    (_KEY[:32], bytes(512), '64 bytes'),
    (_KEY, bytes(511), 'whole number'),
])
def test_other_keys_and_lengths_are_refused(key, data, reason):
    with pytest.raises(ValueError, match=reason):
        disk.encrypt_sectors(key, data)


def test_the_volume_is_the_one_partition():
    volume = b'LUKS\xba\xbe' + bytes(506) + b'payload' + bytes(505)
    image = disk.make_disk(volume)
    start, sectors = struct.unpack_from('<II', image, 446 + 8)
    assert image[start * 512:] == volume
    assert sectors * 512 == len(volume)
    assert not any(image[462:510]), 'no other partition'


def test_nova_and_glance_take_the_disk_for_a_raw_one(tmp_path):
    # They refuse LUKS2 at the start of a disk, and allow "gpt" (which is
    # what they call any boot record) as raw.
    path = tmp_path / 'disk'
    path.write_bytes(disk.make_disk(b'LUKS\xba\xbe\0\2' + bytes(1 << 20)))
    found = format_inspector.detect_file_format(str(path))
    assert str(found) == 'gpt'
    found.safety_check()
