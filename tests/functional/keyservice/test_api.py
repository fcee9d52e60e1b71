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

"""What all resources have in common."""

import json
import uuid

import openapi_spec_validator
from oslo_db import exception as db_exc
import pytest
import requests

from nova_sev_attest.keyservice.schemas import document
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.functional.keyservice.harness import error


def test_document_is_valid_and_served(keyservice):
    openapi_spec_validator.validate(document.load())
    served = requests.get(keyservice.url + '/v1/openapi.json', timeout=30)
    assert served.json() == document.load()


def test_every_operation_of_the_document_is_there(keyservice):
    """No answer says that a documented path or method does not exist."""
    api = keyservice.member()
    values = {'sha256': '0' * 64, 'policy_id': str(uuid.uuid4()),
              'launch_id': str(uuid.uuid4()), 'revision': 1,
              'platform_id': str(uuid.uuid4())}
    for path, item in document.load()['paths'].items():
        for method in item.keys() - {'parameters'}:
            response = api(method.upper(), path.format(**values))
            assert response.status_code != 405
            if response.status_code >= 400:
                assert response.json()['errors'][0]['code'] != (
                    'attestation.not_found'), (method, path)


def test_versions_without_token(keyservice):
    api = harness.Api(keyservice.url, None)
    response = api.get('/')
    assert response.status_code == 300
    version, = response.json()['versions']
    assert version['id'] == 'v1.0' and version['status'] == 'CURRENT'
    assert version['links'][0]['href'] == keyservice.url + '/v1'
    assert api.get('/v1').json()['version'] == version
    assert requests.get(keyservice.url + '/v1/', timeout=30).json() == {
        'version': version}


def test_healthcheck_without_token(keyservice):
    response = requests.get(keyservice.url + '/healthcheck', timeout=30)
    assert response.status_code == 200


def test_links_behind_a_proxy(keyservice):
    keyservice.conf.set_override('enable_proxy_headers_parsing', True,
                                 group='oslo_middleware')
    try:
        version = requests.get(keyservice.url + '/v1', timeout=30, headers={
            'X-Forwarded-Proto': 'https', 'X-Forwarded-Host': 'cloud.test',
            'X-Forwarded-Prefix': '/attestation'}).json()['version']
    finally:
        keyservice.conf.clear_override('enable_proxy_headers_parsing',
                                       group='oslo_middleware')
    assert version['links'][0]['href'] == 'https://cloud.test/attestation/v1'


class TestIdentity:

    @pytest.mark.parametrize('token', [None, '', 'unheard-of'])
    def test_no_valid_token(self, keyservice, token):
        response = harness.Api(keyservice.url, token).get('/v1/policies')
        error(response, 401, 'unauthorized')
        assert response.headers['WWW-Authenticate'].startswith(
            'Keystone uri=')

    def test_headers_of_a_caller_mean_nothing(self, keyservice):
        forged = {'X-Roles': 'member,service,admin', 'X-Project-Id': 'p',
                  'X-Identity-Status': 'Confirmed', 'X-User-Id': 'me'}
        for token in (None, 'unheard-of'):
            error(harness.Api(keyservice.url, token).get(
                '/v1/policies', headers=forged), 401, 'unauthorized')
        error(keyservice.api('other').get('/v1/policies', headers=forged),
              403, 'forbidden')
        keyservice.policy()
        assert keyservice.member('q').get(
            '/v1/policies', headers=forged).json()['policies'] == []

    @pytest.mark.parametrize('misbehave', [
        fakes.answer(500), fakes.answer(503), fakes.hang_up])
    def test_keystone_away(self, keyservice, misbehave):
        api = keyservice.member()
        assert api.get('/v1/policies').status_code == 200
        keyservice.cloud.keystone.misbehave = misbehave
        error(api.get('/v1/policies'), 503, 'identity_unavailable')

    def test_unscoped_token(self, keyservice):
        error(keyservice.api('member', project=None).get('/v1/policies'),
              403, 'forbidden')


