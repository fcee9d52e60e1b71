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

"""The castellan store against OpenBao, the free continuation of Vault."""

import contextlib
import json
import os
import pathlib
import secrets
import subprocess
import sys
import time
import uuid

import pytest
import requests

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice.stores import base
from nova_sev_attest.keyservice.stores import castellan
from tests.functional.keyservice import test_wsgi
from tests.unit.keyservice.stores import contract

_BAO = pathlib.Path(sys.executable).with_name('bao')

_CONFIG = """
[secret_store]
driver = castellan
max_secret_size = {size}
deadline = 5
[vault]
vault_url = {url}
approle_role_id = {role_id}
approle_secret_id = {secret_id}
kv_path = attestation
"""
# What the service may, and what the people of one project.
_SERVICE = 'path "secret/data/attestation/*" {capabilities = ["read"]}'
_PROJECT = '''path "secret/data/attestation/p/*" {
    capabilities = ["create", "update"]}'''


class Bao:
    """A server in memory, and its command line."""

    def __init__(self, folder):
        port = test_wsgi.free_port()
        self.url = f'http://127.0.0.1:{port}'
        self._root = secrets.token_hex(16)
        self._log = (folder / 'bao.log').open('wb')
        self._process = subprocess.Popen(
            [_BAO, 'server', '-dev', '-dev-no-store-token',
             f'-dev-listen-address=127.0.0.1:{port}'],
            stdout=self._log, stderr=subprocess.STDOUT, cwd=folder,
            env=os.environ | {'BAO_DEV_ROOT_TOKEN_ID': self._root,
                              'HOME': str(folder)})
        for _ in range(300):
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(self.url + '/v1/sys/health',
                                timeout=5).status_code == 200:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        self.stop()
        raise AssertionError((folder / 'bao.log').read_text())

    def __call__(self, *args, stdin=None, token=None):
        """Run bao; returns its output as parsed JSON, or text."""
        done = subprocess.run(
            [_BAO, *args], input=stdin, text=True, timeout=60,
            capture_output=True, env=os.environ | {
                'BAO_ADDR': self.url, 'BAO_FORMAT': 'json',
                'BAO_TOKEN': token or self._root})
        if done.returncode:
            raise PermissionError(done.stderr)
        with contextlib.suppress(ValueError):
            return json.loads(done.stdout)
        return done.stdout

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            self._log.close()


@pytest.fixture
def bao(tmp_path):
    assert _BAO.exists(), 'tests/openbao/requirements.txt is not installed'
    found = Bao(tmp_path)
    try:
        found('policy', 'write', 'attestation', '-', stdin=_SERVICE)
        found('policy', 'write', 'people-of-p', '-', stdin=_PROJECT)
        found('auth', 'enable', 'approle')
        found('write', 'auth/approle/role/attestation',
              'token_policies=attestation', 'token_ttl=1h')
        yield found
    finally:
        found.stop()


@pytest.fixture
def store(bao, tmp_path):
    role = bao('read', 'auth/approle/role/attestation/role-id')
    made = bao('write', '-f', 'auth/approle/role/attestation/secret-id')
    path = tmp_path / 'castellan.conf'
    path.write_text(_CONFIG.format(
        url=bao.url, size=contract.MAX_SIZE,
        role_id=role['data']['role_id'],
        secret_id=made['data']['secret_id']))
    return castellan.CastellanStore(
        conf_keyservice.load(config_files=[str(path)]))


@pytest.fixture
def put(bao):
    def add(payload, project, token=None):
        secret_id = uuid.uuid4()
        bao('kv', 'put', '-mount=secret',
            f'attestation/{project}/{secret_id.hex}', '-', token=token,
            stdin=json.dumps({'type': 'opaque', 'value': payload.hex(),
                              'name': None, 'created': None}))
        return str(secret_id)

    return add


@pytest.fixture
def who():
    return contract.caller


class TestContract(contract.StoreContract):
    """What every store does."""


def test_people_write_to_their_project_only(bao, store, put):
    token = bao('token', 'create', '-policy=people-of-p')['auth'][
        'client_token']
    assert store.fetch(put(b'of p', 'p', token), 'p') == b'of p'
    with pytest.raises(PermissionError):
        put(b'of q', 'q', token)


def test_a_deleted_secret(bao, store, put):
    secret_id = put(b'x', 'p')
    bao('kv', 'delete', '-mount=secret',
        f'attestation/p/{uuid.UUID(secret_id).hex}')
    with pytest.raises(base.SecretUnavailable):
        store.fetch(secret_id, 'p')


def test_revoked_tokens_are_renewed(bao, store, put):
    secret_id = put(b'x', 'p')
    store.fetch(secret_id, 'p')
    bao('token', 'revoke', '-mode=path', 'auth/approle')
    assert store.fetch(secret_id, 'p') == b'x'


def test_not_a_path_of_the_service(bao, store):
    bao('policy', 'write', 'attestation', '-',
        stdin=_SERVICE.replace('attestation', 'elsewhere'))
    try:
        with pytest.raises(base.StoreUnavailable, match='credential'):
            store.fetch(str(uuid.uuid4()), 'p')
    finally:
        bao('policy', 'write', 'attestation', '-', stdin=_SERVICE)


def test_sealed(bao, store, put):
    secret_id = put(b'x', 'p')
    store.fetch(secret_id, 'p')
    bao('operator', 'seal')
    with pytest.raises(base.StoreUnavailable):
        store.fetch(secret_id, 'p')
