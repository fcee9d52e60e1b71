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

import pytest

from nova_sev_attest.client import answers
from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions
from nova_sev_attest.client import launches
from tests.unit.client import fakes

URL = fakes.URL
ID = '0d6a1f0e-4f0e-4e6c-9a52-0d9d1a7c2f11'
IDENTITY = launches.LaunchIdentity(ID, 'f' * 64)
PLATFORM = {'pdh': b'p' * 2084, 'cert_chain': b'c' * 6252}
SESSION = {'dh_cert': answers.encode(b'g' * 2084),
           'session': answers.encode(b's' * 128), 'policy': 0x3b}
RELEASE = {'secret_header': answers.encode(b'h' * 52),
           'secret': answers.encode(b'x' * 32), 'gpa': 0x810000}
EVIDENCE = {'measurement': b'm' * 48, 'api_major': 1, 'api_minor': 51,
            'build_id': 3, 'policy': 0x3b}


@pytest.fixture
def resource():
    return fakes.make_client(max_retries=0).launches


def create(resource, **options):
    return resource.create(IDENTITY, 'server', 'host', 'amd-sev', PLATFORM,
                           **options)


def send(resource):
    return resource.send_evidence(IDENTITY, 'amd-sev', EVIDENCE,
                                  {'vcpus': 1})


def without(document, name):
    return {key: value for key, value in document.items() if key != name}


def test_create(requests_mock, resource):
    requests_mock.put(f'{URL}/v1/launches/{ID}', status_code=201, json={
        'launch': {'id': ID, 'session': SESSION}})
    assert create(resource) == launches.SevSession(
        b'g' * 2084, b's' * 128, 0x3b)
    sent = requests_mock.last_request
    assert sent.headers['X-Attestation-Launch-Token'] == 'f' * 64
    assert sent.json() == {'launch': {
        'server_id': 'server', 'host': 'host', 'technology': 'amd-sev',
        'platform': {'pdh': answers.encode(b'p' * 2084),
                     'cert_chain': answers.encode(b'c' * 6252)}}}


def test_create_for_a_rescue(requests_mock, resource):
    requests_mock.put(f'{URL}/v1/launches/{ID}', status_code=201, json={
        'launch': {'id': ID, 'session': SESSION}})
    create(resource, purpose=launches.RESCUE)
    assert requests_mock.last_request.json()['launch']['purpose'] == 'rescue'


@pytest.mark.parametrize('launch', [
    {}, {'id': ID}, {'id': 'another', 'session': SESSION},
    {'id': ID, 'session': []},
    *({'id': ID, 'session': without(SESSION, name)} for name in SESSION),
    {'id': ID, 'session': SESSION | {'policy': -1}},
    {'id': ID, 'session': SESSION | {'policy': 2 ** 32}},
    {'id': ID, 'session': SESSION | {'session': 'c2hvcnQ='}},
    {'id': ID, 'session': SESSION | {'dh_cert': answers.encode(
        b'g' * 2085)}},
])
def test_create_answered_otherwise(requests_mock, resource, launch):
    requests_mock.put(f'{URL}/v1/launches/{ID}', json={'launch': launch})
    with pytest.raises(exceptions.InvalidResponse):
        create(resource)


def test_evidence(requests_mock, resource):
    requests_mock.put(f'{URL}/v1/launches/{ID}/evidence', json={
        'launch': {'id': ID}, 'release': RELEASE})
    assert send(resource) == launches.SevRelease(b'h' * 52, b'x' * 32,
                                                 0x810000)
    sent = requests_mock.last_request
    assert sent.headers['X-Attestation-Launch-Token'] == 'f' * 64
    assert sent.json() == {
        'evidence': {'technology': 'amd-sev', 'api_major': 1,
                     'api_minor': 51, 'build_id': 3, 'policy': 0x3b,
                     'measurement': answers.encode(b'm' * 48)},
        'claims': {'vcpus': 1}}


