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

"""castellan's own Vault driver against Vault's API on loopback."""

import gzip
import logging
import secrets
import threading
import time
import uuid

import pytest

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice import stores
from nova_sev_attest.keyservice.stores import base
from nova_sev_attest.keyservice.stores import castellan
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.unit.keyservice.stores import contract

_CONFIG = """
[secret_store]
driver = castellan
max_secret_size = {size}
deadline = 1
[vault]
vault_url = {url}
approle_role_id = attestation
approle_secret_id = vault-password
kv_path = attestation
timeout = 0.5
"""


@pytest.fixture(scope='module')
def _vault():
    vault = fakes.Vault()
    yield vault
    vault.stop()


@pytest.fixture
def vault(_vault):
    _vault.reset()
    _vault.secrets.clear()
    _vault.vault_tokens.clear()
    return _vault


@pytest.fixture
def config_file(vault, tmp_path):
    path = tmp_path / 'castellan.conf'
    path.write_text(_CONFIG.format(url=vault.url, size=contract.MAX_SIZE))
    return path


@pytest.fixture
def conf(config_file):
    return conf_keyservice.load(config_files=[str(config_file)])


@pytest.fixture
def store(conf):
    return castellan.CastellanStore(conf)


@pytest.fixture
def put(vault):
    def add(payload, project, **changes):
        secret_id = uuid.uuid4()
        vault.add(f'attestation/{project}/{secret_id.hex}', payload,
                  **changes)
        return str(secret_id)

    return add


@pytest.fixture
def who():
    return contract.caller


class TestContract(contract.StoreContract):
    """What every store does."""


class TestProjects:

    @pytest.mark.parametrize('project_id', [
        None, '', '..', '.', 'p/../q', '../q', 'q/', 'q?list=true', 'q#',
        'q%2f', 'q\n', ' q', 'p' * 65, '\u0661'])
    def test_ids_that_could_lead_elsewhere(self, store, put, vault,
                                           project_id):
        secret_id = put(b'x', 'q')
        for call in (
                lambda: store.fetch(secret_id, project_id),
                lambda: store.check_readable(
                    secret_id, contract.caller(project_id))):
            with pytest.raises(base.SecretUnavailable, match='letters'):
                call()
        assert vault.requests == []

    def test_the_same_uuid_in_two_projects(self, store, vault):
        secret_id = uuid.uuid4()
        for project in 'pq':
            vault.add(f'attestation/{project}/{secret_id.hex}',
                      project.encode())
        for project in 'pq':
            assert store.fetch(str(secret_id), project) == project.encode()

    def test_barbican_is_refused(self, conf):
        for backend in ('barbican', 'castellan.key_manager.'
                        'barbican_key_manager.BarbicanKeyManager'):
            conf.register_opts(castellan.key_manager.key_manager_opts,
                               group='key_manager')
            conf.set_override('backend', backend, group='key_manager')
            with pytest.raises(ValueError, match='driver = barbican'):
                castellan.CastellanStore(conf)

    def test_found_by_its_name(self, conf, put):
        secret_id = put(b'payload', 'p')
        assert stores.load(conf).fetch([secret_id], 'p') == {
            secret_id: b'payload'}


class TestKinds:

    @pytest.mark.parametrize('kind', [
        {'type': 'passphrase'},
        {'type': 'symmetric', 'algorithm': 'AES', 'bit_length': 128},
        {'type': 'opaque', 'name': 'luks', 'created': 1700000000}])
    def test_read(self, store, put, kind):
        payload = secrets.token_bytes(16)
        secret_id = put(payload, 'p', **kind)
        assert store.fetch(secret_id, 'p') == payload

    @pytest.mark.parametrize('changes', [
        {'value': 'plain to see'}, {'value': 'abc'}, {'value': None},
        {'value': 7}, {'created': '2026'},
        {'value': {'plain to see': 1}}])
    def test_malformed(self, store, put, changes):
        secret_id = put(b'', 'p', **changes)
        with pytest.raises(base.SecretMalformed,
                           match='hexadecimal') as caught:
            store.fetch(secret_id, 'p')
        assert 'plain' not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    @pytest.mark.parametrize('name', ['type', 'value', 'name', 'created'])
    def test_incomplete(self, store, put, vault, name):
        secret_id = put(b'x', 'p')
        secret, = vault.secrets.values()
        del secret[name]
        with pytest.raises(base.SecretMalformed):
            store.fetch(secret_id, 'p')

    def test_empty(self, store, put):
        secret_id = put(b'', 'p')
        with pytest.raises(base.SecretEmpty):
            store.fetch(secret_id, 'p')


