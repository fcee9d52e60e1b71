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

"""The Barbican store, asked about everything that a secret there can be."""

import time
import uuid

import pytest

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice.stores import barbican
from nova_sev_attest.keyservice.stores import base
from tests.functional.keyservice import fakes
from tests.unit.keyservice.stores import contract

_CONFIG = """
[secret_store]
max_secret_size = {size}
deadline = 1
[barbican]
auth_type = password
auth_url = {keystone}/v3
username = attestation
password = service-password
project_name = service
user_domain_name = Default
project_domain_name = Default
timeout = 0.5
"""


@pytest.fixture
def store(cloud, tmp_path):
    path = tmp_path / 'barbican.conf'
    path.write_text(_CONFIG.format(keystone=cloud.keystone.url,
                                   size=contract.MAX_SIZE))
    return barbican.BarbicanStore(
        conf_keyservice.load(config_files=[str(path)]))


@pytest.fixture
def put(cloud):
    def add(payload, project, readers=(fakes.Cloud.SERVICE_USER,)):
        return cloud.barbican.add(payload, project, readers)

    return add


@pytest.fixture
def who(cloud):
    def caller(project, user=None, roles=('member',)):
        return contract.caller(project, cloud.token(fakes.Identity(
            user or f'user-of-{project}', project, roles)))

    return caller


class TestContract(contract.StoreContract):
    """What every store does."""


class TestAcl:

    def test_not_granted_to_the_service(self, store, put, who):
        secret_id = put(b'x', 'p', readers=())
        store.check_readable(secret_id, who('p'))
        with pytest.raises(base.SecretUnavailable, match='403'):
            store.fetch(secret_id, 'p')

    def test_granted_to_the_service_only(self, store, put, who):
        """What the service may read, it reads for nobody."""
        secret_id = put(b'x', 'q')
        assert store.fetch(secret_id, 'q') == b'x'
        with pytest.raises(base.SecretUnavailable, match='403'):
            store.check_readable(secret_id, who('p'))

    def test_granted_to_a_user_of_another_project(self, store, put, who):
        secret_id = put(b'x', 'q', readers=('guest',))
        store.check_readable(secret_id, who('p', user='guest'))

    def test_a_role_that_may_not_decrypt(self, store, put, who):
        with pytest.raises(base.SecretUnavailable, match='403'):
            store.check_readable(put(b'x', 'p'), who('p', roles=('reader',)))

    @pytest.mark.parametrize('token', ['', 'unheard-of'])
    def test_a_token_that_is_not_valid(self, store, put, cloud, token):
        caller = contract.caller('p', token)
        with pytest.raises(base.SecretUnavailable, match='token'):
            store.check_readable(put(b'x', 'p'), caller)
        # The service's own credential did not step in for it.
        assert len(cloud.barbican.requests) == 1

    def test_grants_are_withdrawn(self, store, put, cloud):
        secret_id = put(b'x', 'p')
        store.fetch(secret_id, 'p')
        cloud.barbican.secrets[secret_id].readers.clear()
        with pytest.raises(base.SecretUnavailable):
            store.fetch(secret_id, 'p')


class TestSecrets:

    def test_expired_or_deleted(self, store, put, cloud, who):
        """Barbican answers 404 for both."""
        secret_id = put(b'x', 'p')
        del cloud.barbican.secrets[secret_id]
        for call in (lambda: store.fetch(secret_id, 'p'),
                     lambda: store.check_readable(secret_id, who('p'))):
            with pytest.raises(base.SecretUnavailable, match='404'):
                call()

    @pytest.mark.parametrize('status', [406, 405, 400, 409])
    def test_without_such_a_payload(self, store, cloud, put, status):
        """A secret of text, a container, one whose payload never came."""
        cloud.barbican.misbehave = fakes.answer(status, {'title': 'plain'})
        with pytest.raises(base.StoreError, match=str(status)) as caught:
            store.fetch(put(b'x', 'p'), 'p')
        assert 'plain' not in str(caught.value)

    @pytest.mark.parametrize('media_type', [
        'text/plain', 'application/json', '', 'application/octet-stream+x'])
    def test_of_another_type(self, store, cloud, put, media_type):
        cloud.barbican.misbehave = fakes.answer(200, b'plain', media_type)
        with pytest.raises(base.StoreUnavailable,
                           match='octet-stream') as caught:
            store.fetch(put(b'x', 'p'), 'p')
        assert 'b\'plain' not in str(caught.value)

    def test_empty(self, store, put):
        with pytest.raises(base.SecretEmpty):
            store.fetch(put(b'', 'p'), 'p')

    def test_consumers_are_left_alone(self, store, put, cloud, who):
        """Only payloads are asked for; consumers and metadata never."""
        secret_id = put(b'x', 'p')
        store.check_readable(secret_id, who('p'))
        store.fetch(secret_id, 'p')
        assert cloud.barbican.requests == [
            ('GET', f'/v1/secrets/{secret_id}/payload')] * 2


def silent(handler):
    """No answer for longer than anybody waits."""
    time.sleep(2)
    handler.close_connection = True


class TestFaults:

    @pytest.mark.parametrize('misbehave', [
        fakes.answer(500, b'plain'), fakes.answer(502, b'plain'),
        fakes.answer(503, b'plain'), fakes.answer(429, b'plain'),
        fakes.answer(401, b'plain'), fakes.answer(300, b'plain'),
        fakes.answer(204, b''), fakes.hang_up, fakes.cut, fakes.trickle,
        silent])
    def test_unavailable(self, store, cloud, put, misbehave):
        secret_id = put(b'payload', 'p')
        cloud.barbican.misbehave = misbehave
        started = time.monotonic()
        with pytest.raises(base.StoreUnavailable) as caught:
            store.fetch(secret_id, 'p')
        assert time.monotonic() - started < 2.5
        assert 'plain' not in str(caught.value)
        cloud.barbican.misbehave = None
        assert store.fetch(secret_id, 'p') == b'payload'

    def test_an_endless_payload(self, store, cloud, put):
        cloud.barbican.misbehave = fakes.flood
        with pytest.raises(base.SecretTooLarge):
            store.fetch(put(b'x', 'p'), 'p')

    def test_a_redirection_is_not_followed(self, store, cloud, put):
        elsewhere = fakes.Vault()
        try:
            cloud.barbican.misbehave = fakes.answer(302, b'', headers=[
                ('Location', elsewhere.url + '/')])
            with pytest.raises(base.StoreUnavailable, match='302'):
                store.fetch(put(b'x', 'p'), 'p')
            assert elsewhere.requests == []
        finally:
            elsewhere.stop()

    def test_keystone_away(self, store, cloud, put):
        cloud.keystone.misbehave = fakes.hang_up
        with pytest.raises(base.StoreUnavailable):
            store.fetch(str(uuid.uuid4()), 'p')
