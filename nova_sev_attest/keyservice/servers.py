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

"""Servers, as Nova's REST API tells; nothing of them is taken from a host."""

import dataclasses
import uuid

from keystoneauth1 import exceptions as ksa_exc

from nova_sev_attest.keyservice import clients
from nova_sev_attest.keyservice import errors

PROPERTY = 'attestation_policy'

# Old enough for every release that launches SEV guests.
_MICROVERSION = '2.59'
_HOST = 'OS-EXT-SRV-ATTR:host'
_STATE = 'OS-EXT-STS:vm_state'
_TASK = 'OS-EXT-STS:task_state'
# Migrations during which the destination may launch the server already.
_IN_PROGRESS = frozenset((
    'accepted', 'queued', 'preparing', 'running', 'pre-migrating',
    'migrating', 'post-migrating', 'reverting'))


@dataclasses.dataclass(frozen=True)
class Server:
    """What a launch needs to know of a server.

    :ivar policy: value of the server's property attestation_policy, or None
    :ivar in_rescue: whether a boot of it is a rescue, as far as Nova says
    """

    id: str
    project_id: str
    host: str | None
    policy: str | None
    in_rescue: bool = False


def _unusable(what):
    return errors.Unavailable(
        'compute_unavailable',
        f'Nova\'s answer cannot be used: {what}. See the log of the key '
        f'service.')


def _is_in_rescue(server):
    task = server.get(_TASK)
    return task == 'rescuing' or (
        server.get(_STATE) == 'rescued' and task != 'unrescuing')


class ServerReader:
    """Reads servers with the service's own credential (group [nova])."""

    def __init__(self, conf):
        self._adapter = clients.adapter(
            conf, 'nova', default_microversion=_MICROVERSION)

    def get(self, server_id):
        """Read a server.

        :raises NotFound: Nova has no such server
        :raises Unavailable: Nova cannot be asked, or shows too little
        """
        answer = self._get(f'/servers/{uuid.UUID(server_id)}',
                           f'server {server_id}')
        try:
            server = answer['server']
            found, project = server['id'], server['tenant_id']
            metadata = server['metadata']
        except (KeyError, TypeError):
            raise _unusable('not a server') from None
        if (found != server_id or not isinstance(project, str)
                or not isinstance(metadata, dict)):
            raise _unusable('not the server that was asked for')
        if _HOST not in server:
            raise _unusable(
                f'the server lacks {_HOST}; the user of the group [nova] '
                f'needs a role that Nova shows it to (admin)')
        host = server[_HOST]
        policy = metadata.get(PROPERTY)
        return Server(id=found, project_id=project,
                      host=host if isinstance(host, str) else None,
                      policy=policy if isinstance(policy, str) else None,
                      in_rescue=_is_in_rescue(server))

    def is_on(self, server, host):
        """Whether a host has the server now, or is about to.

        About to have it is the destination of a migration, resize or
        evacuation in progress.

        :raises Unavailable: Nova cannot be asked
        """
        if server.host == host:
            return True
        answer = self._get(
            f'/os-migrations?instance_uuid={server.id}',
            f'server {server.id}')
        try:
            return any(
                migration['dest_compute'] == host
                and migration['status'] in _IN_PROGRESS
                and migration['instance_uuid'] == server.id
                for migration in answer['migrations'])
        except (KeyError, TypeError):
            raise _unusable('not a list of migrations') from None

    def aggregates_of(self, host):
        """Names of the host aggregates that a compute host is in, a set.

        :raises Unavailable: Nova cannot be asked
        """
        answer = self._get('/os-aggregates', f'the aggregates of {host}')
        try:
            return {aggregate['name'] for aggregate in answer['aggregates']
                    if host in aggregate['hosts']}
        except (KeyError, TypeError):
            raise _unusable('not a list of aggregates') from None

    def _get(self, path, what):
        try:
            response = self._adapter.get(path, raise_exc=False,
                                         redirect=False)
        except ksa_exc.ClientException as exc:
            raise errors.Unavailable(
                'compute_unavailable',
                f'Nova cannot be asked for {what}: '
                f'{type(exc).__name__}.') from exc
        if response.status_code == 404:
            raise errors.NotFound('server_not_found',
                                  f'Nova has no {what}.')
        if response.status_code != 200:
            raise errors.Unavailable(
                'compute_unavailable',
                f'Nova answers {response.status_code} for {what}; the user '
                f'of the group [nova] needs a role that may see servers of '
                f'all projects and host aggregates.')
        try:
            return response.json()
        except ValueError:
            raise _unusable('not JSON') from None
