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

"""The beginning of launches: from the request to the session."""

import dataclasses
import datetime
import hmac
import uuid

from oslo_db import exception as db_exc
from oslo_log import log as logging
from oslo_utils import timeutils

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.engine import platforms
from nova_sev_attest.keyservice.engine import requests
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.keyservice.objects import policies
from nova_sev_attest.keyservice import sealing
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import errors as launch_errors
from nova_sev_attest.launch import machine
from nova_sev_attest.launch import policy as launch_policy

LOG = logging.getLogger(__name__)

_INSERT_ATTEMPTS = 5


class Beginning:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts
        self._platforms = platforms.Platforms(parts)
        self._expiry = datetime.timedelta(
            seconds=parts.conf.launches.expiry)

    def create(self, launch_id, token, request):
        """Begin a launch, or give the session that it began with.

        :param launch_id: UUID as text
        :param token: the launch token as text
        :param request: the launch of the request body, as documented
        :returns: (Launch, whether it is new)
        :raises ServiceError: the launch is refused
        """
        fingerprint = requests.fingerprint(request)
        token_hash = requests.hash_token(token)
        with self._parts.database.reader() as session:
            launch = launches.find(session, launch_id)
        if launch is None:
            launch = self._begin(launch_id, token_hash, fingerprint, request)
            if self._insert(launch):
                self._parts.sightings.began(launch)
                LOG.info(
                    'Launch %(id)s of server %(server)s on host %(host)s '
                    'began under policy %(policy)s, revision %(revision)d.',
                    {'id': launch.id, 'server': launch.server_id,
                     'host': launch.host, 'policy': launch.policy_id,
                     'revision': launch.policy_revision})
                return launch, True
            # The same request came twice at once, and the other was first.
            with self._parts.database.reader() as session:
                launch = launches.get(session, launch_id)
        if not (hmac.compare_digest(launch.token_hash, token_hash)
                and hmac.compare_digest(launch.request_fingerprint,
                                        fingerprint)):
            raise errors.Conflict(
                'launch_conflict',
                'A launch with this id was begun with another token or '
                'another request; every boot needs a new id.')
        if launch.status == launches.DENIED and launch.session is None:
            raise requests.denied(launch)
        if launch.status in (launches.EXPIRED, launches.DENIED,
                             launches.SUPERSEDED, launches.FAILED):
            raise requests.closed(launch)
        return launch, False

    def _begin(self, launch_id, token_hash, fingerprint, request):
        try:
            self._parts.keys.check()
        except sealing.SealingError as exc:
            LOG.error('No launch can begin: %s', exc)
            raise errors.Unavailable(
                'sealing_key_missing',
                'The key service has no usable sealing key; its operator '
                'must run "nova-sev-attest-manage sealing-key create".'
            ) from exc
        try:
            certificates = chain.PlatformCertificates.from_libvirt(
                requests.decode(request['platform']['pdh'],
                                'platform_malformed', 'PDH certificate'),
                requests.decode(request['platform']['cert_chain'],
                                'platform_malformed', 'certificate chain'))
        except launch_errors.FormatError as exc:
            raise errors.BadRequest(
                'platform_malformed',
                f'The host\'s platform certificates are malformed: '
                f'{exc}') from exc
        server = self._parts.servers.get(request['server_id'])
        now = timeutils.utcnow()
        launch = launches.Launch(
            id=launch_id, server_id=server.id, project_id=server.project_id,
            host=request['host'], technology=request['technology'],
            status=launches.SESSION_ISSUED, created_at=now, updated_at=now,
            expires_at=now + self._expiry, token_hash=token_hash,
            request_fingerprint=fingerprint)
        try:
            if not self._parts.servers.is_on(server, request['host']):
                raise errors.Denied(
                    'host_mismatch',
                    f'Server {server.id} is not on host {request["host"]}, '
                    f'nor on its way there.')
            policy = self._select_policy(server)
            launch = dataclasses.replace(
                launch, policy_id=policy.id, policy_revision=policy.revision)
            platform = self._platforms.admit(
                request, policy.content, certificates, server.project_id)
        except errors.Denied as denial:
            self._refuse(launch, denial)
            raise
        issued = machine.begin(
            platform, uuid.UUID(launch_id),
            launch_policy.LaunchPolicy.for_technology(
                launch.technology, policy.content.min_api))
        key_id, sealed = self._parts.keys.seal(
            issued.keys.tek + issued.keys.tik,
            sealing.associated_data(launch_id, server.id, server.project_id))
        return dataclasses.replace(
            launch, platform_root=issued.platform.anchor_name,
            platform_emulated=issued.platform.emulated,
            platform_api=issued.platform.api,
            platform_cek=issued.platform.cek_fingerprint,
            platform_chip=platform.chip_id and platform.chip_id.hex(),
            policy_word=issued.policy.word, dh_cert=issued.godh_certificate,
            session=issued.session, sealed_keys=sealed,
            sealing_key_id=key_id)

    @db_api.retried
    def _refuse(self, launch, denial):
        """Keep the record of a launch that does not begin."""
        LOG.warning('A launch of server %(server)s on host %(host)s is '
                    'refused: %(detail)s',
                    {'server': launch.server_id, 'host': launch.host,
                     'detail': denial.detail})
        try:
            with self._parts.database.writer() as session:
                launches.record_refused(session, dataclasses.replace(
                    launch, status=launches.DENIED, reason_code=denial.code,
                    reason_detail=denial.detail))
        except db_exc.DBDuplicateEntry:
            LOG.info('Launch %s has a record already.', launch.id)

    def _insert(self, launch):
        """Store a launch; returns False when its id is there already."""
        for attempt in range(_INSERT_ATTEMPTS):
            try:
                self._insert_once(launch)
                return True
            except db_exc.DBDuplicateEntry:
                with self._parts.database.reader() as session:
                    if launches.find(session, launch.id) is not None:
                        return False
                # Another launch of the server came at this very moment;
                # the next attempt supersedes it.
        raise errors.Conflict(
            'launch_conflict',
            'Several launches of this server begin at once; try again.')

    @db_api.retried
    def _insert_once(self, launch):
        with self._parts.database.writer() as session:
            launches.create(session, launch)

    def _select_policy(self, server):
        with self._parts.database.reader() as session:
            if server.policy is None:
                policy = policies.find_default(session, server.project_id)
                if policy is None:
                    raise errors.Denied(
                        'policy_missing',
                        f'no attestation policy: set server property '
                        f'attestation_policy or make one of project '
                        f'{server.project_id}\'s policies the default')
                return policy
            # A name cannot look like an id.
            policy = (policies.find_by_name(session, server.project_id,
                                            server.policy)
                      or policies.find_by_id(session, server.project_id,
                                             server.policy))
        if policy is None:
            raise errors.Denied(
                'policy_unknown',
                f'the server property attestation_policy is '
                f'{server.policy!r}, which is no policy of project '
                f'{server.project_id}')
        return policy
