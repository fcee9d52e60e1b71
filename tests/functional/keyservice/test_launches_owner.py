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

"""Launches whose owner keeps the keys and verifies."""

import base64
import contextlib
import uuid

from oslo_db import exception as db_exc
import pytest
import sqlalchemy as sa

from nova_sev_attest.cmd.sev_attest import app as sev_attest
from nova_sev_attest.keyservice.db import models
from nova_sev_attest.launch import certificates
from tests.functional.keyservice import harness
from tests.functional.keyservice.harness import error
from tests.functional.keyservice.test_concurrency import at_once
from tests.functional.keyservice import test_hygiene
from tests.functional.keyservice.test_launches import assert_closed
from tests.functional.keyservice.test_launches import overdue
from tests.functional.keyservice.test_launches import row
from tests.unit.launch import platforms

GUID = uuid.UUID(harness.LUKS_GUID).bytes_le
THREADS = 8


def begin(keyservice, **policy):
    """A host whose launch waits for its owner's session, and the owner."""
    keyservice.policy(verifier='owner', secrets=[], **policy)
    host = harness.Host(keyservice)
    response = host.create()
    assert response.status_code == 202, response.text
    return host, harness.Owner(host)


def boot(keyservice, **policy):
    """The same, with the guest started and measured.

    :returns: (Host, Owner, evidence)
    """
    host, owner = begin(keyservice, **policy)
    assert owner.put('session', owner.make_session()).status_code == 200
    host.start(host.create())
    evidence = host.measure()
    response = host.send(evidence, host.claims())
    assert response.status_code == 202, response.text
    return host, owner, evidence


def test_whole_launch(either):
    policy = either.policy(verifier='owner', secrets=[])
    host = harness.Host(either)
    response = host.create()
    assert response.status_code == 202
    launch = response.json()['launch']
    assert (launch['status'], launch['waiting_for']) == (
        'awaiting_session', 'session')
    assert (launch['verifier'], launch['approval']) == ('owner', 'automatic')
    assert 890 <= launch['expires_in'] <= 900
    assert 'session' not in launch
    assert host.create().status_code == 202
    error(host.send({
        'technology': 'amd-sev', 'measurement': harness.b64(bytes(48)),
        'api_major': 1, 'api_minor': 51, 'build_id': 3, 'policy': 0x3b}),
        409, 'session_missing')

    owner = harness.Owner(host)
    assert owner.get('/certificates')['certificates'] == {
        'pdh': harness.b64(host.platform.pdh),
        'cert_chain': harness.b64(host.platform.cert_chain),
        'signed_cek': None}
    shown = owner.get()['launch']
    assert shown['policy_word'] == 0x3b
    assert shown['platform']['root'] == 'emulated'
    session = owner.make_session()
    shown = owner.put('session', session).json()['launch']
    assert (shown['status'], shown['waiting_for']) == ('session_issued', None)
    assert shown['expires_in'] <= 120

    response = host.create()
    assert response.status_code == 200
    assert response.json()['launch']['session'] == session | {'policy': 0x3b}
    host.start(response)
    assert (host.guest.tek, host.guest.tik) == (
        owner.issued.keys.tek, owner.issued.keys.tik)
    # The service never has them.
    found = row(either, host)
    assert found.sealed_keys is None and found.sealing_key_id is None
    keys = host.guest.tek, host.guest.tik
    test_hygiene.assert_absent(harness.stored(either), *keys)

    evidence = host.measure()
    response = host.send(evidence, host.claims())
    assert response.status_code == 202
    launch = response.json()['launch']
    assert (launch['status'], launch['waiting_for']) == (
        'awaiting_release', 'secret')
    assert 'release' not in response.json()
    assert 890 <= launch['expires_in'] <= 900
    assert host.send(evidence).status_code == 202
    assert owner.get('/evidence') == {
        'evidence': evidence, 'claims': host.claims()}

    shown = owner.put('secret', owner.pack()).json()['launch']
    assert shown['status'] == 'released' and shown['waiting_for'] is None
    assert shown['expires_in'] is None
    assert shown['decided_by'] == 'user-of-p'
    assert shown['decided_at'] >= shown['created_at']
    assert shown['verdict'] is None
    response = host.send(evidence)
    assert response.status_code == 200
    release = response.json()['release']
    assert release['gpa'] == 0x810000
    assert host.inject(release, evidence) == {GUID: harness.PASSPHRASE}
    # The answer that was lost, once more.
    assert host.send(evidence).json()['release'] == release
    assert host.create().json()['launch']['session']['session'] == (
        session['session'])
    assert host.outcome('running').status_code == 200
    assert owner.get()['launch']['status'] == 'running'

    assert either.cloud.barbican.payload_requests() == []
    test_hygiene.assert_absent(
        harness.stored(either), harness.PASSPHRASE, *keys)
    assert owner.events() == [
        'awaiting_session', 'session_issued', 'evidence_received',
        'awaiting_release', 'released', 'running']
    actors = {event['event']: event['actor']
              for event in owner.get('/events')['events']}
    assert actors['launch.session_issued'] == 'user-of-p'
    assert actors['launch.released'] == 'user-of-p'
    assert actors['launch.running'] == 'nova-sev-attest-host-1'
    counted = either.member().get(
        f'/v1/policies/{policy["id"]}').json()['policy']
    assert counted['release_count'] == 1


