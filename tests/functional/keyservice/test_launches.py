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

"""The life of launches, with synthetic guests on a synthetic platform."""

import base64
import datetime
import hashlib
import time
import uuid

from oslo_utils import timeutils
import pytest
import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice.engine import expiring
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.launch import kernel_hashes
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.functional.keyservice.harness import error
from tests.unit.launch import platforms

GUID = uuid.UUID(harness.LUKS_GUID).bytes_le
OTHER = hashlib.sha256(b'another').digest()


def fetched_after(keyservice, policy):
    """Payload requests since the policy was created."""
    checks = len(policy['secrets'])
    return keyservice.cloud.barbican.payload_requests()[checks:]


def row(keyservice, host):
    with keyservice.service.database.reader() as session:
        found = session.scalars(sa.select(models.Launch).where(
            models.Launch.id == host.id)).one()
        session.expunge(found)
        return found


def assert_closed(keyservice, host, status):
    """No keys are left, and nothing was released."""
    found = row(keyservice, host)
    assert found.status == status
    assert found.sealed_keys is None and found.sealing_key_id is None
    assert found.release_header is None and found.release_data is None
    assert found.open_for is None


def lasting(launch):
    """What of a launch's view does not change with time."""
    return {name: value for name, value in launch.items()
            if name != 'expires_in'}


def overdue(keyservice, host):
    """Let the launch's time be over."""
    with keyservice.service.database.writer() as session:
        session.execute(
            sa.update(models.Launch).where(models.Launch.id == host.id)
            .values(expires_at=timeutils.utcnow()
                    - datetime.timedelta(seconds=1)))


def test_whole_launch(either):
    policy = either.policy()
    host = harness.Host(either)
    launch = host.launch()
    assert launch['status'] == 'session_issued'
    assert launch['project_id'] == 'p'
    assert (launch['policy_id'], launch['policy_revision']) == (
        policy['id'], 1)
    assert launch['session']['policy'] == 0x3b
    assert len(base64.b64decode(launch['session']['dh_cert'])) == 2084
    assert len(base64.b64decode(launch['session']['session'])) == 128
    found = row(either, host)
    assert found.expires_at - found.created_at == datetime.timedelta(
        seconds=120)
    assert found.sealed_keys is not None
    assert fetched_after(either, policy) == []

    evidence = host.measure()
    response = host.send(evidence, host.claims())
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer['launch']['status'] == 'released'
    assert 'verdict' not in answer['launch']
    assert answer['release']['gpa'] == 0x810000
    assert host.inject(answer['release'], evidence) == {
        GUID: harness.PASSPHRASE}
    assert fetched_after(either, policy) == [
        policy['secrets'][0]['secret_ref']]
    assert row(either, host).sealed_keys is None

    assert host.outcome('running').json()['launch']['status'] == 'running'
    assert host.outcome('running').status_code == 200
    error(host.outcome('failed'), 409, 'launch_conflict')
    shown = host.show()
    assert shown['status'] == 'running' and shown['reason'] is None
    assert shown['platform'] == {
        'root': 'emulated', 'emulated': True, 'api_version': '1.51',
        'cek_fingerprint': hashlib.sha256(host.platform.cek).hexdigest(),
        'chip_id': None}
    verdict = shown['verdict']
    assert verdict.pop('launch_digest')
    assert verdict == {
        'technology': 'amd-sev',
        'platform_root': 'emulated', 'emulated': True,
        'cek_fingerprint': shown['platform']['cek_fingerprint'],
        'firmware_sha256': policy['firmwares'][0],
        'kernel_sha256': harness.KERNEL.hex(),
        'initrd_sha256': harness.INITRD.hex(),
        'command_line_sha256': kernel_hashes.command_line_sha256(
            harness.COMMAND_LINE).hex(),
        'policy_word': 0x3b, 'api_version': '1.51', 'build_id': 3}


def test_release_without_secrets_is_null(keyservice):
    keyservice.policy(secrets=[])
    host = harness.Host(keyservice)
    host.launch()
    evidence = host.measure()
    answer = host.send(evidence).json()
    assert answer['release'] is None
    assert answer['launch']['status'] == 'released'
    assert host.send(evidence).json()['release'] is None
    assert keyservice.cloud.barbican.payload_requests() == []


