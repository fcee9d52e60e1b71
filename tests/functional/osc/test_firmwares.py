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
import json

from tests.unit.launch import platforms

SHA256 = hashlib.sha256(platforms.firmware()).hexdigest()


def test_create_list_show_delete(openstack, files):
    made = openstack('attestation', 'firmware', 'create', 'OVMF.fd', '-f',
                     'json').json
    assert made['sha256'] == SHA256
    assert made['secret_area'] == {'base': 0x810000, 'size': 0xc00}
    again = openstack('attestation', 'firmware', 'create', 'OVMF.fd')
    assert again.status == 0
    assert '0xc00 bytes at 0x810000' in again.out
    listed = openstack('attestation', 'firmware', 'list', '--long', '-f',
                       'json').json
    assert [each['SHA-256'] for each in listed] == [SHA256]
    for word in (SHA256, SHA256[:8], 'OVMF.fd'):
        shown = openstack('attestation', 'firmware', 'show', word, '-f',
                          'value', '-c', 'sha256')
        assert shown.out.strip() == SHA256
    assert openstack('attestation', 'firmware', 'delete',
                     SHA256[:10]).status == 0
    done = openstack('attestation', 'firmware', 'show', SHA256)
    assert done.status == 1 and 'HTTP 404' in done.err


def test_firmware_that_measures_no_kernel(openstack, files):
    (files / 'plain.fd').write_bytes(platforms.firmware(hash_table=None))
    done = openstack('attestation', 'firmware', 'create', 'plain.fd')
    assert done.status == 0
    assert 'measures no kernel' in done.err
    assert 'none' in done.out


def test_firmware_from_the_standard_input(command, files):
    done = command('attestation', 'firmware', 'create', '-', '-f', 'json',
                   stdin=platforms.firmware())
    assert json.loads(done.out)['sha256'] == SHA256


def test_firmware_that_a_policy_names(openstack, files):
    openstack('attestation', 'policy', 'create', 'web', '--firmware',
              'OVMF.fd', '--firmware-boot')
    done = openstack('attestation', 'firmware', 'delete', SHA256)
    assert done.status == 1 and 'policy' in done.err


def test_firmware_that_is_not_there(openstack, files):
    openstack('attestation', 'firmware', 'create', 'OVMF.fd')
    done = openstack('attestation', 'firmware', 'show', 'OVMF.df')
    assert done.status == 1
    assert f'There is no firmware "OVMF.df". There is {SHA256}.' in done.err
