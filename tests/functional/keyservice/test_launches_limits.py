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

"""What restricts releases besides what was measured, and revocation."""

import datetime
import json

from oslo_utils import timeutils
import pytest
import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.functional.keyservice.harness import error
from tests.functional.keyservice.test_concurrency import at_once
from tests.functional.keyservice.test_launches import assert_closed

THREADS = 8


def later(**delta):
    moment = timeutils.utcnow() + datetime.timedelta(**delta)
    return moment.isoformat(timespec='seconds') + 'Z'


def limit(keyservice, **limits):
    """Change the limits in place, as time or others would."""
    with keyservice.service.database.writer() as session:
        row = session.scalars(sa.select(models.PolicyRevision)).one()
        body = json.loads(row.body)
        body['limits'] = limits
        row.body = json.dumps(body)


def refused(keyservice, host, code):
    """A launch that does not begin; returns the reason, as the owner sees."""
    answer = host.create()
    error(answer, 403, code)
    reason = host.show()['reason']
    # What is allowed is the owner's to know.
    for value in reason['allowed']['limits'].values():
        for one in value if isinstance(value, list) else [value]:
            assert str(one) not in answer.json()['errors'][0]['detail']
    assert harness.Owner(host).events() == ['denied']
    return reason


def test_servers(keyservice):
    allowed = harness.Host(keyservice)
    keyservice.policy(limits={'servers': [allowed.server_id]})
    allowed.launch()
    assert allowed.send(allowed.measure()).status_code == 200
    refused(keyservice, harness.Host(keyservice), 'server_not_allowed')


def test_host_aggregates(keyservice):
    keyservice.cloud.nova.aggregates.update(
        {'trusted': ['host-1'], 'rest': ['host-2']})
    keyservice.policy(limits={'host_aggregates': ['trusted']})
    host = harness.Host(keyservice)
    host.launch()
    assert host.send(host.measure()).status_code == 200
    other = harness.Host(keyservice, name='host-2')
    reason = refused(keyservice, other, 'aggregate_not_allowed')
    assert 'rest' in reason['diagnosis']
    refused(keyservice, harness.Host(keyservice, name='host-3'),
            'aggregate_not_allowed')


def test_host_that_left_its_aggregate_before_the_release(keyservice):
    keyservice.cloud.nova.aggregates['trusted'] = ['host-1']
    policy = keyservice.policy(limits={'host_aggregates': ['trusted']})
    host = harness.Host(keyservice)
    host.launch()
    keyservice.cloud.nova.aggregates['trusted'] = []
    evidence = host.measure()
    error(host.send(evidence), 403, 'aggregate_not_allowed')
    assert_closed(keyservice, host, 'denied')
    # No secret was asked for.
    assert len(keyservice.cloud.barbican.payload_requests()) == len(
        policy['secrets'])


@pytest.mark.parametrize('answer', [
    fakes.answer(500), fakes.answer(403), fakes.answer(200, {}),
    fakes.answer(200, {'aggregates': [{}]}), fakes.answer(200, b'rubbish'),
    fakes.hang_up])
def test_nova_away_at_the_release(keyservice, answer):
    keyservice.cloud.nova.aggregates['trusted'] = ['host-1']
    keyservice.policy(limits={'host_aggregates': ['trusted']})
    host = harness.Host(keyservice)
    host.launch()
    evidence = host.measure()
    keyservice.cloud.nova.misbehave = answer
    error(host.send(evidence), 503, 'compute_unavailable')
    keyservice.cloud.nova.misbehave = None
    assert host.send(evidence).status_code == 200


def test_aggregates_are_not_read_without_need(keyservice):
    keyservice.policy()
    host = harness.Host(keyservice)
    host.launch()
    keyservice.cloud.nova.misbehave = fakes.answer(500)
    assert host.send(host.measure()).status_code == 200


@pytest.mark.parametrize('limits, code', [
    ({'not_before': later(hours=1)}, 'too_early'),
    ({'not_after': later(hours=-1)}, 'too_late')])
def test_times(keyservice, limits, code):
    keyservice.policy(limits=limits)
    refused(keyservice, harness.Host(keyservice), code)


def test_time_that_ends_between_session_and_release(keyservice):
    keyservice.policy(limits={'not_before': later(hours=-1),
                              'not_after': later(hours=1)})
    host = harness.Host(keyservice)
    host.launch()
    limit(keyservice, not_after=later(hours=-1))
    error(host.send(host.measure()), 403, 'too_late')
    assert_closed(keyservice, host, 'denied')


def test_owner_driven_launches_are_limited_too(keyservice):
    keyservice.policy(verifier='owner', secrets=[],
                      limits={'not_after': later(hours=1)})
    host = harness.Host(keyservice)
    host.create()
    owner = harness.Owner(host)
    owner.put('session', owner.make_session())
    host.start(host.create())
    evidence = host.measure()
    assert host.send(evidence).status_code == 202
    limit(keyservice, not_after=later(hours=-1))
    error(owner.put('secret', None), 403, 'too_late')
    error(host.send(evidence), 403, 'too_late')
    assert_closed(keyservice, host, 'denied')


