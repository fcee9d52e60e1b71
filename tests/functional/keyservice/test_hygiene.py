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
import json
import os
import subprocess
import sys

import prometheus_client
import pytest

from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice import notifications
from nova_sev_attest.keyservice import sealing
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.functional.keyservice import test_wsgi
from tests.functional import ledger


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


def assert_absent(haystack, *secrets):
    found = ledger.Ledger()
    for secret in secrets:
        found.record('a secret', secret)
    assert len(found) == len(secrets)
    found.look('it', haystack)


def files(keyservice):
    """The database as it lies on the disk."""
    return b''.join(path.read_bytes() for path
                    in keyservice.directory.glob('keyservice.sqlite*'))


def test_whole_launch(keyservice, everything_logged):
    keyservice.policy()
    host = harness.Host(keyservice)
    host.launch()
    secrets = (harness.PASSPHRASE, host.guest.tek, host.guest.tik)
    token = host.token.encode()
    assert_absent(harness.stored(keyservice), *secrets, token)
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
    assert_absent(harness.stored(keyservice), *secrets, token)
    assert_absent(files(keyservice), *secrets, token)

    text = everything_logged()
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
    assert_absent(harness.stored(keyservice), key)


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


def test_denied_launch(keyservice, everything_logged):
    keyservice.policy()
    host = harness.Host(keyservice)
    host.launch()
    answer = host.send(host.measure(initrd=bytes(32)), host.claims())
    assert answer.status_code == 403
    assert_absent(harness.stored(keyservice), host.guest.tek, host.guest.tik)
    assert_absent(everything_logged().encode(), host.guest.tek,
                  host.guest.tik)


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


@pytest.mark.parametrize('form', range(13))
@pytest.mark.parametrize('secret', [
    harness.PASSPHRASE, bytes(range(200, 232)), b'quoted "\\" \n\x00text',
    bytes.fromhex('fb11ff22ee33dd44cc55bb66aa77')])
def test_every_form_is_found(secret, form):
    found = ledger.Ledger()
    found.record('the secret', secret)
    planted = list(ledger.forms(secret))[form % len(
        list(ledger.forms(secret)))]
    for around in (b'', b'x', b'some text before it '):
        with pytest.raises(ledger.Leak) as caught:
            found.look('it', around + planted + around)
        assert 'it holds the secret' == str(caught.value)
    found.look('it', planted[1:-1] + b'?')


@pytest.mark.parametrize('length', range(12, 40))
@pytest.mark.parametrize('shift', range(3))
def test_base64_within_something_larger(length, shift):
    secret = hashlib.sha512(bytes([length])).digest()[:length]
    found = ledger.Ledger()
    found.record('the secret', secret)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(b'before'[:3 + shift] + secret + b'behind it')
        with pytest.raises(ledger.Leak):
            found.look('it', b'{"data": "' + text + b'"}')


PLANTED = ('log', 'answer', 'column', 'deleted_row', 'notification',
           'logged_tik', 'stored_sealing_key', 'logged_token')


@pytest.mark.parametrize('name', PLANTED)
def test_a_planted_leak_is_found(name):
    """planted.py's tests pass but for what is searched after them."""
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
         f'tests/functional/keyservice/planted.py::test_{name}'],
        cwd=test_wsgi.ROOT, timeout=300, capture_output=True, text=True,
        env=os.environ | {'PYTEST_ADDOPTS': ''})
    assert done.returncode == 1, done.stdout
    assert 'ledger.Leak:' in done.stdout
    assert harness.PASSPHRASE.decode() not in done.stdout.partition(
        'short test summary')[2]


def test_nothing_planted_nothing_found():
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
         'tests/functional/keyservice/planted.py::test_nothing'],
        cwd=test_wsgi.ROOT, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
