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

"""Requests at the same time, on each kind of database."""

import concurrent.futures
import json
import uuid

import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from tests.functional.keyservice import harness

THREADS = 8


def at_once(calls):
    """Run calls in threads; returns their answers."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as executor:
        return [future.result() for future in
                [executor.submit(call) for call in calls]]


def launches(keyservice):
    with keyservice.service.database.reader() as session:
        return [(row.status, row.sealed_keys, row.open_for)
                for row in session.scalars(sa.select(models.Launch))]


def test_same_evidence_is_released_once(either):
    either.policy()
    for _ in range(3):
        host = harness.Host(either)
        host.launch()
        evidence = host.measure()
        answers = at_once([
            lambda api=either.compute(): host.send(evidence, api=api)
            for _ in range(THREADS)])
        assert [answer.status_code for answer in answers] == [200] * THREADS
        packets = {json.dumps(answer.json()['release'], sort_keys=True)
                   for answer in answers}
        assert len(packets) == 1
        assert host.inject(json.loads(packets.pop()), evidence) == {
            uuid.UUID(harness.LUKS_GUID).bytes_le: harness.PASSPHRASE}


def test_of_different_evidence_one_is_released(either):
    either.policy()
    host = harness.Host(either)
    host.launch()
    evidence = [host.measure() for _ in range(THREADS)]
    answers = at_once([
        lambda api=either.compute(), one=one: host.send(one, api=api)
        for one in evidence])
    assert sorted(answer.status_code for answer in answers) == (
        [200] + [409] * (THREADS - 1))


def test_good_and_bad_evidence(either):
    either.policy()
    host = harness.Host(either)
    host.launch()
    evidence = [host.measure(), host.measure(initrd=bytes(32))]
    statuses = [answer.status_code for answer in at_once([
        lambda api=either.compute(), one=one: host.send(one, api=api)
        for one in evidence])]
    # Whichever came first counts, and only that one.
    assert statuses in ([200, 409], [409, 403])


def test_same_launch_gets_one_session(either):
    either.policy()
    host = harness.Host(either)
    answers = at_once([
        lambda api=either.compute(): api.put(
            host.path, headers=host.headers,
            json={'launch': host.request()})
        for _ in range(THREADS)])
    assert sorted(answer.status_code for answer in answers) == (
        [200] * (THREADS - 1) + [201])
    assert len({answer.json()['launch']['session']['session']
                for answer in answers}) == 1
    assert len(launches(either)) == 1


def test_one_open_launch_for_each_server(either):
    either.policy()
    first = harness.Host(either)
    hosts = [first] + [harness.Host(either, server_id=first.server_id)
                       for _ in range(THREADS - 1)]
    answers = at_once([host.create for host in hosts])
    assert {answer.status_code for answer in answers} == {201}
    found = launches(either)
    assert sorted(status for status, keys, server in found) == (
        ['session_issued'] + ['superseded'] * (THREADS - 1))
    assert [(keys is None, server) for status, keys, server in found
            if status == 'superseded'] == [(True, None)] * (THREADS - 1)


def test_one_default_policy(either):
    bodies = [either.policy_body(name=f'policy {number}', secrets=[])
              for number in range(THREADS)]
    answers = at_once([
        lambda api=either.member(), body=body: api.post(
            '/v1/policies', json={'policy': body})
        for body in bodies])
    assert sorted(answer.status_code for answer in answers) == (
        [201] + [409] * (THREADS - 1))


def test_one_of_several_changes(either):
    policy = either.policy()
    path = f'/v1/policies/{policy["id"]}'
    tag = either.member().get(path).headers['ETag']
    answers = at_once([
        lambda api=either.member(), number=number: api.patch(
            path, headers={'If-Match': tag},
            json={'policy': {'name': f'name {number}'}})
        for number in range(THREADS)])
    assert sorted(answer.status_code for answer in answers) == (
        [200] + [412] * (THREADS - 1))
    assert either.member().get(path).json()['policy']['revision'] == 2


def test_same_firmware(either):
    results = at_once([either.upload] * THREADS)
    assert len(set(results)) == 1
    found = either.member().get('/v1/firmwares').json()['firmwares']
    assert len(found) == 1