class TestRequests:

    @pytest.mark.parametrize('body', [
        b'', b'{', b'[]', b'null', b'"policy"', b'\xff\xfe',
        b'{"policy": {}, "policy": {}}', b'{"policy": NaN}',
        b'{"policy": {"name": "\\ud800"}}', b'[' * 100000,
        b'{"policy": ' + b'9' * 5000 + b'}'])
    def test_malformed_body(self, keyservice, body):
        error(keyservice.member().post(
            '/v1/policies', data=body,
            headers={'Content-Type': 'application/json'}),
            400, 'request_invalid')

    def test_too_large(self, keyservice):
        body = json.dumps({'policy': {'name': 'x' * 131072}})
        error(keyservice.member().post(
            '/v1/policies', data=body,
            headers={'Content-Type': 'application/json'}),
            413, 'body_too_large')

    @pytest.mark.parametrize('media_type', [
        None, 'text/plain', 'application/x-www-form-urlencoded',
        'application/jsonp'])
    def test_other_media_type(self, keyservice, media_type):
        headers = {'Content-Type': media_type} if media_type else {}
        error(keyservice.member().post('/v1/policies', data='{}',
                                       headers=headers),
              415, 'media_type_unsupported')

    def test_chunked_body(self, keyservice):
        error(keyservice.member().post(
            '/v1/policies', data=iter([b'{}']),
            headers={'Content-Type': 'application/json'}),
            411, 'length_required')

    @pytest.mark.parametrize('query', [
        'limit=0', 'limit=-1', 'limit=x', 'limit=1&limit=2', 'limit=',
        'marker=x', 'unknown=1', 'limit=\u0661', '%ff=1', 'limit'])
    def test_malformed_query(self, keyservice, query):
        error(keyservice.member().get('/v1/policies?' + query),
              400, 'request_invalid')

    def test_large_limit_is_lowered(self, keyservice):
        keyservice.conf.set_override('max_limit', 1, group='api')
        try:
            for name in 'ab':
                keyservice.policy(name=name, is_default=False, secrets=[])
            answer = keyservice.member().get('/v1/policies?limit=500').json()
        finally:
            keyservice.conf.clear_override('max_limit', group='api')
        assert len(answer['policies']) == 1
        assert 'limit=1&' in answer['policies_links'][0]['href']

    @pytest.mark.parametrize('path', [
        '/v2', '/v1/nothing', '/v1/policies/x/y', '/v1/policies/not-a-uuid',
        '/v1/firmwares/x', '/v1/launches/' + 'A' * 36])
    def test_unknown_path(self, keyservice, path):
        error(keyservice.member().get(path), 404, 'not_found')

    def test_unknown_method(self, keyservice):
        response = keyservice.member().put('/v1/policies', json={})
        error(response, 405, 'method_not_allowed')
        assert 'POST' in response.headers['Allow']

    def test_request_ids(self, keyservice):
        api, seen = keyservice.member(), set()
        for _ in range(3):
            seen.add(api.get('/v1/policies').headers[
                'X-Openstack-Request-Id'])
        assert len(seen) == 3


class TestFaults:

    def test_database_away(self, keyservice, monkeypatch):
        def fail(*args, **kwargs):
            raise db_exc.DBConnectionError(ValueError('secret parameters'))

        monkeypatch.setattr(type(keyservice.service.database), 'reader',
                            fail)
        detail = error(keyservice.member().get('/v1/policies'), 503,
                       'database_unavailable')
        assert 'secret parameters' not in detail

    def test_database_without_tables(self, cloud, tmp_path, database_url):
        service = harness.KeyService(cloud, tmp_path, database_url,
                                     migrate=False)
        try:
            error(service.member().get('/v1/policies'), 503,
                  'database_unavailable')
        finally:
            service.stop()

    def test_fault_of_the_program(self, keyservice, monkeypatch):
        def fail(*args, **kwargs):
            raise RuntimeError('secret')

        monkeypatch.setattr(keyservice.service.authoring, 'create_policy',
                            fail)
        response = keyservice.member().post(
            '/v1/policies', json={'policy': keyservice.policy_body()})
        detail = error(response, 500, 'internal_error')
        assert 'secret' not in detail
