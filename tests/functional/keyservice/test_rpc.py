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

"""Launches over RPC: the driver's transport and the service, in one process.

Between them is oslo.messaging's fake driver; the application, the database and
what is around them are those of the HTTP tests.
"""

import logging
import secrets
import threading
import time
import uuid

from keystoneauth1 import loading
from oslo_config import cfg
import oslo_messaging
import pytest

from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions
from nova_sev_attest.client import launches
from nova_sev_attest.client.transport import rpc as client_rpc
from nova_sev_attest.conf import driver as driver_options
from nova_sev_attest.keyservice.engine import waiting
from nova_sev_attest.keyservice import rpc
from nova_sev_attest import messaging
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.functional.keyservice.test_launches_wait import LONG
from tests.functional.keyservice.test_launches_wait import Meanwhile

NOVA = ('nova-sev-attest-host-1', 'nova-password')


@pytest.fixture
def nova_user(cloud):
    """nova-compute's own user; an Identity to change."""
    identity = fakes.Identity(NOVA[0], 'service', ('service',))
    cloud.users[NOVA] = identity
    yield identity
    del cloud.users[NOVA]


@pytest.fixture
def server(keyservice, cloud):
    messaging.register_opts(keyservice.conf)
    keyservice.conf.set_override('transport_url', 'fake://')
    transport = rpc.make_transport(keyservice.conf)
    server = rpc.make_server(keyservice.service, transport, 'node-1')
    server.start(override_pool_size=4)
    yield server
    server.stop()
    server.wait()
    transport.cleanup()


def make_transport(cloud, **options):
    conf = cfg.ConfigOpts()
    conf([])
    driver_options.register_opts(conf)
    settings = {
        'auth_type': 'password', 'auth_url': f'{cloud.keystone.url}/v3',
        'username': NOVA[0], 'password': NOVA[1], 'project_name': 'service',
        'user_domain_name': 'Default', 'project_domain_name': 'Default',
        'rpc_transport_url': 'fake://', 'timeout': 5, 'max_retries': 1,
        'retry_delay': 0.01} | options
    conf.register_opts(loading.get_auth_plugin_conf_options('password'),
                       group='sev_attest')
    for name, value in settings.items():
        conf.set_override(name, value, group='sev_attest')
    return client_rpc.RpcTransport(conf)


@pytest.fixture
def transport(server, cloud, nova_user):
    return make_transport(cloud)


def bare_client():
    """A client that sends what it is told."""
    conf = cfg.ConfigOpts()
    conf([])
    messaging.register_opts(conf)
    return oslo_messaging.get_rpc_client(
        oslo_messaging.get_rpc_transport(conf, url='fake://'),
        messaging.target(), timeout=10)


class Host(harness.Host):
    """A compute host that uses a transport of the driver."""

    def __init__(self, keyservice, transport, **options):
        super().__init__(keyservice, **options)
        self.transport = transport

    @property
    def identity(self):
        return launches.LaunchIdentity(self.id, self.token)

    def open(self, seconds=20, **changes):
        request = {'host': self.name, 'platform': {
            'pdh': self.platform.pdh,
            'cert_chain': self.platform.cert_chain}} | changes
        session = self.transport.create_launch(
            self.identity, self.server_id, request['host'], self.technology,
            request['platform'], deadlines.Deadline(seconds))
        self.guest = self.platform.launch(session.dh_cert, session.session,
                                          session.policy)
        return session

    def evidence(self):
        """In the form that the attester gives it."""
        found = self.measure()
        found.pop('technology')
        return found

    def release(self, evidence, seconds=20, claims=None):
        return self.transport.send_evidence(
            self.identity, self.technology, evidence, claims or {},
            deadlines.Deadline(seconds))

    def report(self, status, reason=None):
        self.transport.report_outcome(self.identity, status, reason,
                                      deadlines.Deadline(20))


@pytest.fixture
def host(keyservice, transport):
    keyservice.policy()
    return Host(keyservice, transport)


