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

"""Barbican as the store of secrets.

The owner grants the key service's user read access to a secret by an ACL;
the service then reads its payload with its own credential.
"""

import time

from keystoneauth1 import exceptions as ksa_exc
from oslo_log import log as logging
import requests
import urllib3

from nova_sev_attest.keyservice import clients
from nova_sev_attest.keyservice.stores import base

LOG = logging.getLogger(__name__)

_CHUNK = 4096


class BarbicanStore(base.SecretStore):
    """Secrets of the Barbican that the group [barbican] leads to."""

    def __init__(self, conf):
        self._adapter = clients.adapter(conf, 'barbican')
        self._max_size = conf.secret_store.max_secret_size
        self._deadline = conf.secret_store.deadline

    def check_readable(self, secret_id, context):
        # The payload's answer is what proves the right to decrypt; its
        # metadata is readable to more roles. The body is not read.
        response = self._get(secret_id, authenticated=False,
                             headers={'X-Auth-Token': context.auth_token})
        try:
            self._declared_size(response, secret_id)
        finally:
            response.close()

    def fetch(self, secret_id, project_id):
        # Whose secret it is, the ACL says.
        give_up_at = time.monotonic() + self._deadline
        response = self._get(secret_id)
        try:
            self._declared_size(response, secret_id)
            payload = self._read(response, secret_id, give_up_at)
        finally:
            response.close()
        LOG.info('Secret %(id)s was read from Barbican.', {'id': secret_id})
        return payload

    def _endpoint(self):
        endpoint = self._adapter.get_endpoint()
        if not endpoint:
            raise base.StoreUnavailable(
                'the catalog has no endpoint of Barbican')
        endpoint = endpoint.rstrip('/')
        return endpoint if endpoint.endswith('/v1') else endpoint + '/v1'

    def _get(self, secret_id, authenticated=None, headers=None):
        try:
            # log=False: keystoneauth would read the body to log it.
            response = self._adapter.get(
                f'{self._endpoint()}/secrets/{secret_id}/payload',
                headers={'Accept': 'application/octet-stream',
                         'Accept-Encoding': 'identity', **(headers or {})},
                authenticated=authenticated, raise_exc=False,
                redirect=False, stream=True, log=False)
        except ksa_exc.ClientException as exc:
            raise base.StoreUnavailable(
                f'Barbican cannot be asked: {type(exc).__name__}') from exc
        if response.status_code == 200:
            return response
        response.close()
        if response.status_code in (403, 404):
            raise base.SecretUnavailable(
                f'Barbican answers {response.status_code} for secret '
                f'{secret_id}')
        if response.status_code == 401 and authenticated is False:
            raise base.SecretUnavailable(
                f'Barbican does not accept the caller\'s token for secret '
                f'{secret_id}')
        raise base.StoreUnavailable(
            f'Barbican answers {response.status_code} for secret '
            f'{secret_id}')

    def _declared_size(self, response, secret_id):
        media_type = response.headers.get('Content-Type', '')
        encoding = response.headers.get('Content-Encoding', 'identity')
        if (media_type.partition(';')[0].strip().lower()
                != 'application/octet-stream' or encoding != 'identity'):
            raise base.StoreUnavailable(
                f'expected application/octet-stream of Barbican for secret '
                f'{secret_id}, got type {media_type[:64]!r}, encoding '
                f'{encoding[:64]!r}')
        length = response.headers.get('Content-Length', '')
        if length.isascii() and length.isdigit():
            self._check_size(int(length), secret_id)
            return int(length)
        return None

    def _check_size(self, size, secret_id):
        if size > self._max_size:
            raise base.SecretTooLarge(
                f'secret {secret_id} is larger than {self._max_size} bytes')
        if size == 0:
            raise base.SecretEmpty(f'secret {secret_id} is empty')

    def _read(self, response, secret_id, give_up_at):
        payload = bytearray()
        expected = self._declared_size(response, secret_id)
        try:
            while True:
                # One system call at a time, so that a peer that sends byte
                # by byte meets the deadline as well.
                chunk = response.raw.read1(_CHUNK)
                if not chunk:
                    break
                payload += chunk
                if len(payload) > self._max_size:
                    self._check_size(len(payload), secret_id)
                if time.monotonic() > give_up_at:
                    raise base.StoreUnavailable(
                        f'Barbican took longer than {self._deadline} s for '
                        f'secret {secret_id}')
        except (OSError, requests.RequestException,
                urllib3.exceptions.HTTPError) as exc:
            raise base.StoreUnavailable(
                f'Barbican\'s answer for secret {secret_id} broke off: '
                f'{type(exc).__name__}') from exc
        if expected is not None and len(payload) != expected:
            raise base.StoreUnavailable(
                f'Barbican sent {len(payload)} of {expected} bytes for '
                f'secret {secret_id}')
        self._check_size(len(payload), secret_id)
        return bytes(payload)
