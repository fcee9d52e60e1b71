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

"""Launches that the service verifies and the owner approves."""

import hashlib
import json
import uuid

import pytest

from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.functional.keyservice.harness import error
from tests.functional.keyservice.test_concurrency import at_once
from tests.functional.keyservice import test_hygiene
from tests.functional.keyservice.test_launches import assert_closed
from tests.functional.keyservice.test_launches import overdue
from tests.functional.keyservice.test_launches import row

GUID = uuid.UUID(harness.LUKS_GUID).bytes_le
THREADS = 8


def boot(keyservice, **policy):
    """A guest that verified, and whose launch waits for approval.

    :returns: (Host, Owner, evidence)
    """
    keyservice.policy(approval='owner', **policy)
    return boot_once(keyservice)


def boot_once(keyservice):
    """The same, under the policy that there is."""
    host = harness.Host(keyservice)
    host.launch()
    evidence = host.measure()
    response = host.send(evidence, host.claims())
    assert response.status_code == 202, response.text
    return host, harness.Owner(host), evidence


def fetched(keyservice):
    """Payloads that the service asked for, but for the author's proof."""
    return keyservice.cloud.barbican.payload_requests()[1:]


def test_whole_launch(either):
    host, owner, evidence = boot(either)
    answer = host.send(evidence)
    assert answer.status_code == 202
    launch = answer.json()['launch']
    assert (launch['status'], launch['waiting_for'], launch['approval']) == (
        'awaiting_release', 'approval', 'owner')
    # The host is told nothing of what was verified.
    assert 'verdict' not in launch
    assert host.create().status_code == 200
    # The keys are kept, and sealed; no secret was asked for.
    assert row(either, host).sealed_keys is not None
    keys = host.guest.tek, host.guest.tik
    test_hygiene.assert_absent(harness.stored(either), *keys)
    assert fetched(either) == []
    verdict = owner.get()['launch']['verdict']
    assert verdict['kernel_sha256'] == harness.KERNEL.hex()

    shown = owner.decide('approve').json()['launch']
    assert shown['status'] == 'released'
    assert shown['verdict'] == verdict
    assert shown['decided_by'] == 'user-of-p' and shown['decided_at']
    assert len(fetched(either)) == 1
    assert row(either, host).sealed_keys is None
    answer = host.send(evidence)
    assert answer.status_code == 200
    assert host.inject(answer.json()['release'], evidence) == {
        GUID: harness.PASSPHRASE}
    assert host.send(evidence).json()['release'] == answer.json()['release']
    # Once more changes nothing, whatever became of it.
    assert owner.decide('approve').json()['launch'] == shown
    host.outcome('running')
    assert owner.decide('approve').json()['launch']['status'] == 'running'
    assert len(fetched(either)) == 1

    assert owner.events() == [
        'session_issued', 'evidence_received', 'awaiting_release',
        'approved', 'released', 'running']
    events = {event['event'].removeprefix('launch.'): event
              for event in owner.get('/events')['events']}
    canonical = json.dumps(verdict, sort_keys=True, separators=(',', ':'))
    for name in ('awaiting_release', 'approved', 'released'):
        assert events[name]['details']['verdict_sha256'] == (
            hashlib.sha256(canonical.encode()).hexdigest())
    assert events['approved']['actor'] == 'user-of-p'
    assert events['released']['details']['secrets'] == list(
        either.cloud.barbican.secrets)


def test_what_does_not_verify_is_not_up_to_the_owner(keyservice):
    keyservice.policy(approval='owner')
    host = harness.Host(keyservice)
    host.launch()
    error(host.send(host.measure(initrd=bytes(32)), host.claims()), 403,
          'measurement_mismatch')
    owner = harness.Owner(host)
    error(owner.decide('approve'), 409, 'launch_closed')
    assert_closed(keyservice, host, 'denied')
    assert owner.events() == ['session_issued', 'evidence_received',
                              'denied']


def test_denial(keyservice):
    host, owner, evidence = boot(keyservice)
    assert owner.decide('deny', 'unknown boot').status_code == 200
    assert_closed(keyservice, host, 'denied')
    answer = host.send(evidence)
    error(answer, 403, 'denied_by_owner')
    assert 'unknown boot' not in answer.text
    error(owner.decide('approve'), 409, 'launch_closed')
    assert fetched(keyservice) == []


def test_nothing_to_approve(keyservice):
    keyservice.policy(approval='owner')
    host = harness.Host(keyservice)
    host.launch()
    owner = harness.Owner(host)
    error(owner.decide('approve'), 409, 'evidence_missing')
    automatic = keyservice.policy(name='automatic', is_default=False)
    other = harness.Host(keyservice, policy=automatic['id'])
    other.launch()
    error(harness.Owner(other).decide('approve'), 409, 'approval_not_wanted')
    assert other.send(other.measure()).status_code == 200


