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

"""No secret is found where it must not be."""

import base64
import hashlib
import io
import json
import logging
import struct

import prometheus_client
import pytest
import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice import notifications
from nova_sev_attest.keyservice import sealing
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness


@pytest.fixture
def logged():
    """Everything that is logged from here on, at DEBUG, by anyone."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter('%(name)s %(message)s'))
    logger = logging.getLogger()
    levels = {logger: logger.level}
    for name in list(logger.manager.loggerDict):
        found = logging.getLogger(name)
        levels[found] = found.level
        found.setLevel(logging.NOTSET)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield stream.getvalue
    logger.removeHandler(handler)
    for found, level in levels.items():
        found.setLevel(level)


@pytest.fixture
def told(keyservice):
    """All payloads of notifications and all metrics, as bytes."""
    payloads = []
    service = keyservice.service

    def listen(event, record, head):
        payloads.append(json.dumps(
            [event.name, notifications.payload(event, record, head)]))

    before = service.journal._listeners
    service.journal._listeners = (*before, listen)
    yield lambda: '\n'.join(payloads).encode() + (
        prometheus_client.generate_latest(service.metrics.registry))
    service.journal._listeners = before


def forms(secret):
    """How bytes may look in a text or a column."""
    yield secret
    yield secret.hex().encode()
    yield base64.b64encode(secret).rstrip(b'=')
    yield repr(secret)[2:-1].encode()
    yield secret[::-1].hex().encode()
    for order in '<>':
        yield str(struct.unpack(f'{order}{len(secret) // 4}I',
                                secret[:len(secret) // 4 * 4])).encode()


def assert_absent(haystack, *secrets):
    for secret in secrets:
        for form in forms(secret):
            assert form not in haystack


def rows(keyservice):
    """All that is in the database, as bytes."""
    found = []
    with keyservice.service.database.engine.connect() as connection:
        for table in models.Base.metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                for value in row:
                    found.append(value if isinstance(value, bytes)
                                 else str(value).encode())
    assert found
    return b'\n'.join(found)


def files(keyservice):
    """The database as it lies on the disk."""
    return b''.join(path.read_bytes() for path
                    in keyservice.directory.glob('keyservice.sqlite*'))


def test_whole_launch(keyservice, logged):
    keyservice.policy()
    host = harness.Host(keyservice)
    host.launch()
    secrets = (harness.PASSPHRASE, host.guest.tek, host.guest.tik)
    token = host.token.encode()
    assert_absent(rows(keyservice), *secrets, token)
    assert_absent(files(keyservice), *secrets, token)

    evidence = host.measure()
    # Errors on the way are looked at as well.
    for misbehave in (fakes.cut, fakes.answer(
            500, harness.PASSPHRASE, 'application/json'),
            fakes.answer(200, harness.PASSPHRASE, 'application/json')):
        keyservice.cloud.barbican.misbehave = misbehave
        answer = host.send(evidence)
        assert answer.status_code == 503
        assert_absent(answer.content, *secrets)
    keyservice.cloud.barbican.misbehave = None
    answer = host.send(evidence, host.claims())
    assert answer.status_code == 200
    assert_absent(answer.content, *secrets)
    host.outcome('running')
    assert_absent(rows(keyservice), *secrets, token)
    assert_absent(files(keyservice), *secrets, token)

    text = logged()
    for name in ('keystoneauth', 'urllib3', 'keystonemiddleware',
                 'nova_sev_attest', 'oslo_policy'):
        assert name in text, f'{name} logged nothing at DEBUG'
    assert 'verified' in text
    assert_absent(text.encode(), *secrets, token)
    for user_token in keyservice.cloud.tokens:
        assert user_token not in text
    assert 'service-password' not in text
    key_file, = (keyservice.directory / 'sealing-keys').glob('*.key')
    key = bytes.fromhex(key_file.read_text())
    assert_absent(text.encode(), key)
    assert_absent(rows(keyservice), key)


def test_what_is_told(keyservice, told):
    """Notifications and metrics of launches, of policies and their ends."""
    policy = keyservice.policy()
    released, denied = harness.Host(keyservice), harness.Host(keyservice)
    tokens = set()
    for host in (released, denied):
        host.launch()
        tokens.add(host.token.encode())
    assert released.send(released.measure()).status_code == 200
    assert denied.send(denied.measure(initrd=bytes(32)),
                       denied.claims()).status_code == 403
    released.outcome('running')
    keyservice.member().delete(f'/v1/policies/{policy["id"]}',
                               headers={'If-Match': '"1"'})
    text = told()
    for name in ('session_issued', 'released', 'denied', 'running'):
        assert f'"launch.{name}"'.encode() in text
    assert_absent(text, harness.PASSPHRASE, *tokens, *(
        key for host in (released, denied)
        for key in (host.guest.tek, host.guest.tik)))
    for token in keyservice.cloud.tokens:
        assert token.encode() not in text


def test_denied_launch(keyservice, logged):
    keyservice.policy()
    host = harness.Host(keyservice)
    host.launch()
    answer = host.send(host.measure(initrd=bytes(32)), host.claims())
    assert answer.status_code == 403
    assert_absent(rows(keyservice), host.guest.tek, host.guest.tik)
    assert_absent(logged().encode(), host.guest.tek, host.guest.tik)


def test_sealed_keys_are_bound_to_their_launch(keyservice):
    """A row's sealed keys, copied over another's, open nothing."""
    keyservice.policy()
    first, second = harness.Host(keyservice), harness.Host(keyservice)
    first.launch()
    second.launch()
    with keyservice.service.database.writer() as session:
        stolen = session.get(models.Launch, first.id)
        target = session.get(models.Launch, second.id)
        target.sealed_keys = stolen.sealed_keys
    harness.error(second.send(second.measure()), 503, 'sealing_key_missing')
    assert first.send(first.measure()).status_code == 200


def test_what_is_sealed_are_the_keys(keyservice):
    keyservice.policy()
    host = harness.Host(keyservice)
    host.launch()
    with keyservice.service.database.reader() as session:
        row = session.get(models.Launch, host.id)
        bound_to = sealing.associated_data(row.id, row.server_id,
                                           row.project_id)
        opened = sealing.KeyRepository(
            keyservice.conf.sealing.key_repository).open(
            row.sealing_key_id, row.sealed_keys, bound_to)
        assert row.token_hash == hashlib.sha256(
            host.token.encode()).digest()
    assert opened == host.guest.tek + host.guest.tik