def test_whole_launch(keyservice, host):
    session = host.open()
    assert session.policy == 0x3b
    evidence = host.evidence()
    release = host.release(evidence)
    table = host.inject({
        'secret_header': harness.b64(release.header),
        'secret': harness.b64(release.secret)}, evidence)
    assert table == {uuid.UUID(harness.LUKS_GUID).bytes_le:
                     harness.PASSPHRASE}
    assert release.gpa == 0x810000
    host.report('running')
    assert host.show()['status'] == 'running'


def test_the_same_again_gets_the_same(host):
    session = host.open()
    assert host.open() == session
    evidence = host.evidence()
    assert host.release(evidence) == host.release(evidence)


def test_http_and_rpc_are_one_service(keyservice, host):
    """A launch that began over one goes on over the other."""
    host.open()
    evidence = {'technology': 'amd-sev'} | host.evidence()
    assert host.send(evidence).status_code == 200
    host.report('failed', 'a reason')
    assert host.show()['reason']['detail'] == 'a reason'


class TestWaiting:
    """For owners: by the engine's long poll, as over HTTP."""

    @pytest.fixture
    def waits(self, monkeypatch):
        """Seconds of each long poll that reached the engine."""
        seen, wait = [], waiting.Waiting.wait

        def recorded(self, launch, seconds):
            seen.append(seconds)
            return wait(self, launch, seconds)

        monkeypatch.setattr(waiting.Waiting, 'wait', recorded)
        return seen

    @pytest.fixture
    def host(self, keyservice, transport):
        keyservice.policy(verifier='owner', secrets=[])
        return Host(keyservice, transport)

    @staticmethod
    def until(owner, waiting_for):
        deadline = time.monotonic() + 30
        while True:
            launches = owner.api.get('/v1/launches').json()['launches']
            if launches and launches[0]['waiting_for'] == waiting_for:
                return
            assert time.monotonic() < deadline, launches
            time.sleep(0.05)

    def test_owner_ends_each_wait(self, host, waits):
        owner = harness.Owner(host)
        opening = Meanwhile(lambda: host.open(LONG))
        self.until(owner, 'session')
        session = owner.make_session()
        # Long enough that whoever does not wait has asked again.
        time.sleep(2)
        assert opening.answer is None and len(waits) == 1
        assert owner.put('session', session).status_code == 200
        assert harness.b64(opening.join().session) == session['session']
        assert opening.seconds < LONG

        evidence = host.measure()
        sending = Meanwhile(lambda: host.release(
            {name: value for name, value in evidence.items()
             if name != 'technology'}, LONG))
        self.until(owner, 'secret')
        time.sleep(2)
        assert sending.answer is None and len(waits) == 2
        secret = owner.pack()
        assert owner.put('secret', secret).status_code == 200
        assert harness.b64(sending.join().secret) == secret['secret']
        assert sending.seconds < LONG
        # As many seconds as the driver has, but for the answer's.
        assert all(LONG / 2 < seconds <= LONG for seconds in waits)

    def test_owner_does_nothing(self, host, waits):
        with pytest.raises(exceptions.OwnerTimeout):
            host.open(4)
        assert 0 < len(waits) and sum(waits) <= 4

    def test_who_finds_all_places_taken_is_answered_at_once(self):
        """Threads for messages are never all taken by those who wait."""
        arrived, go_on = threading.Event(), threading.Event()
        asked = []

        def application(environ, start_response):
            asked.append(environ.get('HTTP_PREFER'))
            if asked[-1] is not None:
                arrived.set()
                assert go_on.wait(30)
            start_response('202 Accepted', [])
            return [b'{}']

        endpoint = rpc.Endpoint(application, 1000, max_waits=1)
        request = TestMalformedMessages.GOOD | {'wait': 20}
        first = Meanwhile(lambda: endpoint.create_launch({}, request))
        assert arrived.wait(30)
        answer = endpoint.create_launch({}, request)[messaging.ANSWER]
        assert answer['status'] == 202
        assert asked == ['wait=20', None]
        go_on.set()
        first.join()
        # The place is free again.
        endpoint.create_launch({}, request)
        assert asked[-1] == 'wait=20'