def test_evidence_of_a_policy_without_secrets(requests_mock, resource):
    requests_mock.put(f'{URL}/v1/launches/{ID}/evidence', json={
        'launch': {'id': ID}, 'release': None})
    assert send(resource) is None


@pytest.mark.parametrize('release', [without(RELEASE, 'gpa'),
                                     RELEASE | {'gpa': None}])
def test_release_without_address(requests_mock, resource, release):
    requests_mock.put(f'{URL}/v1/launches/{ID}/evidence', json={
        'launch': {'id': ID}, 'release': release})
    assert send(resource).gpa is None


@pytest.mark.parametrize('document', [
    [], {}, {'launch': {'id': ID}},
    {'launch': {'id': 'another'}, 'release': RELEASE},
    *({'launch': {'id': ID}, 'release': release} for release in (
        {}, 7, without(RELEASE, 'secret'), without(RELEASE, 'secret_header'),
        RELEASE | {'gpa': 0}, RELEASE | {'gpa': 2 ** 52},
        RELEASE | {'gpa': '1'},
        RELEASE | {'secret': ''},
        RELEASE | {'secret': answers.encode(b'x' * 33)},
        RELEASE | {'secret': answers.encode(b'x' * (16 * 1024 + 16))},
        RELEASE | {'secret_header': answers.encode(b'h' * 51)}))])
def test_evidence_answered_otherwise(requests_mock, resource, document):
    requests_mock.put(f'{URL}/v1/launches/{ID}/evidence', json=document)
    with pytest.raises(exceptions.InvalidResponse):
        send(resource)


@pytest.mark.parametrize('call, path', [(create, ''), (send, '/evidence')])
def test_403_is_a_denial(requests_mock, resource, call, path):
    requests_mock.put(
        f'{URL}/v1/launches/{ID}{path}', status_code=403,
        headers={'X-Openstack-Request-Id': 'req-1'},
        json={'errors': [{'code': 'attestation.policy_missing',
                          'detail': 'No policy.'}]})
    with pytest.raises(exceptions.AttestationDenied) as caught:
        call(resource)
    assert (caught.value.code, caught.value.detail,
            caught.value.request_id) == (
        'attestation.policy_missing', 'No policy.', 'req-1')


def test_409_is_no_denial(requests_mock, resource):
    requests_mock.put(f'{URL}/v1/launches/{ID}', status_code=409, json={})
    with pytest.raises(exceptions.RequestRefused) as caught:
        create(resource)
    assert not isinstance(caught.value, exceptions.AttestationDenied)


def test_outcome(requests_mock, resource):
    requests_mock.put(f'{URL}/v1/launches/{ID}/outcome', json={})
    resource.report_outcome(IDENTITY, 'failed', 'r' * 300)
    assert requests_mock.last_request.json() == {'outcome': {
        'status': 'failed', 'reason': 'r' * 255}}
    resource.report_outcome(IDENTITY, 'running')
    assert requests_mock.last_request.json() == {'outcome': {
        'status': 'running', 'reason': None}}


def test_get_and_list(requests_mock, resource):
    requests_mock.get(f'{URL}/v1/launches/{ID}', json={'launch': {'id': ID}})
    requests_mock.get(f'{URL}/v1/launches?server_id=s', json={
        'launches': [{'id': ID}]})
    assert resource.get(ID) == {'id': ID}
    assert resource.list(server_id='s') == ([{'id': ID}], None)


def test_no_secret_in_repr_or_log(requests_mock, resource, caplog):
    caplog.set_level(logging.DEBUG)
    requests_mock.put(f'{URL}/v1/launches/{ID}', json={
        'launch': {'id': ID, 'session': SESSION}})
    requests_mock.put(f'{URL}/v1/launches/{ID}/evidence', json={
        'launch': {'id': ID}, 'release': RELEASE})
    shown = repr((IDENTITY, create(resource), send(resource))) + caplog.text
    for secret in ('f' * 64, "b's", "b'h", "b'x", SESSION['session'],
                   RELEASE['secret']):
        assert secret not in shown
    assert ID in caplog.text