def compressed(handler):
    """A small answer that would become a large one."""
    handler.send(200, gzip.compress(bytes(1 << 26)),
                 headers=[('Content-Encoding', 'gzip')])


def endless(handler):
    """A declared length that would not fit into memory."""
    handler.send_response(200)
    handler.send_header('Content-Type', 'application/json')
    handler.send_header('Content-Length', str(1 << 40))
    handler.end_headers()
    for _ in range(1 << 12):
        try:
            handler.wfile.write(bytes(4096))
        except OSError:
            break
    handler.close_connection = True


def silent(handler):
    """No answer for longer than anybody waits."""
    time.sleep(3)
    handler.close_connection = True


class TestFaults:

    @pytest.mark.parametrize('misbehave', [
        fakes.answer(500, {'errors': ['plain to see']}),
        fakes.answer(503, {'errors': ['Vault is sealed']}),
        fakes.answer(502, b'plain to see', 'text/html'),
        fakes.answer(429, {'errors': ['plain to see']}),
        fakes.answer(473, b''),
        fakes.answer(403, {'errors': ['permission denied']}),
        fakes.answer(400, {'errors': ['plain to see']}),
        fakes.answer(200, b'plain to see'), fakes.answer(200, b''),
        fakes.answer(200, b'[' * 50000), fakes.answer(200, []),
        fakes.answer(200, {'data': None}), fakes.answer(200, {}),
        fakes.answer(204, b''),
        fakes.hang_up, fakes.cut, fakes.trickle, silent, compressed])
    @pytest.mark.parametrize('logged_in', [True, False])
    def test_unavailable(self, vault, conf, put, misbehave, logged_in):
        store = stores.load(conf)
        secret_id = put(b'payload', 'p')
        if logged_in:
            store.fetch([secret_id], 'p')
        vault.misbehave = misbehave
        started = time.monotonic()
        with pytest.raises(base.StoreError) as caught:
            store.fetch([secret_id], 'p')
        assert time.monotonic() - started < 2.5
        assert 'plain' not in str(caught.value)
        assert isinstance(caught.value, (base.StoreUnavailable,
                                         base.SecretMalformed))
        vault.misbehave = None
        assert store.fetch([secret_id], 'p') == {secret_id: b'payload'}

    def test_nobody_listens(self, config_file, vault):
        gone = fakes.Vault()
        gone.stop()
        config_file.write_text(config_file.read_text().replace(
            vault.url, gone.url))
        store = castellan.CastellanStore(conf_keyservice.load(
            config_files=[str(config_file)]))
        with pytest.raises(base.StoreUnavailable, match='cannot be asked'):
            store.fetch(str(uuid.uuid4()), 'p')

    def test_wrong_credential(self, config_file, put):
        config_file.write_text(config_file.read_text().replace(
            'vault-password', 'mistaken'))
        store = castellan.CastellanStore(conf_keyservice.load(
            config_files=[str(config_file)]))
        with pytest.raises(base.StoreUnavailable) as caught:
            store.fetch(put(b'payload', 'p'), 'p')
        assert 'mistaken' not in str(caught.value)

    @pytest.mark.parametrize('misbehave', [endless, fakes.flood])
    def test_more_than_any_secret_is_not_read(self, vault, store, put,
                                              misbehave):
        secret_id = put(b'payload', 'p')
        store.fetch(secret_id, 'p')
        vault.misbehave = misbehave
        with pytest.raises(base.SecretTooLarge):
            store.fetch(secret_id, 'p')

    def test_a_redirection_is_not_followed(self, vault, store, put):
        """It would get the token."""
        elsewhere = fakes.Vault()
        try:
            secret_id = put(b'payload', 'p')
            store.fetch(secret_id, 'p')
            vault.misbehave = fakes.answer(307, b'', headers=[
                ('Location', elsewhere.url + '/v1/secret/data/x')])
            with pytest.raises(base.StoreUnavailable):
                store.fetch(secret_id, 'p')
            assert elsewhere.requests == []
        finally:
            elsewhere.stop()

    def test_a_revoked_token_is_renewed(self, vault, store, put):
        secret_id = put(b'payload', 'p')
        store.fetch(secret_id, 'p')
        vault.vault_tokens.clear()
        assert store.fetch(secret_id, 'p') == b'payload'
        logins = [path for method, path in vault.requests
                  if path.endswith('/login')]
        assert len(logins) == 2

    def test_threads_left_behind_end(self, vault, conf, put):
        """A Vault that trickles costs no thread for long."""
        store = stores.load(conf)
        secret_id = put(b'payload', 'p')
        vault.misbehave = fakes.trickle
        for _ in range(3):
            with pytest.raises(base.StoreUnavailable):
                store.fetch([secret_id], 'p')
        for thread in threading.enumerate():
            if thread.name == 'secret-store':
                thread.join(10)
                assert not thread.is_alive()


