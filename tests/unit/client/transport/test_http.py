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

import logging

from oslo_config import cfg
from oslo_config import fixture
import pytest

from nova_sev_attest.client import answers
from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions
from nova_sev_attest.client import launches
from nova_sev_attest.client.transport import base
from nova_sev_attest.client.transport import http
from nova_sev_attest.conf import driver as options

KEYSTONE = 'http://keystone.test/v3'
SERVICE = 'http://attestation.test'
IDENTITY = launches.LaunchIdentity('launch', 'f' * 64)
CREATED = {'launch': {'id': 'launch', 'session': {
    'dh_cert': answers.encode(b'g' * 2084),
    'session': answers.encode(b's' * 128), 'policy': 0x3b}}}


@pytest.fixture
def conf():
    with_fixture = fixture.Config(cfg.ConfigOpts())
    with_fixture.setUp()
    with_fixture.conf([])
    options.register_opts(with_fixture.conf)
    options.register_opts(with_fixture.conf)
    yield with_fixture
    with_fixture.cleanUp()


def configure(conf, **more):
    conf.config(group='sev_attest', auth_type='password')
    conf.load_raw_values(
        group='sev_attest', auth_type='password', auth_url=KEYSTONE,
        username='nova', password='the-password', project_name='service',
        user_domain_id='default', project_domain_id='default', **more)
    return conf.conf


@pytest.fixture
def keystone(requests_mock):
    requests_mock.get(KEYSTONE, json={'version': {
        'id': 'v3.14', 'status': 'stable',
        'links': [{'rel': 'self', 'href': KEYSTONE}]}})
    return requests_mock.post(
        f'{KEYSTONE}/auth/tokens', status_code=201,
        headers={'X-Subject-Token': 'the-token'},
        json={'token': {
            'methods': ['password'], 'user': {'id': 'u', 'name': 'nova',
                                              'domain': {'id': 'default'}},
            'project': {'id': 'p', 'name': 'service',
                        'domain': {'id': 'default'}},
            'expires_at': '2999-01-01T00:00:00.000000Z',
            'catalog': [{'type': 'attestation', 'id': 's', 'endpoints': [
                {'interface': 'public', 'region': 'one', 'id': 'e1',
                 'region_id': 'one', 'url': 'http://public.test'},
                {'interface': 'internal', 'region': 'one', 'id': 'e2',
                 'region_id': 'one', 'url': SERVICE}]}]}})


def create(transport):
    return transport.create_launch(IDENTITY, 'server', 'host', 'amd-sev',
                                   {'pdh': b'p'}, deadlines.Deadline(5))


def test_is_a_transport():
    assert issubclass(http.HttpTransport, base.Transport)


def test_own_credential_and_internal_endpoint(conf, keystone, requests_mock,
                                              caplog):
    caplog.set_level(logging.DEBUG)
    requests_mock.put(f'{SERVICE}/v1/launches/launch', json=CREATED)
    assert create(http.HttpTransport(configure(conf))).policy == 0x3b
    assert requests_mock.last_request.headers['X-Auth-Token'] == 'the-token'
    user = keystone.last_request.json()['auth']['identity']['password']
    assert user['user']['name'] == 'nova'
    assert requests_mock.last_request.timeout == pytest.approx(5, abs=1)
    for secret in ('the-password', 'the-token', 'f' * 64):
        assert secret not in caplog.text


def test_endpoint_override(conf, keystone, requests_mock):
    requests_mock.put('http://other.test/v1/launches/launch', json=CREATED)
    transport = http.HttpTransport(
        configure(conf, endpoint_override='http://other.test'))
    assert create(transport).policy == 0x3b


def test_evidence_and_outcome(conf, keystone, requests_mock):
    requests_mock.put(f'{SERVICE}/v1/launches/launch/evidence', json={
        'launch': {'id': 'launch'}, 'release': None})
    requests_mock.put(f'{SERVICE}/v1/launches/launch/outcome', json={})
    transport = http.HttpTransport(configure(conf))
    assert transport.send_evidence(IDENTITY, 'amd-sev', {}, {},
                                   deadlines.Deadline(5)) is None
    transport.report_outcome(IDENTITY, 'running', None,
                             deadlines.Deadline(5))
    assert requests_mock.last_request.path.endswith('/outcome')


def test_token_that_expired_is_renewed_once(conf, keystone, requests_mock):
    requests_mock.put(f'{SERVICE}/v1/launches/launch', [
        {'status_code': 401}, {'json': CREATED}])
    assert create(http.HttpTransport(configure(conf))).policy == 0x3b
    assert keystone.call_count == 2


def test_refused_credential(conf, requests_mock, keystone):
    requests_mock.post(f'{KEYSTONE}/auth/tokens', status_code=401)
    with pytest.raises(exceptions.ServiceUnavailable) as caught:
        create(http.HttpTransport(configure(conf)))
    assert 'the-password' not in str(caught.value)


def test_no_credential(conf):
    with pytest.raises(exceptions.ServiceUnavailable, match='auth_type'):
        http.HttpTransport(conf.conf)


def test_unknown_credential(conf):
    conf.load_raw_values(group='sev_attest', auth_type='nonsense')
    with pytest.raises(exceptions.ServiceUnavailable, match='credential'):
        http.HttpTransport(conf.conf)