class TestWaitingForTheOwner:
    """202 until the owner did what the launch waits for."""

    CREATE = f'{URL}/v1/launches/{ID}'
    EVIDENCE = f'{URL}/v1/launches/{ID}/evidence'
    WAITS = {'status_code': 202, 'json': {'launch': {
        'id': ID, 'status': 'awaiting_session', 'expires_in': 600}}}
    SESSION = {'json': {'launch': {'id': ID, 'session': SESSION}}}

    @pytest.fixture
    def naps(self):
        return []

    @pytest.fixture
    def resource(self, naps):
        return fakes.make_client(max_retries=0, retry_delay=0.01,
                                 sleep=naps.append).launches

    def create(self, resource, seconds=60, waiting=None):
        return resource.create(IDENTITY, 'server', 'host', 'amd-sev',
                               PLATFORM, deadlines.Deadline(seconds),
                               waiting)

    def test_the_same_request_again_until_there_is_a_session(
            self, requests_mock, resource):
        requests_mock.put(self.CREATE, [self.WAITS, self.WAITS,
                                        self.SESSION])
        assert self.create(resource).policy == 0x3b
        first, second, third = requests_mock.request_history
        assert first.body == second.body == third.body
        tokens = {sent.headers['X-Attestation-Launch-Token']
                  for sent in (first, second, third)}
        assert tokens == {'f' * 64}
        assert 'Prefer' not in first.headers
        assert second.headers['Prefer'] == 'wait=25'
        # The service may be silent while it waits, and a moment longer.
        assert first.timeout == pytest.approx(10, abs=1)
        assert second.timeout == pytest.approx(35, abs=1)

    def test_evidence_waits_for_approval(self, requests_mock, resource):
        requests_mock.put(self.EVIDENCE, [self.WAITS, {'json': {
            'launch': {'id': ID}, 'release': None}}])
        assert send(resource) is None
        assert requests_mock.call_count == 2

    def test_the_step_is_told_once_and_may_allow_more_time(
            self, requests_mock, resource):
        requests_mock.put(self.CREATE, [self.WAITS, self.WAITS,
                                        self.SESSION])
        told = []

        def waiting(expires_in):
            told.append(expires_in)
            return deadlines.Deadline(1000)

        assert self.create(resource, 5, waiting).policy == 0x3b
        assert told == [600]
        assert requests_mock.last_request.headers['Prefer'] == 'wait=25'

    def test_the_step_may_refuse_to_wait(self, requests_mock, resource):
        requests_mock.put(self.CREATE, [self.WAITS])

        def waiting(expires_in):
            raise ValueError('too many')

        with pytest.raises(ValueError, match='too many'):
            self.create(resource, waiting=waiting)
        assert requests_mock.call_count == 1

    def test_the_wait_ends_with_the_deadline(self, requests_mock, resource):
        requests_mock.put(self.CREATE, [self.WAITS])
        with pytest.raises(exceptions.OwnerTimeout, match='1.2 s'):
            self.create(resource, 1.2)
        assert requests_mock.last_request.headers['Prefer'] == 'wait=1'
        assert requests_mock.last_request.timeout < 1.2

    def test_a_service_that_does_not_wait_is_asked_each_second(
            self, requests_mock, resource, naps):
        requests_mock.put(self.CREATE, [self.WAITS] * 4 + [self.SESSION])
        self.create(resource)
        assert naps == [pytest.approx(1, abs=0.5)] * 3

    def test_the_service_may_be_away_for_long_meanwhile(
            self, requests_mock, resource):
        requests_mock.put(self.CREATE, [self.WAITS]
                          + [{'status_code': 503}] * 20 + [self.SESSION])
        assert self.create(resource).policy == 0x3b

    def test_a_denial_ends_the_wait(self, requests_mock, resource):
        requests_mock.put(self.EVIDENCE, [self.WAITS, {
            'status_code': 403, 'json': {'errors': [{
                'code': 'attestation.owner_denied', 'detail': 'No.'}]}}])
        with pytest.raises(exceptions.AttestationDenied, match='No.'):
            send(resource)

    @pytest.mark.parametrize('launch', [
        {'id': ID}, {'id': ID, 'expires_in': -1},
        {'id': ID, 'expires_in': 'x'}, {'id': 'other', 'expires_in': 1}])
    def test_malformed_answer(self, requests_mock, resource, launch):
        requests_mock.put(self.CREATE, status_code=202,
                          json={'launch': launch})
        with pytest.raises(exceptions.InvalidResponse):
            self.create(resource)
        assert requests_mock.call_count == 1


