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

"""What a launch that verified gets."""

import uuid

from oslo_log import log as logging

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.engine import details
from nova_sev_attest.keyservice.engine import limiting
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice import limits
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.keyservice.objects import policies
from nova_sev_attest.keyservice.stores import base as store_base
from nova_sev_attest.launch import errors as launch_errors

LOG = logging.getLogger(__name__)


class _NotInForce(Exception):
    """The policy does not let the transaction release."""


class Releasing:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts
        self._limiting = limiting.Limiting(parts)

    def pack(self, launch, passed, **values):
        """Release the policy's secrets to a launch that verified.

        :param launch: Launch whose evidence it was
        :param passed: Passed, of engine/verifying.py
        :param values: decided_by, where the owner approved
        :returns: as release()
        :raises Denied: the launch is to be closed
        :raises Unavailable: the secrets cannot be fetched now
        """
        self._limiting.hold(launch, passed.policy, passed.read_at)
        content = passed.policy.content
        secrets = self._fetch(content, launch.project_id)
        try:
            released = passed.verified.release(secrets, passed.area)
        except launch_errors.SecretTooLarge as exc:
            raise errors.Denied('secret_too_large', str(exc)) from exc
        packet = released.packet and launches.Release(
            released.packet.header, released.packet.data, released.gpa)
        return self.release(
            launch, content, packet, verdict=released.claims,
            secrets=sorted(content.secrets.values()), **values)

    def release(self, launch, content, packet, secrets=None, **values):
        """Release a packet to a launch, once.

        :param content: Content of its policy
        :param packet: Release, None when the guest gets no secret
        :param secrets: ids of what is in it, None where the owner packed it
        :param values: verdict, release_fingerprint, decided_by
        :returns: the Launch as it is released, None when another request
            released or closed it
        :raises Denied: the policy was withdrawn, or its releases were used
            up, at this very moment
        """
        try:
            return self._release(launch, content, packet, secrets, values)
        except _NotInForce:
            self._limiting.check(launch)
            # Restored in the meantime.
            return None

    @db_api.retried
    def _release(self, launch, content, packet, secrets, values):
        verdict = values.get('verdict')
        told = details.of_evidence(launch) | {
            'verdict_sha256': verdict and details.sha256(verdict)}
        with self._parts.journal.writer() as entry:
            if not launches.release(entry.session, launch, packet,
                                    **values):
                return None
            if not policies.count_release(
                    entry.session, launch.policy_id,
                    limits.max_releases(content.limits)):
                raise _NotInForce
            if launch.waiting_for == 'approval':
                entry.record_launch('launch.approved', launch,
                                    verdict_sha256=told['verdict_sha256'])
            entry.record_launch(
                'launch.released', launch, secrets=secrets, **told,
                **details.of_platform(launch))
            released = launches.get(entry.session, launch.id)
        LOG.info('Launch %(id)s of server %(server)s verified; %(what)s',
                 {'id': launch.id, 'server': launch.server_id,
                  'what': ('its secrets were released.' if packet else
                           'it gets no secrets.')})
        return released

    def _fetch(self, content, project_id):
        try:
            found = self._parts.store.fetch(content.secrets.values(),
                                            project_id)
        except store_base.SecretUnavailable as exc:
            raise errors.Denied(
                'secret_unavailable',
                'A secret of the policy cannot be read; its owner must grant '
                'the key service read access to it.',
                {'store': str(exc)}) from exc
        except store_base.SecretTooLarge as exc:
            raise errors.Denied(
                'secret_too_large', 'A secret of the policy is too large.',
                {'store': str(exc)}) from exc
        except store_base.SecretEmpty as exc:
            raise errors.Denied(
                'secret_empty', 'A secret of the policy is empty.',
                {'store': str(exc)}) from exc
        except store_base.StoreUnavailable as exc:
            LOG.warning('A secret cannot be fetched now: %s', exc)
            raise errors.Unavailable(
                'secret_store_unavailable',
                'The secret store cannot be asked now; the launch stays open '
                'until it expires, send the same evidence again.') from exc
        return {uuid.UUID(guid): found[secret_id]
                for guid, secret_id in content.secrets.items()}