class TestErrors:
    """As over HTTP: the same exceptions, codes and sentences."""

    def test_denied(self, keyservice, host):
        host.open()
        evidence = host.evidence()
        evidence['measurement'] = harness.b64(secrets.token_bytes(48))
        with pytest.raises(exceptions.AttestationDenied) as caught:
            host.release(evidence)
        assert caught.value.status == 403
        assert caught.value.code == 'attestation.measurement_mismatch'
        assert caught.value.detail
        assert caught.value.request_id.startswith('req-')
        assert host.show()['status'] == 'denied'

    def test_conflict(self, host):
        host.open()
        other = Host(host.keyservice, host.transport,
                     server_id=host.server_id)
        other.id = host.id
        with pytest.raises(exceptions.RequestRefused) as caught:
            other.open()
        assert (caught.value.status, caught.value.code) == (
            409, 'attestation.launch_conflict')

    def test_other_launch_token(self, host):
        host.open()
        host.token = secrets.token_hex(32)
        with pytest.raises(exceptions.AttestationDenied) as caught:
            host.release(host.evidence())
        assert caught.value.code == 'attestation.launch_token_mismatch'

    def test_malformed_token_and_body(self, host):
        host.token = 'short'
        with pytest.raises(exceptions.RequestRefused) as caught:
            host.open()
        assert (caught.value.status, caught.value.code) == (
            400, 'attestation.request_invalid')

    def test_too_large(self, host):
        host.open()
        claims = {'command_line_sha256': 'x' * (128 * 1024)}
        with pytest.raises(exceptions.RequestRefused) as caught:
            host.release(host.evidence(), claims=claims)
        assert (caught.value.status, caught.value.code) == (
            413, 'attestation.body_too_large')

    def test_secret_store_down_is_asked_again(self, keyservice, host):
        host.open()
        evidence = host.evidence()
        barbican = keyservice.cloud.barbican
        barbican.misbehave = fakes.answer(500)
        with pytest.raises(exceptions.ServiceUnavailable,
                           match='secret_store_unavailable'):
            host.release(evidence, seconds=10)
        barbican.misbehave = None
        assert host.release(evidence).header


class TestToken:
    """Who can send messages can do nothing without a token of keystone."""

    def call(self, method, **changes):
        return bare_client().call({}, method, **{messaging.REQUEST: {
            'launch_id': str(uuid.uuid4()), 'launch_token': 'f' * 64,
            'keystone_token': '', 'body': '{}', 'wait': None} | changes})[
                messaging.ANSWER]

    @pytest.mark.parametrize('method', list(messaging.METHODS))
    @pytest.mark.parametrize('token', ['', 'nonsense', 'x' * 16000])
    def test_no_or_another_token(self, server, method, token):
        answer = self.call(method, keystone_token=token)
        assert answer['status'] == 401
        assert 'attestation.unauthorized' in answer['body']

    @pytest.mark.parametrize('method', list(messaging.METHODS))
    @pytest.mark.parametrize('roles', [(), ('reader',), ('member', 'admin')])
    def test_token_without_the_role(self, server, keyservice, method, roles):
        token = keyservice.cloud.token(
            fakes.Identity('someone', 'p', roles))
        answer = self.call(method, keystone_token=token)
        assert answer['status'] == 403
        assert 'attestation.forbidden' in answer['body']

    def test_identity_comes_from_the_token_alone(self, server, keyservice,
                                                 transport):
        """No member of a message becomes a header of its own."""
        answer = self.call('create_launch', roles='service',
                           user_id='nova')
        assert answer['status'] == 400

    def test_expired_token_is_renewed_once(self, keyservice, host):
        host.open()
        tokens = keyservice.cloud.tokens
        for token, identity in list(tokens.items()):
            if identity.user_id == 'nova':
                del tokens[token]
        assert host.release(host.evidence()).header

    def test_refused_credential(self, keyservice, host, nova_user):
        del keyservice.cloud.users[NOVA]
        with pytest.raises(exceptions.ServiceUnavailable,
                           match='keystone') as caught:
            host.open()
        assert NOVA[1] not in str(caught.value)
        keyservice.cloud.users[NOVA] = nova_user

    def test_role_taken_away(self, host, nova_user):
        nova_user.roles = ('reader',)
        with pytest.raises(exceptions.AttestationDenied) as caught:
            host.open()
        assert caught.value.code == 'attestation.forbidden'