OWNED = f'{URL}/v1/launches/{ID}'


def test_each_with_its_filters(requests_mock, resource):
    requests_mock.get(f'{URL}/v1/launches', json={'launches': [{'id': ID}]})
    assert list(resource.each(host='host-1', status='running')) == [
        {'id': ID}]
    assert requests_mock.last_request.qs == {
        'host': ['host-1'], 'status': ['running']}


@pytest.mark.parametrize('signed', [None, b'signed'])
def test_certificates(requests_mock, resource, signed):
    requests_mock.get(f'{OWNED}/certificates', json={'certificates': {
        'pdh': answers.encode(b'pdh'), 'cert_chain': answers.encode(b'three'),
        'signed_cek': signed and answers.encode(signed)}})
    found = resource.certificates(ID)
    assert found == launches.SevCertificates(b'pdh', b'three', signed)
    assert 'three' not in repr(found)


@pytest.mark.parametrize('name', ['pdh', 'cert_chain', 'signed_cek'])
def test_certificates_are_bounded(requests_mock, resource, name):
    requests_mock.get(f'{OWNED}/certificates', json={'certificates': {
        'pdh': 'AAAA', 'cert_chain': 'AAAA', 'signed_cek': None,
        name: 'AAAA' * 20000}})
    with pytest.raises(exceptions.InvalidResponse, match=name):
        resource.certificates(ID)


def test_an_owner_gives_session_secret_and_decision(requests_mock, resource):
    for name in ('session', 'secret', 'decision'):
        requests_mock.put(f'{OWNED}/{name}', json={'launch': {'id': ID}})
    release = launches.SevRelease(b'header', b'packed', None)
    for call in (lambda: resource.set_session(ID, b'godh', b'session'),
                 lambda: resource.set_secret(ID, release),
                 lambda: resource.set_secret(ID, None),
                 lambda: resource.decide(ID, 'deny', 'not mine')):
        assert call() == {'id': ID}
    assert [each.json() for each in requests_mock.request_history] == [
        {'session': {'dh_cert': answers.encode(b'godh'),
                     'session': answers.encode(b'session')}},
        {'secret': {'secret_header': answers.encode(b'header'),
                    'secret': answers.encode(b'packed'), 'gpa': None}},
        {'secret': None},
        {'decision': {'action': 'deny', 'reason': 'not mine'}}]


def test_evidence_and_events(requests_mock, resource):
    requests_mock.get(f'{OWNED}/evidence', json={
        'evidence': {'build_id': 3}, 'claims': {}})
    requests_mock.get(f'{OWNED}/events', json={
        'events': [{'event': 'launch.running'}]})
    assert resource.evidence(ID) == ({'build_id': 3}, {})
    assert resource.events(ID) == [{'event': 'launch.running'}]


def test_what_comes_too_early_is_a_conflict(requests_mock, resource):
    requests_mock.get(f'{OWNED}/evidence', status_code=409, json={})
    with pytest.raises(exceptions.Conflict):
        resource.evidence(ID)
