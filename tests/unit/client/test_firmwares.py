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

from nova_sev_attest.client import exceptions
from tests.unit.client import fakes

URL = fakes.URL
IMAGE = b'firmware' * 100
SHA256 = hashlib.sha256(IMAGE).hexdigest()


@pytest.fixture
def resource():
    return fakes.make_client().firmwares


def test_upload_under_its_hash(requests_mock, resource):
    requests_mock.put(f'{URL}/v1/firmwares/{SHA256}', status_code=201,
                      json={'firmware': {'sha256': SHA256}})
    assert resource.upload(IMAGE) == {'sha256': SHA256}
    sent = requests_mock.last_request
    assert sent.body == IMAGE
    assert sent.headers['Content-Type'] == 'application/octet-stream'


def test_firmware_that_cannot_receive_a_secret(requests_mock, resource):
    requests_mock.put(f'{URL}/v1/firmwares/{SHA256}', status_code=400, json={
        'errors': [{'code': 'attestation.firmware_unusable', 'detail': 'x'}]})
    with pytest.raises(exceptions.RequestRefused) as caught:
        resource.upload(IMAGE)
    assert caught.value.code == 'attestation.firmware_unusable'


def test_get_list_delete(requests_mock, resource):
    requests_mock.get(f'{URL}/v1/firmwares/{SHA256}',
                      json={'firmware': {'size': 8}})
    requests_mock.get(f'{URL}/v1/firmwares', json={'firmwares': []})
    requests_mock.delete(f'{URL}/v1/firmwares/{SHA256}', status_code=204)
    assert resource.get(SHA256) == {'size': 8}
    assert resource.list() == ([], None)
    resource.delete(SHA256)
    assert requests_mock.last_request.method == 'DELETE'


def test_upload_tells_how_far_it_is(requests_mock):
    image = bytes(range(256)) * 1000
    bodies = []

    def answer(request, context):
        piece = request.body.read(100000)
        bodies.append(piece + request.body.read())
        context.status_code = 503 if len(bodies) == 1 else 201
        return {'firmware': {'size': len(image)}}

    requests_mock.put(
        f'{fakes.URL}/v1/firmwares/{hashlib.sha256(image).hexdigest()}',
        json=answer)
    seen = []
    fakes.make_client(retry_delay=0).firmwares.upload(image, seen.append)
    assert bodies == [image, image]
    assert seen == [100000, 256000] * 2
    assert requests_mock.last_request.headers['Content-Length'] == '256000'


def test_each(requests_mock):
    requests_mock.get(f'{fakes.URL}/v1/firmwares',
                      json={'firmwares': [{'sha256': 'a'}]})
    assert list(fakes.make_client().firmwares.each(sort='size')) == [
        {'sha256': 'a'}]
    assert requests_mock.last_request.qs == {'sort': ['size']}