def test_other_evidence_while_the_owner_thinks(keyservice):
    host, owner, evidence = boot(keyservice)
    error(host.send(host.measure()), 409, 'evidence_conflict')
    assert owner.events()[-1] == 'evidence_refused'
    assert owner.decide('approve').status_code == 200
    assert host.inject(host.send(evidence).json()['release'], evidence)


def test_too_late(keyservice):
    host, owner, evidence = boot(keyservice)
    overdue(keyservice, host)
    error(owner.decide('approve'), 409, 'launch_expired')
    error(host.send(evidence), 409, 'launch_expired')
    assert_closed(keyservice, host, 'expired')
    assert fetched(keyservice) == []


def test_store_away_changes_nothing(keyservice):
    host, owner, evidence = boot(keyservice)
    keyservice.cloud.barbican.misbehave = fakes.answer(500)
    error(owner.decide('approve'), 503, 'secret_store_unavailable')
    assert host.send(evidence).status_code == 202
    assert owner.events()[-1] == 'awaiting_release'
    keyservice.cloud.barbican.misbehave = None
    assert owner.decide('approve').status_code == 200
    assert host.send(evidence).status_code == 200


def test_secret_that_cannot_be_read_closes_it(keyservice):
    host, owner, evidence = boot(keyservice)
    keyservice.cloud.barbican.secrets.clear()
    error(owner.decide('approve'), 403, 'secret_unavailable')
    error(host.send(evidence), 403, 'secret_unavailable')
    assert_closed(keyservice, host, 'denied')
    assert owner.get()['launch']['decided_by'] is None


@pytest.mark.parametrize('withdraw, code', [
    (lambda api, path: api.put(path + '/revocation'), 'policy_revoked'),
    (lambda api, path: api.delete(path), 'policy_deleted')])
def test_policy_withdrawn_while_the_owner_thinks(keyservice, withdraw, code):
    host, owner, evidence = boot(keyservice)
    policy = owner.api.get('/v1/policies').json()['policies'][0]
    withdraw(owner.api, f'/v1/policies/{policy["id"]}')
    error(owner.decide('approve'), 409, 'launch_closed')
    error(host.send(evidence), 403, code)
    assert_closed(keyservice, host, 'denied')
    assert owner.events()[-1] == 'denied'


def test_newer_launch_supersedes(keyservice):
    host, owner, evidence = boot(keyservice)
    harness.Host(keyservice, server_id=host.server_id).launch()
    error(owner.decide('approve'), 409, 'launch_closed')
    assert_closed(keyservice, host, 'superseded')


def test_another_project_cannot(keyservice):
    host, owner, evidence = boot(keyservice)
    other = keyservice.member('q')
    for action in ('approve', 'deny'):
        error(owner.decide(action, api=other), 404, 'launch_not_found')
        error(owner.decide(action, api=keyservice.api('reader')), 403,
              'forbidden')
        error(owner.decide(action, api=host.api), 403, 'forbidden')
    assert host.send(evidence).status_code == 202


def test_many_approvals_release_once(either):
    host, owner, evidence = boot(either)
    answers = at_once([
        lambda api=either.member(): owner.decide('approve', api=api)
        for _ in range(THREADS)])
    assert [answer.status_code for answer in answers] == [200] * THREADS
    assert owner.events().count('released') == 1
    packets = {json.dumps(host.send(evidence).json()['release'])
               for _ in range(3)}
    assert len(packets) == 1


def test_approval_denial_and_expiry_at_once(either):
    """One of the three happens, and everybody hears of that one."""
    outcomes = {'released', 'denied', 'expired'}
    either.policy(approval='owner')
    for _ in range(3):
        host, owner, evidence = boot_once(either)
        answers = at_once([
            lambda api=either.member(): owner.decide('approve', api=api),
            lambda api=either.member(): owner.decide('deny', api=api),
            lambda: (overdue(either, host), either.engine.sweep())])
        status = owner.get()['launch']['status']
        events = owner.events()
        assert status in outcomes
        assert events[-1] == status
        assert len(outcomes & set(events)) == 1
        expected = {'released': (200, 409), 'denied': (409, 200),
                    'expired': (409, 409)}[status]
        assert tuple(answer.status_code
                     for answer in answers[:2]) == expected
        answer = host.send(evidence)
        assert answer.status_code == {'released': 200, 'denied': 403,
                                      'expired': 409}[status]
        if status != 'released':
            assert_closed(either, host, status)