@pytest.fixture
def service(cloud, config_file, tmp_path):
    """A whole key service with this store."""
    made = harness.KeyService(
        cloud, tmp_path, trust=config_file.read_text())
    yield made
    made.stop()


class TestService:

    def test_whole_launch(self, service, put, caplog):
        caplog.set_level(logging.DEBUG)
        secret_id = put(harness.PASSPHRASE, 'p')
        service.policy(secrets=[{'guid': harness.LUKS_GUID,
                                 'secret_ref': secret_id}])
        host = harness.Host(service)
        host.launch()
        evidence = host.measure()
        answer = host.send(evidence)
        assert answer.status_code == 200
        assert harness.PASSPHRASE in host.inject(
            answer.json()['release'], evidence).values()
        assert service.cloud.barbican.requests == []
        for form in (harness.PASSPHRASE.decode(), harness.PASSPHRASE.hex(),
                     'vault-password'):
            assert form not in caplog.text

    def test_no_confused_deputy(self, service, put):
        """The service can read q's secret; p cannot make it do so."""
        secret_id = put(b'of q', 'q')
        body = service.policy_body(secrets=[{
            'guid': harness.LUKS_GUID, 'secret_ref': secret_id}])
        for reference in (secret_id, f'q/secrets/{secret_id}',
                          f'http://vault/v1/secrets/{secret_id}'):
            body['secrets'][0]['secret_ref'] = reference
            harness.error(service.member().post(
                '/v1/policies', json={'policy': body}),
                403, 'secret_forbidden')
        body['secrets'][0]['secret_ref'] = f'../q/{secret_id}'
        harness.error(service.member().post(
            '/v1/policies', json={'policy': body}),
            400, 'secret_ref_malformed')

    def test_malformed(self, service, put):
        body = service.policy_body(secrets=[{
            'guid': harness.LUKS_GUID,
            'secret_ref': put(b'', 'p', value='plain to see')}])
        answer = service.member().post('/v1/policies', json={'policy': body})
        assert 'plain' not in harness.error(answer, 400, 'secret_malformed')

    def test_sealed_and_back(self, service, put, vault):
        secret_id = put(harness.PASSPHRASE, 'p')
        service.policy(secrets=[{'guid': harness.LUKS_GUID,
                                 'secret_ref': secret_id}])
        host = harness.Host(service)
        host.launch()
        evidence = host.measure()
        vault.misbehave = fakes.answer(503, {'errors': ['sealed']})
        harness.error(host.send(evidence), 503, 'secret_store_unavailable')
        assert host.show()['status'] == 'session_issued'
        vault.misbehave = None
        assert host.send(evidence).status_code == 200