class TestMalformedMessages:

    @pytest.fixture
    def call(self, server):
        return bare_client()

    GOOD = {'launch_id': str(uuid.uuid4()), 'launch_token': 'f' * 64,
            'keystone_token': 'x', 'body': '{}', 'wait': None}

    @pytest.mark.parametrize('changes', [
        {'launch_id': '../policies'}, {'launch_id': 7},
        {'launch_id': str(uuid.uuid4()).upper()},
        {'launch_id': str(uuid.uuid4()) + '/outcome'},
        {'launch_id': str(uuid.uuid4()) + '\n'},
        {'keystone_token': None}, {'keystone_token': 'a b'},
        {'keystone_token': 'a\r\nX-Roles: service'},
        {'keystone_token': 'x' * 16385}, {'launch_token': ['f']},
        {'launch_token': '\xff'}, {'body': {}}, {'body': None},
        {'body': '\ud800'}, {'wait': -1}, {'wait': 1.5}, {'wait': True},
        {'wait': 10 ** 9}, {'wait': '1'}, {'more': 1}])
    def test_refused(self, call, changes):
        answer = call.call({}, 'create_launch', **{
            messaging.REQUEST: self.GOOD | changes})[messaging.ANSWER]
        assert answer['status'] == 400
        assert 'attestation.request_invalid' in answer['body']

    @pytest.mark.parametrize('request_', [None, [], 'x', {}, {'body': '{}'}])
    def test_not_a_request(self, call, request_):
        answer = call.call({}, 'report_outcome', **{
            messaging.REQUEST: request_})[messaging.ANSWER]
        assert answer['status'] == 400

    def test_nothing_else_is_exposed(self, call):
        for method in ('_answer', '_environ', 'target', '__init__'):
            with pytest.raises(Exception, match='does not support'):
                call.call({}, method)

    def test_ping_tells_the_version(self, call):
        assert call.call({}, 'ping') == {
            messaging.ANSWER: {'version': '1.0'}}

    def test_another_version(self, call):
        with pytest.raises(Exception, match='version'):
            call.prepare(version='2.0').call({}, 'ping')


def test_not_a_word_in_the_log(keyservice, host, caplog):
    """At no level, of nobody's."""
    caplog.set_level(1)
    for name in list(logging.getLogger().manager.loggerDict):
        caplog.set_level(1, logger=name)
    session = host.open()
    evidence = host.evidence()
    release = host.release(evidence)
    host.report('running')
    assert 'oslo_messaging' in {
        record.name.partition('.')[0] for record in caplog.records}
    nova_tokens = [token for token, identity
                   in keyservice.cloud.tokens.items()
                   if identity.user_id == NOVA[0]]
    assert nova_tokens
    for secret in (host.token, *nova_tokens, NOVA[1],
                   harness.b64(session.session), harness.b64(release.secret),
                   harness.b64(release.header),
                   harness.b64(session.dh_cert)):
        assert secret not in caplog.text


class TestNobodyThere:

    def test_no_server(self, keyservice, cloud, nova_user):
        keyservice.policy()
        transport = make_transport(cloud, timeout=0.2, max_retries=1)
        began = time.monotonic()
        with pytest.raises(exceptions.ServiceUnavailable,
                           match='silent too long'):
            Host(keyservice, transport).open(seconds=10)
        assert time.monotonic() - began < 10

    def test_deadline(self, keyservice, cloud, nova_user):
        keyservice.policy()
        transport = make_transport(cloud, timeout=30, max_retries=9)
        began = time.monotonic()
        with pytest.raises(exceptions.ServiceUnavailable):
            Host(keyservice, transport).open(seconds=0.5)
        assert time.monotonic() - began < 10