def test_without_a_secret(keyservice):
    host, owner, evidence = boot(keyservice)
    assert owner.put('secret', None).json()['launch']['status'] == 'released'
    answer = host.send(evidence)
    assert (answer.status_code, answer.json()['release']) == (200, None)
    assert owner.put('secret', None).status_code == 200
    error(owner.put('secret', owner.pack()), 409, 'release_conflict')


def test_with_the_files_of_the_owners_tools(keyservice, tmp_path, capsys,
                                            monkeypatch):
    """In the layout of sevctl and virt-qemu-sev-validate, base64 as it is."""
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        assert sev_attest.main([str(word) for word in argv]) == 0, (
            capsys.readouterr().err)
        return capsys.readouterr().out

    for name, data in (('pdh', b''), ('firmware.bin', platforms.firmware()),
                       ('kernel', b'a kernel'), ('initrd', b'an initrd'),
                       ('passphrase', harness.PASSPHRASE),
                       ('ask_ark.cert', platforms.ask_ark())):
        (tmp_path / name).write_bytes(data)
    host, owner = begin(keyservice)
    shown = owner.get('/certificates')['certificates']
    (tmp_path / 'pdh').write_bytes(base64.b64decode(shown['pdh']))
    (tmp_path / 'chain').write_bytes(base64.b64decode(shown['cert_chain']))
    run('session', 'create', 'pdh', 'chain',
        '--anchor', 'emulated=ask_ark.cert',
        '--name', 'web')
    response = owner.put('session', {
        'dh_cert': (tmp_path / 'web_godh.b64').read_text().strip(),
        'session': (tmp_path / 'web_session.b64').read_text().strip()})
    assert response.status_code == 200, response.text
    host.start(host.create())
    evidence = host.measure()
    assert host.send(evidence).status_code == 202
    found = owner.get('/evidence')['evidence']
    run('secret', 'pack', '--tik', 'web_tik.bin', '--tek', 'web_tek.bin',
        '--measurement', found['measurement'],
        '--api', '{api_major}.{api_minor}'.format(**found),
        '--build', found['build_id'], '--policy', '0x3b',
        '--firmware', 'firmware.bin', '--kernel', 'kernel',
        '--initrd', 'initrd', '--append', harness.COMMAND_LINE,
        '--secret', f'{harness.LUKS_GUID}:passphrase',
        '--header', 'header.b64', '--payload', 'payload.b64')
    response = owner.put('secret', {
        'secret_header': (tmp_path / 'header.b64').read_text().strip(),
        'secret': (tmp_path / 'payload.b64').read_text().strip()})
    assert response.status_code == 200, response.text
    assert host.inject(host.send(evidence).json()['release'], evidence) == {
        GUID: harness.PASSPHRASE}


