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
import struct

import pytest

from nova_sev_attest.launch import errors
from nova_sev_attest.launch import kernel_hashes

KernelHashes = kernel_hashes.KernelHashes


def sha256(data):
    return hashlib.sha256(data).digest()


def test_table():
    table = KernelHashes.from_bytes(b'kernel', b'initrd', 'quiet').table()
    assert len(table) == 176
    assert table[:18] == bytes.fromhex(
        '06d63894224fc94cb479a793d411fd21') + struct.pack('<H', 168)
    assert table[168:] == bytes(8)
    assert [(table[at:at + 4].hex(), struct.unpack_from('<H', table, at + 16),
             table[at + 18:at + 50]) for at in (18, 68, 118)] == [
        ('d82dd097', (50,), sha256(b'quiet\0')),
        ('31f7ba44', (50,), sha256(b'initrd')),
        ('3794e74d', (50,), sha256(b'kernel'))]


def test_from_digests_is_the_same():
    assert KernelHashes.from_digests(
        sha256(b'kernel'), sha256(b'initrd'), 'quiet') == (
        KernelHashes.from_bytes(b'kernel', b'initrd', 'quiet'))


def test_no_initrd_and_no_command_line():
    hashes = KernelHashes.from_bytes(b'kernel')
    assert hashes.initrd_sha256 == sha256(b'')
    assert hashes.initrd_sha256 == kernel_hashes.NO_INITRD_SHA256
    assert hashes.command_line_sha256 == sha256(b'\0')
    assert KernelHashes.from_digests(sha256(b'kernel')) == hashes


def test_command_line_is_utf_8():
    assert kernel_hashes.command_line_sha256('\u00e4') == sha256(
        b'\xc3\xa4\0')


@pytest.mark.parametrize(('text', 'message'), [
    ('a\0b', 'cannot hold a NUL character'),
    ('\ud800', 'cannot be written as UTF-8')])
def test_command_line_that_cannot_be(text, message):
    with pytest.raises(errors.KernelHashesMalformed,
                       match=f'^(a|the) kernel command line {message}$'):
        KernelHashes.from_bytes(b'kernel', None, text)


@pytest.mark.parametrize('name', ('kernel_sha256', 'initrd_sha256',
                                  'command_line_sha256'))
def test_size_of_a_hash(name):
    values = dict.fromkeys(('kernel_sha256', 'initrd_sha256',
                            'command_line_sha256'), bytes(32))
    values[name] = bytes(64)
    with pytest.raises(errors.KernelHashesMalformed,
                       match=f'{name} has 32 bytes, got 64'):
        KernelHashes(**values)