class TestCreate:

    def test_same_request_same_session(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        first = host.launch()
        again = host.create()
        assert again.status_code == 200
        assert lasting(again.json()['launch']) == lasting(first)
        host.send(host.measure())
        assert host.create().json()['launch']['session'] == first['session']

    def test_two_launches_share_nothing(self, keyservice):
        keyservice.policy()
        first = harness.Host(keyservice).launch()['session']
        second = harness.Host(keyservice).launch()['session']
        assert first['session'] != second['session']
        assert first['dh_cert'] != second['dh_cert']

    def test_other_request_or_token_is_a_conflict(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        host.launch()
        other = keyservice.cloud.nova.add('p', host.name)
        error(host.create(server_id=other), 409, 'launch_conflict')
        host.token = '0' * 64
        error(host.create(), 409, 'launch_conflict')
        assert row(keyservice, host).status == 'session_issued'

    @pytest.mark.parametrize('token', [None, '', 'f' * 63, 'F' * 64,
                                       'g' * 64])
    def test_token_must_be_there_and_whole(self, keyservice, token):
        host = harness.Host(keyservice)
        headers = {} if token is None else {
            'X-Attestation-Launch-Token': token}
        detail = error(host.api.put(host.path, headers=headers,
                                    json={'launch': host.request()}),
                       400, 'request_invalid')
        assert not token or token not in detail

    def test_only_the_servers_host(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        error(host.create(host='host-2'), 403, 'host_mismatch')
        assert host.show()['host'] == 'host-2'

    def test_server_without_host(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        keyservice.cloud.nova.servers[host.server_id][
            'OS-EXT-SRV-ATTR:host'] = None
        error(host.create(), 403, 'host_mismatch')

    @pytest.mark.parametrize('status, allowed', [
        ('migrating', True), ('accepted', True), ('reverting', True),
        ('done', False), ('error', False), ('confirmed', False)])
    def test_destination_of_a_migration(self, keyservice, status, allowed):
        keyservice.policy()
        host = harness.Host(keyservice)
        keyservice.cloud.nova.migrations.append({
            'instance_uuid': host.server_id, 'status': status,
            'source_compute': host.name, 'dest_compute': 'host-2'})
        response = host.create(host='host-2')
        if allowed:
            assert response.status_code == 201, response.text
        else:
            error(response, 403, 'host_mismatch')
        other = harness.Host(keyservice, server_id=host.server_id)
        error(other.create(host='host-3'), 403, 'host_mismatch')

    def test_unknown_server(self, keyservice):
        host = harness.Host(keyservice, server_id=str(uuid.uuid4()))
        error(host.create(), 404, 'server_not_found')

    @pytest.mark.parametrize('misbehave', [
        fakes.answer(500), fakes.answer(403), fakes.answer(200, b'rubbish'),
        fakes.answer(200, {}), fakes.answer(200, {'server': []}),
        fakes.answer(302, headers=[('Location', 'http://192.0.2.1/')]),
        fakes.hang_up])
    def test_nova_away_or_talking_rubbish(self, keyservice, misbehave):
        keyservice.policy()
        host = harness.Host(keyservice)
        keyservice.cloud.nova.misbehave = misbehave
        error(host.create(), 503, 'compute_unavailable')
        keyservice.cloud.nova.misbehave = None
        host.launch()

    def test_nova_that_hides_the_host(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        del keyservice.cloud.nova.servers[host.server_id][
            'OS-EXT-SRV-ATTR:host']
        assert 'admin' in error(host.create(), 503, 'compute_unavailable')

    def test_no_default_policy(self, keyservice):
        keyservice.policy(is_default=False)
        detail = error(harness.Host(keyservice).create(), 403,
                       'policy_missing')
        assert 'set server property attestation_policy' in detail

    @pytest.mark.parametrize('by', ['name', 'id'])
    def test_property_names_the_policy(self, keyservice, by):
        keyservice.policy()
        strict = keyservice.policy(name='strict', is_default=False)
        host = harness.Host(keyservice, policy=strict[by])
        assert host.launch()['policy_id'] == strict['id']

    def test_property_that_names_nothing(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice, policy='wbe')
        assert 'wbe' in error(host.create(), 403, 'policy_unknown')

    @pytest.mark.parametrize('by', ['name', 'id'])
    def test_policy_of_another_project(self, keyservice, by):
        theirs = keyservice.policy()
        host = harness.Host(keyservice, project='q', policy=theirs[by])
        error(host.create(), 403, 'policy_unknown')
        host = harness.Host(keyservice, project='q')
        error(host.create(), 403, 'policy_missing')

    def test_emulated_root_must_be_named(self, keyservice):
        body = keyservice.policy_body()
        del body['trusted_roots']
        response = keyservice.member().post('/v1/policies',
                                            json={'policy': body})
        assert response.json()['policy']['trusted_roots'] == [
            'amd-naples', 'amd-rome', 'amd-milan', 'amd-genoa', 'amd-turin']
        error(harness.Host(keyservice).create(), 403, 'platform_untrusted')

    def test_other_root(self, keyservice):
        keyservice.policy()
        stranger = platforms.platform(root='stranger', name='stranger')
        host = harness.Host(keyservice, platform=stranger)
        assert 'CEK' in error(host.create(), 403, 'platform_untrusted')

    @pytest.mark.parametrize('what, position', [
        ('pdh', 30), ('pdh', 0x41c), ('cert_chain', 0x10 + 30),
        ('cert_chain', 2084 + 30), ('cert_chain', 2 * 2084 + 30)])
    def test_one_byte_flipped(self, keyservice, what, position):
        keyservice.policy()
        host = harness.Host(keyservice)
        data = bytearray(getattr(host.platform, what))
        data[position] ^= 1
        platform = host.request()['platform'] | {
            what: harness.b64(bytes(data))}
        response = host.create(platform=platform)
        assert response.status_code in (400, 403)
        assert response.json()['errors'][0]['code'] in (
            'attestation.platform_malformed',
            'attestation.platform_untrusted')

    @pytest.mark.parametrize('pdh', ['', 'AAAA', 'not base64!', 'A' * 2780])
    def test_malformed_platform(self, keyservice, pdh):
        keyservice.policy()
        host = harness.Host(keyservice)
        platform = host.request()['platform'] | {'pdh': pdh}
        response = host.create(platform=platform)
        assert response.status_code == 400
        assert response.json()['errors'][0]['code'] in (
            'attestation.platform_malformed', 'attestation.request_invalid')

    def test_refusal_is_recorded_for_the_owner(self, keyservice):
        keyservice.policy()
        good = harness.Host(keyservice)
        good.launch()
        stranger = platforms.platform(root='stranger', name='stranger')
        host = harness.Host(keyservice, platform=stranger,
                            server_id=good.server_id)
        detail = error(host.create(), 403, 'platform_untrusted')
        shown = host.show()
        assert shown['status'] == 'denied'
        assert shown['reason'] == {
            'code': 'attestation.platform_untrusted', 'detail': detail}
        assert shown['policy_revision'] == 1
        assert shown['platform'] is None and shown['verdict'] is None
        # The same answer again; a refused launch goes nowhere.
        assert error(host.create(), 403, 'platform_untrusted') == detail
        error(host.create(host='host-2'), 409, 'launch_conflict')
        error(host.send(good.measure()), 403, 'platform_untrusted')
        assert host.outcome('failed').json()['launch']['status'] == 'denied'
        error(host.outcome('running'), 409, 'launch_conflict')
        # It has not closed the server's open launch.
        assert good.send(good.measure()).status_code == 200

    def test_refusal_without_a_policy_is_recorded(self, either):
        host = harness.Host(either)
        error(host.create(), 403, 'policy_missing')
        shown = host.show()
        assert (shown['status'], shown['policy_id']) == ('denied', None)
        found, = either.operator().get(
            '/v1/launches?status=denied').json()['launches']
        assert found['id'] == host.id

    def test_records_are_purged(self, keyservice):
        keyservice.policy()
        kept, gone = harness.Host(keyservice), harness.Host(keyservice)
        kept.launch()
        gone.launch()
        gone.outcome('failed')
        with keyservice.service.database.writer() as session:
            now = timeutils.utcnow()
            assert launches.purge(
                session, now - datetime.timedelta(days=1), 10) == {}
            assert launches.purge(
                session, now + datetime.timedelta(days=1), 10) == {'p': 1}
        assert kept.show()['status'] == 'session_issued'
        error(keyservice.member().get(gone.path), 404, 'launch_not_found')

    def test_newer_launch_supersedes(self, keyservice):
        keyservice.policy()
        old = harness.Host(keyservice)
        old.launch()
        evidence = old.measure()
        new = harness.Host(keyservice, server_id=old.server_id)
        new.launch()
        assert_closed(keyservice, old, 'superseded')
        assert old.show()['reason']['code'] == 'attestation.superseded'
        error(old.send(evidence), 409, 'launch_closed')
        error(old.create(), 409, 'launch_closed')
        assert new.send(new.measure()).status_code == 200

    def test_no_launch_without_sealing_key(self, cloud, tmp_path):
        keyservice = harness.KeyService(cloud, tmp_path, key=False)
        try:
            keyservice.policy()
            detail = error(harness.Host(keyservice).create(), 503,
                           'sealing_key_missing')
            assert 'sealing-key create' in detail
        finally:
            keyservice.stop()

    def test_min_api_version_is_in_the_word(self, keyservice):
        keyservice.policy(min_api_version='1.52')
        host = harness.Host(keyservice)
        assert host.launch()['session']['policy'] == 0x3401003b
        error(host.send(host.measure()), 403, 'api_version_too_old')
        assert_closed(keyservice, host, 'denied')


class TestEvidence:

    @pytest.fixture
    def host(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        host.launch()
        return host

    def test_same_evidence_same_ciphertext(self, keyservice, host):
        evidence = host.measure()
        first = host.send(evidence).json()
        again = host.send(evidence, host.claims()).json()
        assert again == first
        assert len(keyservice.cloud.barbican.payload_requests()) == 2
        host.outcome('running')
        assert host.send(evidence).json()['release'] == first['release']

    def test_other_evidence_is_a_conflict(self, host):
        host.send(host.measure())
        error(host.send(host.measure()), 409, 'evidence_conflict')

    def test_wrong_token(self, keyservice, host):
        evidence, host.token = host.measure(), '0' * 64
        error(host.send(evidence), 403, 'launch_token_mismatch')
        error(host.outcome('failed'), 403, 'launch_token_mismatch')
        assert row(keyservice, host).status == 'session_issued'

    def test_unknown_launch(self, host):
        evidence, host.id = host.measure(), str(uuid.uuid4())
        error(host.send(evidence), 404, 'launch_not_found')
        error(host.outcome('failed'), 404, 'launch_not_found')

    @pytest.mark.parametrize('changed, code, allowed', [
        ({'kernel': OTHER}, 'kernel_not_allowed',
         {'kernels': [harness.KERNEL.hex()]}),
        ({'initrd': OTHER}, 'initrd_not_allowed',
         {'initrds': [harness.INITRD.hex()]}),
        ({'initrd': kernel_hashes.NO_INITRD_SHA256}, 'initrd_not_allowed',
         {'initrds': [harness.INITRD.hex()]}),
        ({'command_line': 'single'}, 'command_line_not_allowed',
         {'command_lines': [harness.COMMAND_LINE]}),
        ({'kernel': None}, 'kernel_not_allowed',
         {'kernels': [harness.KERNEL.hex()]}),
        ({'kernel': OTHER, 'initrd': OTHER}, 'kernel_not_allowed',
         {'kernels': [harness.KERNEL.hex()],
          'initrds': [harness.INITRD.hex()]}),
    ])
    def test_denial_says_what_differs(self, keyservice, host, changed, code,
                                      allowed):
        evidence = host.measure(**changed)
        claims = host.claims(**changed)
        detail = error(host.send(evidence, claims), 403, code)
        assert len(detail) < 120
        for values in allowed.values():
            for value in values:
                assert value not in detail
        assert_closed(keyservice, host, 'denied')
        assert len(keyservice.cloud.barbican.payload_requests()) == 1
        reason = host.show()['reason']
        assert reason['code'] == 'attestation.' + code
        assert reason['allowed'] == allowed
        assert reason['claimed'] == claims
        # The compute service sees neither.
        shown = keyservice.operator().get(host.path).json()['launch']
        assert set(shown['reason']) == {'code', 'detail'}
        # The answer to a retry that missed the first one.
        assert error(host.send(evidence, claims), 403, code) == detail
        error(host.send(host.measure()), 409, 'evidence_conflict')
        assert host.outcome('failed').json()['launch']['status'] == 'denied'

    def test_known_firmware_that_is_not_allowed(self, keyservice, host):
        image = platforms.firmware(size=12288)
        keyservice.upload(image)
        evidence = host.measure(firmware=image)
        error(host.send(evidence, host.claims(firmware=image)), 403,
              'firmware_not_allowed')

    def test_unknown_firmware(self, host):
        image = platforms.firmware(size=12288)
        evidence = host.measure(firmware=image)
        error(host.send(evidence, host.claims(firmware=image)), 403,
              'measurement_mismatch')

    def test_firmware_of_another_project_explains_nothing(self, keyservice,
                                                          host):
        image = platforms.firmware(size=12288)
        keyservice.upload(image, project='q')
        evidence = host.measure(firmware=image)
        error(host.send(evidence, host.claims(firmware=image)), 403,
              'measurement_mismatch')

    def test_claims_accept_nothing(self, keyservice, host):
        evidence = host.measure(initrd=OTHER)
        error(host.send(evidence, host.claims()), 403,
              'measurement_mismatch')
        assert_closed(keyservice, host, 'denied')

    def test_wrong_claims_do_not_spoil_good_evidence(self, host):
        answer = host.send(host.measure(), host.claims(kernel=OTHER))
        assert answer.status_code == 200

    def test_null_claims(self, host):
        claims = dict.fromkeys(host.claims())
        assert host.send(host.measure(), claims).status_code == 200

    def test_no_claims(self, host):
        error(host.send(host.measure(initrd=OTHER)), 403,
              'measurement_mismatch')

    def test_measurement_of_an_earlier_launch(self, keyservice, host):
        replayed = host.measure()
        assert host.send(replayed).status_code == 200
        again = harness.Host(keyservice, server_id=host.server_id)
        again.launch()
        error(again.send(replayed, again.claims()), 403,
              'measurement_replayed')
        assert_closed(keyservice, again, 'denied')
        assert host.id in again.show()['reason']['diagnosis']

    def test_a_diagnosis_knows_the_projects_policies(self, keyservice, host):
        keyservice.policy(name='older', initrds=[OTHER.hex()],
                          is_default=False)
        detail = error(host.send(host.measure(initrd=OTHER)), 403,
                       'initrd_not_allowed')
        assert OTHER.hex() not in detail
        assert 'older' not in detail
        reason = host.show()['reason']
        assert "that of policy 'older'" in reason['diagnosis']
        shown = keyservice.operator().get(host.path).json()['launch']
        assert 'diagnosis' not in shown['reason']

    def test_a_diagnosis_knows_no_other_projects_policies(self, keyservice,
                                                          host):
        keyservice.policy(project='q', name='older', initrds=[OTHER.hex()],
                          is_default=False)
        error(host.send(host.measure(initrd=OTHER)), 403,
              'measurement_mismatch')
        assert 'no known combination' in host.show()['reason']['diagnosis']

    def test_other_policy_word(self, keyservice, host):
        # A guest that may be debugged; real firmware refuses the session.
        host.guest.policy_word = 0x3a
        error(host.send(host.measure()), 403, 'policy_word_mismatch')
        assert_closed(keyservice, host, 'denied')

    def test_other_policy_word_that_is_hidden(self, keyservice, host):
        host.guest.policy_word = 0x3a
        error(host.send(host.measure(policy=0x3b), host.claims()), 403,
              'policy_word_mismatch')
        assert_closed(keyservice, host, 'denied')

    @pytest.mark.parametrize('field, value', [
        ('api_major', 2), ('api_minor', 52), ('build_id', 4)])
    def test_facts_of_the_platform_are_measured(self, host, field, value):
        error(host.send(host.measure(**{field: value}), host.claims()), 403,
              'measurement_mismatch')

    @pytest.mark.parametrize('changes', [
        {'measurement': harness.b64(bytes(47))}, {'measurement': 'AAA'},
        {'measurement': ''}, {'api_major': 256}, {'build_id': -1},
        {'policy': 2 ** 32}, {'api_minor': '51'}, {'api_minor': 51.5},
        {'technology': 'intel-tdx'}, {'more': 1}])
    def test_malformed_evidence_closes_nothing(self, host, changes):
        evidence = host.measure()
        response = host.send(evidence | changes)
        assert response.status_code == 400
        assert response.json()['errors'][0]['code'] in (
            'attestation.request_invalid', 'attestation.evidence_malformed')
        assert host.send(evidence).status_code == 200

    def test_integers_may_be_written_as_floats(self, host):
        # JSON Schema calls 3.0 an integer.
        evidence = host.measure(build_id=3.0, policy=59.0, api_minor=51.0)
        assert host.send(evidence).status_code == 200

    def test_too_late(self, keyservice, host):
        evidence = host.measure()
        overdue(keyservice, host)
        error(host.send(evidence), 409, 'launch_expired')
        assert_closed(keyservice, host, 'expired')
        error(host.create(), 409, 'launch_expired')
        assert keyservice.engine.sweep() == 0
        assert host.outcome('failed').json()['launch']['status'] == 'expired'

    def test_sweep_destroys_keys_of_launches_nobody_asks_for(
            self, keyservice, host):
        overdue(keyservice, host)
        # Steps sweep once in a second.
        time.sleep(1.1)
        other = harness.Host(keyservice)
        other.launch()
        assert_closed(keyservice, host, 'expired')
        assert row(keyservice, other).status == 'session_issued'

    def test_lists_sweep_at_once(self, keyservice, host):
        harness.Host(keyservice).launch()
        overdue(keyservice, host)
        listed = keyservice.member().get(
            '/v1/launches?status=expired').json()['launches']
        assert [launch['id'] for launch in listed] == [host.id]

    def test_steps_sweep_once_in_a_second(self, keyservice):
        keyservice.policy()
        now = [0]
        expirer = expiring.Expiring(
            keyservice.service.database, keyservice.service.journal,
            clock=lambda: now[0])
        statuses = []
        for now[0] in (0, 0.9, 1):
            host = harness.Host(keyservice)
            host.launch()
            overdue(keyservice, host)
            expirer.sweep_along()
            statuses.append(row(keyservice, host).status)
        assert statuses == ['expired', 'session_issued', 'expired']

    def test_next_launch_of_the_server_expires_one_that_is_overdue(
            self, keyservice, host):
        overdue(keyservice, host)
        later = harness.Host(keyservice, server_id=host.server_id)
        later.launch()
        assert_closed(keyservice, host, 'expired')
        assert row(keyservice, later).status == 'session_issued'

    def test_session_time_counts_for_the_policy(self, keyservice, host):
        member = keyservice.member()
        policy = member.get('/v1/policies').json()['policies'][0]
        shown = member.get(f'/v1/policies/{policy["id"]}')
        changed = member.patch(
            f'/v1/policies/{policy["id"]}',
            headers={'If-Match': shown.headers['ETag']},
            json={'policy': {'kernels': [OTHER.hex()]}})
        assert changed.status_code == 200
        assert host.send(host.measure()).status_code == 200
        later = harness.Host(keyservice, server_id=host.server_id)
        assert later.launch()['policy_revision'] == 2
        error(later.send(later.measure(), later.claims()), 403,
              'kernel_not_allowed')

    def test_policy_deleted_meanwhile(self, keyservice, host):
        member = keyservice.member()
        policy = member.get('/v1/policies').json()['policies'][0]
        member.delete(f'/v1/policies/{policy["id"]}')
        assert host.show()['reason']['code'] == 'attestation.policy_deleted'
        error(host.send(host.measure()), 403, 'policy_deleted')
        assert_closed(keyservice, host, 'denied')

    def test_policy_revoked_meanwhile(self, keyservice, host):
        member = keyservice.member()
        policy = member.get('/v1/policies').json()['policies'][0]
        member.put(f'/v1/policies/{policy["id"]}/revocation')
        assert host.show()['reason']['code'] == 'attestation.policy_revoked'
        error(host.send(host.measure()), 403, 'policy_revoked')
        assert_closed(keyservice, host, 'denied')

    def test_sealing_key_lost(self, keyservice, host):
        evidence = host.measure()
        keys = keyservice.directory / 'sealing-keys'
        hidden = [path.rename(path.with_suffix('.hidden'))
                  for path in keys.iterdir()]
        error(host.send(evidence), 503, 'sealing_key_missing')
        for path in hidden:
            path.rename(path.with_suffix('.key'))
        assert host.send(evidence).status_code == 200


class TestOtherPolicies:

    def launch(self, keyservice, **changes):
        keyservice.policy(**changes)
        host = harness.Host(keyservice)
        host.launch()
        return host

    def test_empty_kernels_allow_none(self, keyservice):
        host = self.launch(keyservice, kernels=[])
        error(host.send(host.measure(), host.claims()), 403,
              'kernel_not_allowed')
        host = harness.Host(keyservice)
        host.launch()
        error(host.send(host.measure(kernel=None),
                        host.claims(kernel=None)), 403,
              'kernel_not_allowed')

    def test_firmware_boot(self, keyservice):
        host = self.launch(keyservice, kernels=[], firmware_boot=True)
        assert host.send(host.measure(kernel=None)).status_code == 200

    def test_firmware_boot_allows_no_other_kernel(self, keyservice):
        host = self.launch(keyservice, firmware_boot=True)
        error(host.send(host.measure(kernel=OTHER),
                        host.claims(kernel=OTHER)), 403,
              'kernel_not_allowed')

    def test_empty_initrds_mean_none(self, keyservice):
        host = self.launch(keyservice, initrds=[])
        none = kernel_hashes.NO_INITRD_SHA256
        assert host.send(host.measure(initrd=none)).status_code == 200
        host = harness.Host(keyservice)
        host.launch()
        error(host.send(host.measure(), host.claims()), 403,
              'initrd_not_allowed')

    def test_any_of_several(self, keyservice):
        big = platforms.firmware(secret=(0x820000, 0x400), size=12288)
        host = self.launch(
            keyservice, firmwares=[keyservice.upload(),
                                   keyservice.upload(big)],
            kernels=[harness.KERNEL.hex(), OTHER.hex()],
            command_lines=['', harness.COMMAND_LINE])
        evidence = host.measure(firmware=big, kernel=OTHER, command_line='')
        answer = host.send(evidence).json()
        # The area of the firmware that was measured, not of another one.
        assert answer['release']['gpa'] == 0x820000
        assert host.inject(answer['release'], evidence) == {
            GUID: harness.PASSPHRASE}

    def test_several_secrets(self, keyservice):
        other = str(uuid.uuid4())
        host = self.launch(keyservice, secrets=[
            {'guid': harness.LUKS_GUID, 'secret_ref': keyservice.secret()},
            {'guid': other, 'secret_ref': keyservice.secret(b'\0second')}])
        evidence = host.measure()
        assert host.inject(host.send(evidence).json()['release'],
                           evidence) == {
            GUID: harness.PASSPHRASE,
            uuid.UUID(other).bytes_le: b'\0second'}


class TestSecretStore:

    @pytest.fixture
    def host(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        host.launch()
        return host

    @pytest.mark.parametrize('misbehave', [
        fakes.hang_up, fakes.trickle, fakes.cut,
        fakes.answer(500), fakes.answer(401),
        fakes.answer(302, headers=[('Location', 'http://192.0.2.1/')]),
        fakes.answer(200, b'<html>', 'text/html'),
        fakes.answer(200, b'x', 'application/octet-stream',
                     [('Content-Encoding', 'gzip')]),
        fakes.answer(204)])
    def test_trouble_leaves_the_launch_open(self, keyservice, host,
                                            misbehave):
        evidence = host.measure()
        keyservice.cloud.barbican.misbehave = misbehave
        error(host.send(evidence), 503, 'secret_store_unavailable')
        assert row(keyservice, host).status == 'session_issued'
        # The evidence is bound: another cannot be tried in the meantime.
        error(host.send(host.measure()), 409, 'evidence_conflict')
        keyservice.cloud.barbican.misbehave = None
        answer = host.send(evidence).json()
        assert host.inject(answer['release'], evidence) == {
            GUID: harness.PASSPHRASE}

    def test_slow(self, keyservice, host):
        evidence = host.measure()
        keyservice.cloud.barbican.misbehave = fakes.trickle
        started = timeutils.now()
        error(host.send(evidence), 503, 'secret_store_unavailable')
        assert timeutils.now() - started < 5

    @pytest.mark.parametrize('take_away', [
        lambda secret: secret.readers.clear(), None])
    def test_not_granted_or_gone(self, keyservice, host, take_away):
        secrets = keyservice.cloud.barbican.secrets
        if take_away:
            take_away(*secrets.values())
        else:
            secrets.clear()
        evidence = host.measure()
        error(host.send(evidence), 403, 'secret_unavailable')
        assert_closed(keyservice, host, 'denied')
        error(host.send(evidence), 403, 'secret_unavailable')

    @pytest.mark.parametrize('payload, code', [
        (b'x' * 3072, 'secret_too_large'), (b'x' * 8193, 'secret_too_large'),
        (b'', 'secret_empty')])
    def test_secret_that_cannot_be_used(self, keyservice, host, payload,
                                        code):
        for secret in keyservice.cloud.barbican.secrets.values():
            secret.payload = payload
        error(host.send(host.measure()), 403, code)
        assert_closed(keyservice, host, 'denied')

    def test_payload_without_end(self, keyservice, host):
        keyservice.cloud.barbican.misbehave = fakes.flood
        error(host.send(host.measure()), 403, 'secret_too_large')

    def test_secret_as_large_as_fits(self, keyservice, host):
        # Area less the table's header and the entry's, to a multiple of 16.
        payload = b'y' * (3072 - 20 - 20 - 8)
        for secret in keyservice.cloud.barbican.secrets.values():
            secret.payload = payload
        evidence = host.measure()
        answer = host.send(evidence).json()
        assert host.inject(answer['release'], evidence) == {GUID: payload}


class TestOutcome:

    @pytest.fixture
    def host(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        host.launch()
        return host

    def test_host_gives_up(self, keyservice, host):
        evidence = host.measure()
        shown = host.outcome('failed', 'libvirt said no').json()['launch']
        assert shown['status'] == 'failed'
        assert shown['reason'] == {'code': 'attestation.host_failed',
                                   'detail': 'libvirt said no'}
        assert_closed(keyservice, host, 'failed')
        error(host.send(evidence), 409, 'launch_closed')
        assert host.outcome('failed').status_code == 200
        error(host.outcome('running'), 409, 'launch_conflict')
        error(host.create(), 409, 'launch_closed')

    def test_nothing_runs_without_a_release(self, host):
        error(host.outcome('running'), 409, 'launch_conflict')

    def test_failure_after_the_release(self, host):
        host.send(host.measure())
        assert host.outcome('failed').json()['launch']['status'] == 'failed'

    @pytest.mark.parametrize('outcome', [
        {}, {'status': 'denied'}, {'status': 'failed', 'reason': 'x' * 256},
        {'status': 'failed', 'more': 1}])
    def test_malformed(self, host, outcome):
        error(host.api.put(host.path + '/outcome', headers=host.headers,
                           json={'outcome': outcome}),
              400, 'request_invalid')


class TestRead:

    def test_owner_and_operator(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        host.launch()
        full = host.show()
        seen = keyservice.operator().get(host.path).json()['launch']
        assert set(full) - set(seen) == {
            'verdict', 'policy_word', 'decided_by', 'decided_at'}
        assert lasting(keyservice.api('reader').get(host.path).json()[
            'launch']) == lasting(full)

    def test_compute_reads_nothing(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        host.launch()
        error(host.api.get(host.path), 403, 'forbidden')
        error(host.api.get('/v1/launches'), 403, 'forbidden')

    def test_other_project_sees_nothing(self, keyservice):
        keyservice.policy()
        host = harness.Host(keyservice)
        host.launch()
        other = keyservice.member('q')
        error(other.get(host.path), 404, 'launch_not_found')
        assert other.get('/v1/launches').json()['launches'] == []
        error(other.get(f'/v1/launches?marker={host.id}'), 400,
              'marker_not_found')

    def test_roles(self, keyservice):
        host = harness.Host(keyservice)
        for api in (keyservice.api(), keyservice.api('other')):
            error(api.get('/v1/launches'), 403, 'forbidden')
            error(api.get(host.path), 403, 'forbidden')
        evidence = {'technology': 'amd-sev', 'measurement': '',
                    'api_major': 1, 'api_minor': 51, 'build_id': 1,
                    'policy': 59}
        for api in (keyservice.member(), keyservice.api('admin')):
            for path, body in (
                    ('', {'launch': host.request()}),
                    ('/evidence', {'evidence': evidence}),
                    ('/outcome', {'outcome': {'status': 'failed'}})):
                error(api.put(host.path + path, headers=host.headers,
                              json=body), 403, 'forbidden')

    def test_pages_and_filters(self, keyservice):
        keyservice.policy()
        hosts = [harness.Host(keyservice) for _ in range(5)]
        for host in hosts:
            host.launch()
        hosts[0].outcome('failed')
        api, found, path = keyservice.member(), [], '/v1/launches?limit=2'
        for size in (2, 2, 1):
            answer = api.get(path).json()
            assert len(answer['launches']) == size
            found += [launch['id'] for launch in answer['launches']]
            path = (answer['launches_links'] or [{'href': None}])[0]['href']
        assert path is None
        assert found == [host.id for host in reversed(hosts)]
        answer = api.get('/v1/launches?status=failed').json()
        assert [one['id'] for one in answer['launches']] == [hosts[0].id]
        answer = api.get('/v1/launches', params={
            'server_id': hosts[1].server_id, 'limit': 1}).json()
        assert [one['id'] for one in answer['launches']] == [hosts[1].id]
        assert answer['launches_links'] == []
        error(api.get('/v1/launches?status=lost'), 400, 'request_invalid')