class TestSession:

    def test_the_same_again_and_another(self, keyservice):
        host, owner = begin(keyservice)
        session = owner.make_session()
        first = owner.put('session', session).json()['launch']
        again = owner.put('session', session)
        assert again.status_code == 200
        assert again.json()['launch']['updated_at'] == first['updated_at']
        error(owner.put('session', owner.make_session()), 409,
              'session_conflict')
        assert host.create().json()['launch']['session'][
            'session'] == session['session']
        assert owner.events() == ['awaiting_session', 'session_issued']

    def test_uninitialised_memory_goes_nowhere(self, keyservice):
        host, owner = begin(keyservice)
        session = owner.make_session()
        leaked = b'memory of the owner\'s tool'
        godh = bytearray(base64.b64decode(session['dh_cert']))
        godh[200:200 + len(leaked)] = leaked
        dirty = session | {'dh_cert': harness.b64(bytes(godh))}
        assert owner.put('session', dirty).status_code == 200
        assert host.create().json()['launch']['session']['dh_cert'] == (
            session['dh_cert'])
        test_hygiene.assert_absent(harness.stored(keyservice), leaked)
        assert owner.put('session', dirty).status_code == 200

    @pytest.mark.parametrize('changes', [
        {'session': ''}, {'session': harness.b64(bytes(127))},
        {'session': harness.b64(bytes(128))}, {'dh_cert': ''},
        {'session': 'AAA'},
        {'dh_cert': harness.b64(bytes(certificates.SEV_CERTIFICATE_SIZE))}])
    def test_malformed(self, keyservice, changes):
        host, owner = begin(keyservice)
        error(owner.put('session', owner.make_session() | changes), 400,
              'session_malformed')
        assert row(keyservice, host).status == 'awaiting_session'

    def test_a_certificate_for_signing_is_none_for_exchange(
            self, keyservice):
        host, owner = begin(keyservice)
        error(owner.put('session', owner.make_session() | {
            'dh_cert': harness.b64(host.platform.pek)}), 400,
            'session_malformed')

    def test_nonce_of_another_launch(self, either):
        host, owner = begin(either)
        session = owner.make_session()
        assert owner.put('session', session).status_code == 200
        other = harness.Host(either)
        other.create()
        used = harness.Owner(other)
        mixed = bytearray(base64.b64decode(used.make_session()['session']))
        mixed[:16] = base64.b64decode(session['session'])[:16]
        for reused in (session, session | {
                'session': harness.b64(bytes(mixed))}):
            error(used.put('session', reused), 409, 'session_reused')
        assert row(either, other).status == 'awaiting_session'
        assert used.put('session', used.make_session()).status_code == 200

    def test_nonce_of_a_session_of_the_service(self, keyservice):
        keyservice.policy(name='service', is_default=False)
        first = harness.Host(keyservice, policy='service')
        session = base64.b64decode(first.launch()['session']['session'])
        host, owner = begin(keyservice)
        made = owner.make_session()
        mixed = session[:16] + base64.b64decode(made['session'])[16:]
        error(owner.put('session', made | {'session': harness.b64(mixed)}),
              409, 'session_reused')

    def test_another_fault_of_the_database_is_no_reuse(self, keyservice,
                                                       monkeypatch):
        host, owner = begin(keyservice)
        session = owner.make_session()

        @contextlib.contextmanager
        def fail(*args):
            raise db_exc.DBConnectionError(ValueError('gone'))
            yield

        monkeypatch.setattr(keyservice.service.journal, 'writer', fail)
        error(owner.put('session', session), 503, 'database_unavailable')

    def test_two_at_once(self, either):
        host, owner = begin(either)
        sessions = [owner.make_session() for _ in range(THREADS)]
        answers = at_once([
            lambda api=either.member(), one=one: owner.put(
                'session', one, api) for one in sessions])
        assert sorted(answer.status_code for answer in answers) == (
            [200] + [409] * (THREADS - 1))
        winner, = (one for one, answer in zip(sessions, answers)
                   if answer.status_code == 200)
        assert host.create().json()['launch']['session']['session'] == (
            winner['session'])
        assert owner.events() == ['awaiting_session', 'session_issued']

    def test_same_nonce_for_two_launches_at_once(self, either):
        _host, owner = begin(either)
        owners = [owner]
        for _ in range(3):
            host = harness.Host(either)
            host.create()
            owners.append(harness.Owner(host))
        session = owner.make_session()
        answers = at_once([
            lambda one=one: one.put('session', session) for one in owners])
        assert sorted(answer.status_code for answer in answers) == [
            200, 409, 409, 409]

    def test_too_late(self, keyservice):
        host, owner = begin(keyservice)
        session = owner.make_session()
        overdue(keyservice, host)
        error(owner.put('session', session), 409, 'launch_expired')
        error(host.create(), 409, 'launch_expired')
        assert_closed(keyservice, host, 'expired')
        assert 'no session in time' in host.show()['reason']['detail']

    def test_service_verifies(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        host.launch()
        owner = harness.Owner(host)
        error(owner.put('session', owner.make_session()), 409,
              'not_owner_driven')
        error(owner.put('secret', None), 409, 'not_owner_driven')
        assert row(keyservice, host).status == 'session_issued'


class TestEvidence:

    def test_other_evidence_is_refused_and_recorded(self, keyservice):
        host, owner, _evidence = boot(keyservice)
        for _ in range(20):
            error(host.send(host.measure()), 409, 'evidence_conflict')
        owner.put('secret', None)
        error(host.send(host.measure()), 409, 'evidence_conflict')
        events = owner.get('/events')['events']
        refused = [event['details'] for event in events
                   if event['event'] == 'launch.evidence_refused']
        # A few, lest a host fills the audit.
        assert len(refused) == 16
        assert refused[0]['reason_code'] == 'attestation.evidence_conflict'
        assert refused[0]['status'] == 'awaiting_release'

    def test_policy_word_that_the_host_admits(self, keyservice):
        host, owner = begin(keyservice)
        owner.put('session', owner.make_session())
        host.start(host.create())
        error(host.send(host.measure(policy=0x3a)), 403,
              'policy_word_mismatch')
        assert_closed(keyservice, host, 'denied')

    def test_platform_that_the_host_admits_to_be_old(self, keyservice):
        keyservice.policy(verifier='owner', secrets=[],
                          min_api_version='1.51', min_build=4)
        host = harness.Host(keyservice)
        host.create()
        owner = harness.Owner(host)
        owner.put('session', owner.make_session())
        host.start(host.create())
        error(host.send(host.measure()), 403, 'platform_not_allowed')
        assert_closed(keyservice, host, 'denied')

    def test_none_yet(self, keyservice):
        host, owner = begin(keyservice)
        error(owner.api.get(host.path + '/evidence'), 404,
              'evidence_not_found')
        error(owner.put('secret', None), 409, 'evidence_missing')
        owner.put('session', owner.make_session())
        error(owner.put('secret', None), 409, 'evidence_missing')

    def test_a_launch_that_did_not_begin_has_no_platform(self, keyservice):
        host = harness.Host(keyservice)
        error(host.create(), 403, 'policy_missing')
        error(keyservice.member().get(host.path + '/certificates'), 404,
              'certificates_not_found')

    def test_the_service_keeps_it_too_where_it_verifies(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        host.launch()
        evidence = host.measure()
        assert host.send(evidence, host.claims()).status_code == 200
        assert harness.Owner(host).get('/evidence') == {
            'evidence': evidence, 'claims': host.claims()}


class TestSecret:

    def test_the_same_again_and_another(self, keyservice):
        host, owner, evidence = boot(keyservice)
        secret = owner.pack()
        first = owner.put('secret', secret).json()['launch']
        again = owner.put('secret', secret)
        assert again.status_code == 200
        assert again.json()['launch']['updated_at'] == first['updated_at']
        other = secret | {'secret': harness.b64(
            bytes(16) + base64.b64decode(secret['secret'])[16:])}
        for one in (other, None, secret | {'gpa': 0x810000}):
            error(owner.put('secret', one), 409, 'release_conflict')
        assert host.inject(host.send(evidence).json()['release'],
                           evidence) == {GUID: harness.PASSPHRASE}
        # Even when there is no policy any more.
        policy = owner.api.get('/v1/policies').json()['policies'][0]
        owner.api.delete(f'/v1/policies/{policy["id"]}')
        assert owner.put('secret', secret).status_code == 200

    @pytest.mark.parametrize('changes, code', [
        ({'secret_header': harness.b64(bytes(52))}, 'release_malformed'),
        ({'secret_header': harness.b64(b'\1' * 51)}, 'release_malformed'),
        ({'secret_header': harness.b64(b'\1' * 52)}, 'release_malformed'),
        ({'secret_header': harness.b64(b'\1\0\0\0' + b'\1' * 48)},
         'release_malformed'),
        ({'secret': ''}, 'release_malformed'),
        ({'secret': 'AAA'}, 'release_malformed'),
        ({'secret': harness.b64(bytes(17))}, 'release_malformed'),
        ({'secret': harness.b64(bytes(3088))}, 'secret_too_large'),
        ({'gpa': 0}, 'release_malformed'),
        ({'gpa': 0x810008}, 'release_malformed'),
        ({'gpa': 0x80fff0}, 'gpa_outside'),
        ({'gpa': 0x810c00}, 'gpa_outside'),
        ({'gpa': 0x810bf0}, 'secret_too_large')])
    def test_malformed(self, keyservice, changes, code):
        host, owner, evidence = boot(keyservice)
        secret = owner.pack()
        error(owner.put('secret', secret | changes), 400, code)
        assert row(keyservice, host).status == 'awaiting_release'
        assert owner.put('secret', secret).status_code == 200

    @pytest.mark.parametrize('gpa', [None, 0x810000, 0x810010])
    def test_address(self, keyservice, gpa):
        host, owner, evidence = boot(keyservice)
        assert owner.put('secret', owner.pack(gpa=gpa)).status_code == 200
        assert host.send(evidence).json()['release']['gpa'] == (
            gpa or 0x810000)

    def test_firmwares_with_different_areas(self, keyservice):
        big = platforms.firmware(secret=(0x820000, 0x400), size=12288)
        host, owner, evidence = boot(keyservice, firmwares=[
            keyservice.upload(), keyservice.upload(big)])
        secret = owner.pack()
        assert '0x820000' in error(owner.put('secret', secret), 400,
                                   'release_malformed')
        error(owner.put('secret', secret | {'gpa': 0x830000}), 400,
              'gpa_outside')
        assert owner.put('secret', secret | {
            'gpa': 0x820000}).status_code == 200
        assert host.send(evidence).json()['release']['gpa'] == 0x820000

    def test_policy_without_firmware(self, keyservice):
        host, owner, evidence = boot(keyservice, firmwares=[], kernels=[],
                                     initrds=[], command_lines=[])
        secret = owner.pack()
        error(owner.put('secret', secret), 400, 'release_malformed')
        error(owner.put('secret', secret | {'gpa': 0xfffffff0}), 400,
              'release_malformed')
        assert owner.put('secret', secret | {
            'gpa': 0x900000}).status_code == 200
        assert host.send(evidence).json()['release']['gpa'] == 0x900000

    def test_two_at_once(self, either):
        host, owner, evidence = boot(either)
        secret = owner.pack()
        bodies = [secret, None, secret | {'gpa': 0x810000},
                  secret | {'gpa': 0x810010}] * 2
        answers = at_once([
            lambda api=either.member(), one=one: owner.put('secret', one, api)
            for one in bodies])
        # Each of the four comes twice, so that the winner is answered twice.
        assert sorted(answer.status_code for answer in answers) == (
            [200] * 2 + [409] * 6)
        assert owner.events().count('released') == 1

    def test_too_late(self, keyservice):
        host, owner, evidence = boot(keyservice)
        secret = owner.pack()
        overdue(keyservice, host)
        error(owner.put('secret', secret), 409, 'launch_expired')
        error(host.send(evidence), 409, 'launch_expired')
        assert 'not decide in time' in host.show()['reason']['detail']
        assert_closed(keyservice, host, 'expired')
        assert owner.events()[-1] == 'expired'
        last = owner.get('/events')['events'][-1]
        assert last['actor'] == 'sweeper'
        assert last['details']['reason_code'] == 'attestation.launch_expired'

    def test_release_or_denial(self, either):
        """Of the two, one happens, whichever; and the host hears which."""
        host, owner, evidence = boot(either)
        secret = owner.pack()
        answers = at_once([
            lambda api=either.member(): owner.put('secret', secret, api),
            lambda api=either.member(): owner.decide('deny', api=api)])
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        answer = host.send(evidence)
        if answers[0].status_code == 200:
            assert host.inject(answer.json()['release'], evidence)
        else:
            error(answer, 403, 'denied_by_owner')
            assert_closed(either, host, 'denied')


class TestDenial:

    def test_at_every_step(self, keyservice):
        reason = 'not on a Tuesday'
        begun, by = begin(keyservice)
        shown = by.decide('deny', reason).json()['launch']
        assert shown['status'] == 'denied'
        assert shown['reason'] == {
            'code': 'attestation.denied_by_owner',
            'detail': 'The launch\'s owner denied it.',
            'owner_reason': reason}
        assert shown['decided_by'] == 'user-of-p'
        # The host hears that, and not why.
        answer = begun.create()
        error(answer, 403, 'denied_by_owner')
        assert reason not in answer.text
        assert reason not in keyservice.operator().get(begun.path).text

        host = harness.Host(keyservice)
        host.create()
        owner = harness.Owner(host)
        owner.put('session', owner.make_session())
        host.start(host.create())
        assert owner.decide('deny').status_code == 200
        answer = host.send(host.measure())
        error(answer, 403, 'denied_by_owner')
        assert_closed(keyservice, host, 'denied')
        assert owner.events()[-1] == 'denied'

        # Once more, and the other way.
        assert owner.decide('deny', 'another').json()['launch'][
            'reason'].keys() == {'code', 'detail'}
        error(owner.decide('approve'), 409, 'approval_not_wanted')
        error(owner.put('session', owner.make_session()), 409,
              'session_conflict')
        error(owner.put('secret', None), 409, 'launch_closed')

    def test_what_is_released_is_released(self, keyservice):
        host, owner, evidence = boot(keyservice)
        owner.put('secret', None)
        error(owner.decide('deny'), 409, 'launch_closed')
        assert host.send(evidence).status_code == 200

    @pytest.mark.parametrize('decision', [
        {}, {'action': 'maybe'}, {'action': 'deny', 'reason': 'x' * 256},
        {'action': 'deny', 'more': 1}, {'action': 'deny', 'reason': 'a\0b'}])
    def test_malformed(self, keyservice, decision):
        host, owner = begin(keyservice)
        error(owner.put('decision', decision), 400, 'request_invalid')


class TestWhoMayDoWhat:

    SUBRESOURCES = ('certificates', 'evidence', 'events', 'session', 'secret',
                    'decision')
    BODIES = {'session': {'dh_cert': 'AAAA', 'session': 'AAAA'},
              'secret': None, 'decision': {'action': 'deny'}}

    def ask(self, api, host):
        """Answers to all of the owner's requests."""
        for name in self.SUBRESOURCES:
            if name in self.BODIES:
                yield name, api.put(f'{host.path}/{name}',
                                    json={name: self.BODIES[name]})
            else:
                yield name, api.get(f'{host.path}/{name}')

    def test_another_project(self, keyservice):
        host, _owner, _evidence = boot(keyservice)
        for _name, answer in self.ask(keyservice.member('q'), host):
            error(answer, 404, 'launch_not_found')
        assert row(keyservice, host).status == 'awaiting_release'

    def test_not_the_owner(self, keyservice):
        host, _owner, _evidence = boot(keyservice)
        for api in (host.api, keyservice.operator(),
                    keyservice.api('service'), keyservice.api('other')):
            for _name, answer in self.ask(api, host):
                error(answer, 403, 'forbidden')
        assert row(keyservice, host).status == 'awaiting_release'

    def test_reader(self, keyservice):
        host, _owner, _evidence = boot(keyservice)
        for name, answer in self.ask(keyservice.api('reader'), host):
            if name in self.BODIES:
                error(answer, 403, 'forbidden')
            else:
                assert answer.status_code == 200

    def test_owner_is_no_compute_host(self, keyservice):
        host, owner, evidence = boot(keyservice)
        error(host.send(evidence, api=owner.api), 403, 'forbidden')

    def test_operator_sees_less(self, keyservice):
        host, owner, _evidence = boot(keyservice)
        seen = keyservice.operator().get(host.path).json()['launch']
        assert seen['waiting_for'] == 'secret'
        assert not {'policy_word', 'decided_by', 'verdict'} & seen.keys()

    def test_unknown_launch(self, keyservice):
        host = harness.Host(keyservice)
        for _name, answer in self.ask(keyservice.member(), host):
            error(answer, 404, 'launch_not_found')


def test_newer_launch_supersedes_one_that_waits(keyservice):
    old, owner = begin(keyservice)
    session = owner.make_session()
    new = harness.Host(keyservice, server_id=old.server_id)
    assert new.create().status_code == 202
    assert_closed(keyservice, old, 'superseded')
    error(owner.put('session', session), 409, 'launch_closed')
    event = owner.get('/events')['events'][-1]
    assert event['event'] == 'launch.superseded'
    assert event['details']['superseded_by'] == new.id


def test_host_gives_up_while_the_owner_thinks(keyservice):
    host, owner, evidence = boot(keyservice)
    secret = owner.pack()
    assert host.outcome('failed', 'too slow').status_code == 200
    error(owner.put('secret', secret), 409, 'launch_closed')
    error(host.send(evidence), 409, 'launch_closed')
    assert_closed(keyservice, host, 'failed')
    assert owner.events()[-1] == 'failed'


def test_sev_es(keyservice):
    keyservice.policy(verifier='owner', secrets=[],
                      technologies=['amd-sev-es'])
    host = harness.Host(keyservice, technology='amd-sev-es')
    assert host.create().status_code == 202
    owner = harness.Owner(host)
    assert owner.get()['launch']['policy_word'] == 0x3f
    owner.put('session', owner.make_session())
    host.start(host.create())
    assert host.guest.policy_word == 0x3f
    assert host.send(host.measure()).status_code == 202


def test_launches_from_before_owners_verified(keyservice):
    """Rows that the release before this one stored."""
    keyservice.policy()
    host = harness.Host(keyservice)
    host.launch()
    with keyservice.service.database.writer() as session:
        session.execute(sa.update(models.Launch).values(
            verifier=None, approval=None, session_nonce=None,
            platform_pdh=None, platform_cert_chain=None))
    owner = harness.Owner(host)
    assert owner.get()['launch']['verifier'] == 'service'
    error(owner.api.get(host.path + '/certificates'), 404,
          'certificates_not_found')
    assert host.send(host.measure()).status_code == 200
