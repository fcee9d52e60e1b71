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

"""Hosts that wait for a launch's owner by a long poll."""

import threading
import time

import pytest
import sqlalchemy as sa

from nova_sev_attest.keyservice.engine import waiting
from tests.functional.keyservice import harness
from tests.functional.keyservice.harness import error
from tests.functional.keyservice.test_launches import overdue

_LIMITS = """
[api]
max_wait = 2
max_waiting = 2
"""
# On a busy machine an answer takes its time; a wait that is not ended takes
# much longer.
LONG = 25


@pytest.fixture
def waiter(cloud, tmp_path):
    """A key service with nothing but the defaults."""
    service = harness.KeyService(cloud, tmp_path)
    yield service
    service.stop()


@pytest.fixture
def hasty(cloud, tmp_path):
    """A key service that lets two requests wait, for two seconds."""
    service = harness.KeyService(cloud, tmp_path, trust=_LIMITS)
    yield service
    service.stop()


def awaiting_session(keyservice):
    if not keyservice.member().get('/v1/policies').json()['policies']:
        keyservice.policy(verifier='owner', secrets=[])
    host = harness.Host(keyservice)
    assert host.create().status_code == 202
    return host, harness.Owner(host)


def awaiting_approval(keyservice):
    keyservice.policy(approval='owner')
    host = harness.Host(keyservice)
    host.launch()
    evidence = host.measure()
    assert host.send(evidence).status_code == 202
    return host, harness.Owner(host), evidence


def create(host, prefer):
    return host.api.put(host.path, headers=host.headers | {'Prefer': prefer},
                        json={'launch': host.request()})


class Meanwhile:
    """A request in a thread of its own.

    :ivar answer: its response, once it is there
    """

    def __init__(self, call):
        self.answer = None
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call):
        self.answer = call()
        self.seconds = time.monotonic() - self._began

    def join(self):
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.answer


def test_session_ends_the_wait(waiter):
    host, owner = awaiting_session(waiter)
    session = owner.make_session()
    waits = Meanwhile(lambda: create(host, f'wait={LONG}'))
    time.sleep(1)
    assert waits.answer is None
    assert owner.put('session', session).status_code == 200
    answer = waits.join()
    assert answer.status_code == 200
    assert answer.json()['launch']['session']['session'] == (
        session['session'])
    assert waits.seconds < LONG


def test_approval_ends_the_wait(waiter):
    host, owner, evidence = awaiting_approval(waiter)
    waits = Meanwhile(lambda: host.send(evidence, Prefer=f'wait={LONG}'))
    time.sleep(1)
    assert waits.answer is None
    assert owner.decide('approve').status_code == 200
    answer = waits.join()
    assert answer.status_code == 200
    assert host.inject(answer.json()['release'], evidence)
    assert waits.seconds < LONG


@pytest.mark.parametrize('end, status, code', [
    (lambda host, owner: owner.decide('deny'), 403, 'denied_by_owner'),
    (lambda host, owner: overdue(host.keyservice, host), 409,
     'launch_expired'),
    (lambda host, owner: harness.Host(
        host.keyservice, server_id=host.server_id).create(), 409,
     'launch_closed'),
    (lambda host, owner: owner.api.put('/v1/policies/{}/revocation'.format(
        owner.get()['launch']['policy_id'])), 403, 'policy_revoked')])
def test_other_ends(waiter, end, status, code):
    host, owner, evidence = awaiting_approval(waiter)
    waits = Meanwhile(lambda: host.send(evidence, Prefer=f'wait={LONG}'))
    time.sleep(1)
    end(host, owner)
    error(waits.join(), status, code)
    assert waits.seconds < LONG


def test_first_evidence_may_wait_at_once(waiter):
    waiter.policy(approval='owner')
    host = harness.Host(waiter)
    host.launch()
    evidence = host.measure()
    owner = harness.Owner(host)
    waits = Meanwhile(lambda: host.send(evidence, Prefer=f'wait={LONG}'))
    for _ in range(100):
        if owner.get()['launch']['waiting_for'] == 'approval':
            break
        time.sleep(0.1)
    assert waits.answer is None
    owner.decide('approve')
    assert waits.join().status_code == 200


def test_who_does_not_wait_is_answered_at_once(waiter, monkeypatch):
    host, owner, evidence = awaiting_approval(waiter)

    def wait(*args):
        raise AssertionError('waited')

    monkeypatch.setattr(waiting.Waiting, 'wait', wait)
    assert host.send(evidence).status_code == 202
    for prefer in ('respond-async', 'wait', 'wait=', 'wait=-1', 'wait=x',
                   'wait=1.5', 'wait=0', 'wait=9999999', 'handling=lenient'):
        assert host.send(evidence, Prefer=prefer).status_code == 202
    # What was decided waits for nobody.
    owner.decide('approve')
    assert host.send(evidence, Prefer='wait=10').status_code == 200


@pytest.mark.parametrize('prefer', [
    'wait=600', 'respond-async, wait=600', 'Wait = "600"',
    'wait=600; strict', 'handling=lenient,wait=600,return=minimal'])
def test_longest_wait(hasty, prefer):
    host, owner, evidence = awaiting_approval(hasty)
    began = time.monotonic()
    answer = host.send(evidence, Prefer=prefer)
    assert answer.status_code == 202
    assert time.monotonic() - began >= 2
    launch = answer.json()['launch']
    assert launch['waiting_for'] == 'approval'
    # What is left now, not when it began to wait.
    assert launch['expires_in'] <= 898


def test_not_more_wait_than_may(hasty, monkeypatch):
    """Of five one holds no thread longer than it must."""
    hosts = [awaiting_session(hasty)[0] for _ in range(5)]
    together = threading.Semaphore(0)
    most = []
    has_changed = waiting.Waiting._has_changed

    def look(self, launch):
        most.append(launch.id)
        together.release()
        return has_changed(self, launch)

    monkeypatch.setattr(waiting.Waiting, '_has_changed', look)
    waits = [Meanwhile(lambda host=host: create(host, 'wait=600'))
             for host in hosts[:2]]
    for _ in waits:
        assert together.acquire(timeout=30)
    others = [create(host, 'wait=600') for host in hosts[2:]]
    assert [answer.status_code for answer in others] == [202] * 3
    assert set(most) <= {host.id for host in hosts[:2]} or all(
        wait.answer is not None for wait in waits)
    assert [wait.join().status_code for wait in waits] == [202] * 2
    # There is room again.
    began = time.monotonic()
    assert create(hosts[4], 'wait=600').status_code == 202
    assert time.monotonic() - began >= 2


def test_no_connection_is_held_while_waiting(hasty, monkeypatch):
    host, owner, evidence = awaiting_approval(hasty)
    taken, seen = [], []
    engine = hasty.service.database.engine
    sa.event.listen(engine, 'checkout', lambda *args: taken.append(1))
    sa.event.listen(engine, 'checkin', lambda *args: taken.pop())
    sleep = time.sleep

    def look(seconds):
        seen.append(len(taken))
        sleep(seconds)

    monkeypatch.setattr(hasty.engine._waiting, '_sleep', look)
    assert host.send(evidence, Prefer='wait=600').status_code == 202
    assert len(seen) >= 3 and set(seen) == {0}