def test_max_releases(keyservice):
    policy = keyservice.policy(limits={'max_releases': 2})
    hosts = [harness.Host(keyservice) for _ in range(3)]
    for host in hosts:
        host.launch()
    evidence = [host.measure() for host in hosts]
    for number in (0, 0, 1):
        # The retry of a release is none.
        assert hosts[number].send(evidence[number]).status_code == 200
    error(hosts[2].send(evidence[2]), 403, 'releases_used_up')
    refused(keyservice, harness.Host(keyservice), 'releases_used_up')
    shown = keyservice.member().get(
        f'/v1/policies/{policy["id"]}').json()['policy']
    assert shown['release_count'] == 2


def test_max_releases_at_once(either):
    policy = either.policy(limits={'max_releases': 1})
    hosts = [harness.Host(either) for _ in range(THREADS)]
    for host in hosts:
        host.launch()
    evidence = [host.measure() for host in hosts]
    answers = at_once([
        lambda host=host, one=one: host.send(one)
        for host, one in zip(hosts, evidence)])
    assert sorted(answer.status_code for answer in answers) == (
        [200] + [403] * (THREADS - 1))
    for host, answer in zip(hosts, answers):
        if answer.status_code == 403:
            error(answer, 403, 'releases_used_up')
            assert_closed(either, host, 'denied')
    shown = either.member().get(
        f'/v1/policies/{policy["id"]}').json()['policy']
    assert shown['release_count'] == 1


def test_max_releases_of_owner_driven_launches_at_once(either):
    either.policy(verifier='owner', secrets=[], limits={'max_releases': 1})
    owners = []
    for _ in range(4):
        host = harness.Host(either)
        host.create()
        owner = harness.Owner(host)
        owner.put('session', owner.make_session())
        host.start(host.create())
        assert host.send(host.measure()).status_code == 202
        owners.append(owner)
    answers = at_once([lambda owner=owner: owner.put('secret', None)
                       for owner in owners])
    assert sorted(answer.status_code for answer in answers) == (
        [200, 403, 403, 403])


class TestRevocation:

    def revoke(self, keyservice, policy, api=None):
        return (api or keyservice.member()).put(
            f'/v1/policies/{policy["id"]}/revocation')

    def test_no_launch_begins(self, keyservice):
        policy = keyservice.policy()
        self.revoke(keyservice, policy)
        host = harness.Host(keyservice)
        error(host.create(), 403, 'policy_revoked')
        assert host.show()['reason']['code'] == 'attestation.policy_revoked'
        assert harness.Owner(host).events() == ['denied']
        keyservice.member().delete(f'/v1/policies/{policy["id"]}/revocation')
        harness.Host(keyservice).launch()

    def test_every_open_launch_is_denied(self, keyservice):
        policy = keyservice.policy(verifier='owner', secrets=[])
        waits = harness.Host(keyservice)
        waits.create()
        started = harness.Host(keyservice)
        started.create()
        owner = harness.Owner(started)
        owner.put('session', owner.make_session())
        started.start(started.create())
        done = harness.Host(keyservice)
        done.create()
        other = harness.Owner(done)
        other.put('session', other.make_session())
        done.start(done.create())
        evidence = done.measure()
        done.send(evidence)
        other.put('secret', None)
        self.revoke(keyservice, policy)
        error(waits.create(), 403, 'policy_revoked')
        error(started.send(started.measure()), 403, 'policy_revoked')
        for host in (waits, started):
            assert_closed(keyservice, host, 'denied')
            assert harness.Owner(host).events()[-1] == 'denied'
        # What is released stays so.
        assert done.send(evidence).status_code == 200

    def test_release_at_the_same_moment(self, either):
        """Released before, or denied; never released after."""
        for number in range(4):
            policy = either.policy(name=f'policy {number}', secrets=[],
                                   is_default=False)
            hosts = [harness.Host(either, policy=policy['id'])
                     for _ in range(4)]
            for host in hosts:
                host.launch()
            evidence = [host.measure() for host in hosts]
            answers = at_once([
                lambda host=host, one=one: host.send(one)
                for host, one in zip(hosts, evidence)] + [
                lambda: self.revoke(either, policy)])
            revoked = answers.pop().json()['policy']['revoked_at']
            for host, one, answer in zip(hosts, evidence, answers):
                status = host.show()['status']
                again = host.send(one)
                if answer.status_code == 200:
                    assert status == 'released'
                    at = next(
                        event['at'] for event in harness.Owner(host).get(
                            '/events')['events']
                        if event['event'] == 'launch.released')
                    assert at and revoked
                    assert again.status_code == 200
                else:
                    error(answer, 403, 'policy_revoked')
                    assert status == 'denied'
                    error(again, 403, 'policy_revoked')
            count = either.member().get(
                f'/v1/policies/{policy["id"]}').json()['policy'][
                    'release_count']
            assert count == sum(answer.status_code == 200
                                for answer in answers)

    def test_beginning_at_the_same_moment(self, either):
        policy = either.policy(secrets=[])
        hosts = [harness.Host(either) for _ in range(4)]
        answers = at_once([host.create for host in hosts] + [
            lambda: self.revoke(either, policy)])
        assert answers.pop().status_code == 200
        for host, answer in zip(hosts, answers):
            assert answer.status_code in (201, 403)
            assert_closed(either, host, 'denied')
