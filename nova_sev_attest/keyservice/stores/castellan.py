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

"""Vault, and what else castellan leads to, as the store of secrets.

castellan reads with the service's own credential whoever asks, and its Vault
driver has no ACL by which an owner could grant a secret to the service: that
it can be read proves nothing about the caller. So a secret belongs to a
project by where it lies. Its name in the backend is the project's id, a slash
and the UUID's 32 hexadecimal digits, which is how castellan itself names what
it stores; the project is the one that keystone confirmed, never one that a
request names. A project can name no other project's secret, because it can
say no other folder. Who may write into which folder is the backend's matter.
"""

import io
import re
import time
import uuid

from castellan.common import exception
from castellan import key_manager
from castellan import options
from oslo_log import log as logging
import requests
from requests import adapters
import urllib3

from nova_sev_attest.keyservice.stores import base

LOG = logging.getLogger(__name__)

_PROJECT_ID = re.compile('[0-9A-Za-z_-]{1,64}')
_CHUNK = 4096
# An answer has the secret in hexadecimal, and metadata beside it.
_METADATA_SIZE = 64 * 1024


class CastellanStore(base.SecretStore):
    """Secrets of the backend that [key_manager] backend names.

    :raises ValueError: that is Barbican, whose own store knows of ACLs
    """

    def __init__(self, conf):
        options.set_defaults(conf, backend='vault')
        conf.set_default('timeout', conf.secret_store.deadline,
                         group='vault')
        if 'barbican' in conf.key_manager.backend.lower():
            raise ValueError(
                'The store castellan is not for [key_manager] backend = '
                'barbican. Set [secret_store] driver = barbican, which asks '
                'Barbican with the caller\'s token whether the caller may '
                'read a secret.')
        self._conf = conf
        self._max_size = conf.secret_store.max_secret_size
        self._adapter = _BoundedAdapter(
            2 * self._max_size + _METADATA_SIZE, conf.secret_store.deadline)
        self._manager = self._connect()

    def check_readable(self, secret_id, context):
        # Of the caller, keystone confirmed the project, and oslo.policy that
        # it may write policies there.
        self._read(secret_id, context.project_id, context)

    def fetch(self, secret_id, project_id):
        secret = self._read(secret_id, project_id)
        LOG.info('Secret %(id)s of project %(project)s was read.', {
            'id': secret_id, 'project': project_id})
        return secret

    def _connect(self):
        manager = key_manager.API(self._conf)
        session = getattr(manager, '_session', None)
        if isinstance(session, requests.Session):
            # castellan's Vault driver bounds neither the size of an answer
            # nor its time as a whole, and would follow a redirection with
            # its token.
            for scheme in ('http://', 'https://'):
                session.mount(scheme, self._adapter)
            session.headers['Accept-Encoding'] = 'identity'
            session.max_redirects = 0
        return manager

    def _read(self, secret_id, project_id, context=None):
        name = _name(secret_id, project_id)
        try:
            secret = self._get(name, context).get_encoded()
        except exception.ManagedObjectNotFoundError as failure:
            raise base.SecretUnavailable(
                f'there is no secret {secret_id} of project '
                f'{project_id}') from failure
        except exception.Forbidden as failure:
            raise base.StoreUnavailable(
                f'the backend refuses the service\'s credential for secret '
                f'{secret_id}') from failure
        except exception.CastellanException as failure:
            # Its text may have the backend's words.
            if isinstance(failure.__context__, _TooLarge):
                raise base.SecretTooLarge(
                    f'secret {secret_id} is larger than {self._max_size} '
                    f'bytes') from None
            raise base.StoreUnavailable(
                f'the backend cannot be asked for secret {secret_id}: '
                f'{type(failure).__name__}') from None
        except requests.JSONDecodeError:
            raise base.StoreUnavailable(
                f'the backend\'s answer for secret {secret_id} is not '
                f'JSON') from None
        except (KeyError, TypeError, ValueError) as failure:
            if failure.args == ('data',):
                raise base.StoreUnavailable(
                    f'the backend\'s answer for secret {secret_id} holds no '
                    f'data') from None
            raise base.SecretMalformed(
                f'secret {secret_id} is not as castellan stores secrets: '
                f'expected a type, a value in hexadecimal, a name and a time '
                f'of creation ({type(failure).__name__})') from None
        if not secret:
            raise base.SecretEmpty(f'secret {secret_id} is empty')
        if len(secret) > self._max_size:
            raise base.SecretTooLarge(
                f'secret {secret_id} is larger than {self._max_size} bytes')
        return secret

    def _get(self, name, context):
        try:
            return self._manager.get(context, name)
        except exception.Forbidden:
            # castellan keeps the token of its login, which may have been
            # revoked since. A new manager logs in again.
            self._manager = self._connect()
            return self._manager.get(context, name)


def _name(secret_id, project_id):
    """What a secret of a project is called in the backend.

    :raises SecretUnavailable: a project's id that could lead elsewhere
    """
    if project_id is None or not _PROJECT_ID.fullmatch(project_id):
        raise base.SecretUnavailable(
            f'the id of project {str(project_id)[:64]!r} cannot be part of a '
            f'secret\'s name: expected letters, digits, "-" and "_"')
    return f'{project_id}/{uuid.UUID(secret_id).hex}'


class _TooLarge(requests.RequestException):
    """An answer is longer than any that holds a secret of allowed size."""


class _BoundedAdapter(adapters.HTTPAdapter):
    """Reads answers whole, within bounds.

    :param max_size: of a body, in bytes
    :param seconds: from the first header to the last byte
    """

    def __init__(self, max_size, seconds):
        super().__init__()
        self._max_size = max_size
        self._seconds = seconds

    def send(self, request, stream=False, **kwargs):
        response = super().send(request, stream=True, **kwargs)
        try:
            if response.headers.get(
                    'Content-Encoding', 'identity') != 'identity':
                raise requests.exceptions.ContentDecodingError(
                    'compressed, though not asked to be')
            body = self._body(response.raw)
        except BaseException:
            response.close()
            raise
        response.raw = urllib3.HTTPResponse(
            io.BytesIO(body), headers=response.raw.headers,
            status=response.raw.status, preload_content=False)
        return response

    def _body(self, raw):
        body, give_up_at = bytearray(), time.monotonic() + self._seconds
        while chunk := raw.read1(_CHUNK):
            body += chunk
            if len(body) > self._max_size:
                raise _TooLarge
            if time.monotonic() > give_up_at:
                raise requests.Timeout(
                    f'no whole answer in {self._seconds:g} s')
        return bytes(body)
