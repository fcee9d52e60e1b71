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

"""What every secret store has to do; its own tests derive from this."""

import concurrent.futures
import types
import uuid

import pytest

from nova_sev_attest.keyservice.stores import base
from nova_sev_attest.keyservice.stores import reader

MAX_SIZE = 8192


def caller(project_id, auth_token=None):
    """As much of a RequestContext as stores may use."""
    return types.SimpleNamespace(project_id=project_id,
                                 auth_token=auth_token)


class StoreContract:
    """Tests of a store that holds a secret of the project that owns it.

    A derived class has the fixtures store (a SecretStore that reads secrets
    of at most MAX_SIZE bytes); put, a function of payload and project that
    returns the new secret's UUID, readable to that project and the service;
    and who, a function of a project that returns its caller.
    """

    @pytest.mark.parametrize('payload', [
        b'x', bytes(range(256)), b'\x00' * 32, b'\xff' * MAX_SIZE,
        'p\u00e4ssphrase\n'.encode()])
    def test_bytes_come_as_they_were(self, store, put, who, payload):
        secret_id = put(payload, 'p')
        store.check_readable(secret_id, who('p'))
        assert store.fetch(secret_id, 'p') == payload

    def test_unknown(self, store, who):
        secret_id = str(uuid.uuid4())
        with pytest.raises(base.SecretUnavailable):
            store.check_readable(secret_id, who('p'))
        with pytest.raises(base.SecretUnavailable):
            store.fetch(secret_id, 'p')

    def test_another_project_may_not_name_it(self, store, put, who):
        secret_id = put(b'of p', 'p')
        with pytest.raises(base.SecretUnavailable):
            store.check_readable(secret_id, who('q'))
        store.check_readable(secret_id, who('p'))

    @pytest.mark.parametrize('size', [MAX_SIZE + 1, 4 * MAX_SIZE, 1 << 20])
    def test_too_large(self, store, put, who, size):
        secret_id = put(bytes(size), 'p')
        with pytest.raises(base.SecretTooLarge, match=str(MAX_SIZE)):
            store.check_readable(secret_id, who('p'))
        with pytest.raises(base.SecretTooLarge, match=str(MAX_SIZE)):
            store.fetch(secret_id, 'p')

    def test_several_threads_at_once(self, store, put):
        payloads = {put(b'%d' % n, 'p'): b'%d' % n for n in range(8)}
        with concurrent.futures.ThreadPoolExecutor(8) as executor:
            found = executor.map(lambda secret_id: store.fetch(
                secret_id, 'p'), payloads)
        assert list(found) == list(payloads.values())

    def test_no_secret_in_logs_and_reprs(self, store, put, who, caplog):
        caplog.set_level(0)
        payload = b'plain to see in every form'
        secret_id = put(payload, 'p')
        store.check_readable(secret_id, who('p'))
        store.fetch(secret_id, 'p')
        seen = caplog.text + repr(store)
        assert secret_id in seen
        assert payload.decode() not in seen and payload.hex() not in seen

    def test_behind_the_reader(self, store, put):
        secret_id = put(b'payload', 'p')
        bounded = reader.SecretReader(store, types.SimpleNamespace(
            deadline=10, max_secret_size=MAX_SIZE, max_calls=2))
        assert bounded.fetch([secret_id], 'p') == {secret_id: b'payload'}
