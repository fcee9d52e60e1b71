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

import os
import stat

import pytest

from nova_sev_attest import files


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_modes_and_contents(tmp_path):
    files.write_new({tmp_path / 'key': (b'secret', files.PRIVATE),
                     tmp_path / 'public': (b'text', files.PUBLIC)})
    assert (tmp_path / 'key').read_bytes() == b'secret'
    assert mode(tmp_path / 'key') == 0o600
    assert (tmp_path / 'public').read_bytes() == b'text'
    mask = os.umask(0o077)
    try:
        files.write_new({tmp_path / 'strict': (b'', files.PUBLIC)})
    finally:
        os.umask(mask)
    assert mode(tmp_path / 'strict') == 0o600
    assert mode(tmp_path / 'public') == 0o644 & ~mask


def test_all_or_none(tmp_path):
    (tmp_path / 'b').write_bytes(b'old')
    with pytest.raises(files.Unusable, match='exists and is left'):
        files.write_new({tmp_path / 'a': (b'1', files.PRIVATE),
                         tmp_path / 'b': (b'2', files.PRIVATE),
                         tmp_path / 'c': (b'3', files.PRIVATE)})
    assert os.listdir(tmp_path) == ['b']
    assert (tmp_path / 'b').read_bytes() == b'old'


def test_nothing_left_when_a_folder_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.write_new({tmp_path / 'a': (b'1', files.PRIVATE),
                         tmp_path / 'none' / 'b': (b'2', files.PRIVATE)})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('content', [b'', bytes(15), bytes(17),
                                     b'AAAAAAAAAAAAAAAAAAAAAA=='])
def test_keys_are_16_bytes_and_never_shown(tmp_path, content):
    path = tmp_path / 'vm_tik.bin'
    path.write_bytes(content)
    with pytest.raises(files.Unusable) as caught:
        files.Reader().key(str(path), 'TIK')
    assert 'AAAA' not in str(caught.value)


@pytest.mark.parametrize('text', ['*', 'AA=', 'AAAA', '\u00e9'])
def test_base64_of_another_size_or_none(text):
    with pytest.raises(files.Unusable, match='this: expected 2 bytes'):
        files.decode(text, 2, 'this')


def test_base64_with_white_space():
    assert files.decode(' AA\nE=\n', 2, 'this') == b'\0\1'


def test_binary_or_base64(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'\0\1')
    assert files.Reader().binary(str(path), 2, 'x') == b'\0\1'
    path.write_bytes(b'AAE=\n')
    assert files.Reader().binary(str(path), 2, 'x') == b'\0\1'
    path.write_bytes(bytes(70000))
    with pytest.raises(files.Unusable, match='more than the 65536'):
        files.Reader().binary(str(path), 2, 'x')
