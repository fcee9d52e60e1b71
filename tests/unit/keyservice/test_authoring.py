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

import pytest

from nova_sev_attest.keyservice import authoring
from nova_sev_attest.keyservice import errors

UUID = '0a1b2c3d-0000-4000-8000-00000000000f'


@pytest.mark.parametrize('reference', [
    UUID, UUID.upper(), f'{UUID}/', f'secrets/{UUID}',
    f'/v1/secrets/{UUID}', f'https://host:9311/v1/secrets/{UUID}',
    f'https://host/key-manager/v1/secrets/{UUID}/',
    f'file:///etc/v1/secrets/{UUID}'])
def test_only_the_uuid_of_a_reference_is_used(reference):
    assert authoring._secret_id(reference) == UUID


@pytest.mark.parametrize('reference', [
    '', 'x', UUID[:-1], UUID + '0', f'{UUID}{UUID}', f' {UUID}',
    f'{UUID}\n', f'https://host/{UUID}', f'https://host/v1/orders/{UUID}',
    f'https://host/v1/secrets/{UUID}/payload',
    f'https://host/v1/secrets/{UUID}?a=b', f'https://host/?/secrets/{UUID}',
    f'https://host/#/secrets/{UUID}', f'xsecrets/{UUID}',
    UUID.replace('-', ''), '{' + UUID + '}', 'urn:uuid:' + UUID])
def test_malformed_reference(reference):
    with pytest.raises(errors.BadRequest) as caught:
        authoring._secret_id(reference)
    assert caught.value.word == 'secret_ref_malformed'
