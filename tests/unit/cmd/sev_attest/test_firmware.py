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

import pytest

from tests.unit.launch import platforms
from tests import vectors


@pytest.fixture
def inspect(sev_attest, tmp_path):
    def run(data):
        path = tmp_path / 'OVMF.fd'
        path.write_bytes(data)
        return sev_attest('firmware', 'inspect', path, '-f', 'json')
    return run


def test_usable(inspect):
    data = platforms.firmware()
    found = inspect(data)
    assert found.status == 0
    assert found.json == {
        'sha256': hashlib.sha256(data).hexdigest(), 'size': 8192,
        'secret_area': {'base': 0x810000, 'size': 0xc00},
        'hash_table': {'base': 0x810c00, 'size': 0x400},
        'reset_eip': 0x80b004, 'other_entries': [], 'usable': True,
        'usable_with_kernel': True,
        'several_sev_es_vcpus': True, 'reason': None}


@pytest.mark.parametrize(('form', 'text'), [
    ('json', '"guid": "dc886566-984a-4798-a75e-5585a7bf67cc",\n'
             '      "size": 4'),
    ('table', 'dc886566-984a-4798-a75e-5585a7bf67cc: 4 bytes')])
def test_entries_of_another_meaning(sev_attest, form, text):
    found = sev_attest(
        'firmware', 'inspect', vectors.directory() /
        'virtee-sev/tests/measurement/ovmf_AmdSev_suffix.bin', '-f', form)
    assert found.status == 0
    assert text in found.out


def test_distribution_s_stock_build_is_refused(inspect):
    found = inspect(vectors.read('debian-ovmf/OVMF.fd.last4096'))
    assert found.status == 1
    assert found.json['usable'] is False
    assert found.json['secret_area'] == {'base': 0, 'size': 0}
    assert 'ovmf-amdsev' in found.json['reason']
    assert found.err == ''


def test_without_room_for_kernel_hashes(inspect):
    found = inspect(platforms.firmware(hash_table=None, reset_eip=None))
    assert found.status == 0
    assert (found.json['usable'], found.json['usable_with_kernel']) == (
        True, False)
    assert found.json['several_sev_es_vcpus'] is False
    assert 'kernel hashes' in found.json['reason']


def test_table_is_for_people(sev_attest):
    found = sev_attest('firmware', 'inspect', '-', stdin=platforms.firmware())
    assert '0xc00 bytes at 0x810000' in found.out


@pytest.mark.parametrize('data', [b'', bytes(100), bytes(4097)])
def test_malformed(inspect, data):
    found = inspect(data)
    assert (found.status, found.out) == (2, '')
    assert 'multiple of 4096' in found.error


def test_too_large(sev_attest, tmp_path):
    path = tmp_path / 'OVMF.fd'
    with open(path, 'wb') as stream:
        stream.truncate((64 << 20) + 4096)
    found = sev_attest('firmware', 'inspect', path)
    assert found.status == 2
    assert f'{path}: firmware of 67112960 bytes or more' in found.error
