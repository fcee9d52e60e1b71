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
import hmac
import uuid

from oslo_db import exception as db_exc
from oslo_log import log as logging

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.db import clock
from nova_sev_attest.keyservice.engine import details
from nova_sev_attest.keyservice.engine import expiring
from nova_sev_attest.keyservice.engine import limiting
from nova_sev_attest.keyservice.engine import lookup
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

# How many launches of one server may be faster than a request.
_INSERT_ATTEMPTS = 20


class _Overtaken(Exception):
    """The server's open launch changed since it was looked at."""


def _purpose(request, server):
    """What a launch is for: a boot only if neither says otherwise.

    The host's word is its own, and that of a driver from before there were
    rescues none at all; what Nova knows of the server counts as well.
    """
    said = request.get('purpose', policies.BOOT)
    return policies.RESCUE if server.in_rescue else said


class Beginning:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts
        self._lookup = lookup.Lookup(parts)
        self._platforms = platforms.Platforms(parts)
        self._limiting = limiting.Limiting(parts)
        self._expiry = parts.conf.launches.expiry
        self._owner_expiry = parts.conf.launches.owner_expiry

    def create(self, launch_id, token, request):
        """Begin a launch, or give the session that it began with.

        :param launch_id: UUID as text
        :param token: the launch token as text
        :param request: the launch of the request body, as documented
        :returns: (Launch, whether it is new); it has no session while it
            waits for its owner's
        :raises ServiceError: the launch is refused
        """
        fingerprint = requests.fingerprint(request)
        token_hash = requests.hash_token(token)
        with self._parts.database.reader() as session:
            launch = launches.find(session, launch_id)
            old = launches.find_open(session, request['server_id'])
        if launch is None:
            launch = self._begin(launch_id, token_hash, fingerprint, request,
                                 old)
            if launch is not None:
                self._parts.sightings.began(launch)
                LOG.info(
                    'Launch %(id)s of server %(server)s on host %(host)s '
                    'began under policy %(policy)s, revision %(revision)d.',
                    {'id': launch.id, 'server': launch.server_id,
                     'host': launch.host, 'policy': launch.policy_id,
                     'revision': launch.policy_revision})
                return launch, True
        # Begun before; or the same request came twice at once, and the other
        # was first.
        launch = self._lookup.find(launch_id)
        if not (hmac.compare_digest(launch.token_hash, token_hash)
                and hmac.compare_digest(launch.request_fingerprint,
                                        fingerprint)):
            raise errors.Conflict(
                'launch_conflict',
                'A launch with this id was begun with another token or '
                'another request; every boot needs a new id.')
        if launch.status == launches.DENIED and launch.session is None:
            raise requests.denied(launch)
        if not (launch.is_open or launch.is_released):
            raise requests.closed(launch)
        return launch, False

    def _begin(self, launch_id, token_hash, fingerprint, request, old):
        """Begin a launch.

        :param old: the server's open Launch, or None
        :returns: Launch, None when one with its id was begun meanwhile
        """
        try:
            self._parts.keys.check()
        except sealing.SealingError as exc:
            LOG.error('No launch can begin: %s', exc)
            raise errors.Unavailable(
                'sealing_key_missing',
                'The key service has no usable sealing key; its operator '
                'must run "nova-sev-attest-manage sealing-key create".'
            ) from exc
        shown = launches.Certificates(
            requests.decode(request['platform']['pdh'],
                            'platform_malformed', 'PDH certificate'),
            requests.decode(request['platform']['cert_chain'],
                            'platform_malformed', 'certificate chain'),
            None)
        try:
            certificates = chain.PlatformCertificates.from_libvirt(
                shown.pdh, shown.cert_chain)
        except launch_errors.FormatError as exc:
            raise errors.BadRequest(
                'platform_malformed',
                f'The host\'s platform certificates are malformed: '
                f'{exc}') from exc
        server = self._parts.servers.get(request['server_id'])
        launch = launches.Launch(
            id=launch_id, server_id=server.id, project_id=server.project_id,
            host=request['host'], technology=request['technology'],
            purpose=_purpose(request, server),
            status=launches.SESSION_ISSUED, token_hash=token_hash,
            request_fingerprint=fingerprint)
        try:
            if not self._parts.servers.is_on(server, request['host']):
                raise errors.Denied(
                    'host_mismatch',
                    f'Server {server.id} is not on host {request["host"]}, '
                    f'nor on its way there.')
            policy, now = self._select_policy(server)
            launch = dataclasses.replace(
                launch, policy_id=policy.id, policy_revision=policy.revision,
                verifier=policy.content.verifier,
                approval=policy.content.approval)
            self._limiting.hold(launch, policy, now)
            platform, signed_cek = self._platforms.admit(
                request, policy.content, certificates, server.project_id)
            return self._insert(
                self._with_session(launch, platform, policy.content),
                dataclasses.replace(shown, signed_cek=signed_cek), old)
        except errors.Denied as denial:
            self._refuse(launch, denial)
            raise

    def _with_session(self, launch, platform, content):
        """A launch with its platform and, unless it is the owner's, session.

        :param platform: VerifiedPlatform
        """
        word = launch_policy.LaunchPolicy.for_technology(
            launch.technology, content.min_api)
        launch = dataclasses.replace(
            launch, platform_root=platform.anchor_name,
            platform_emulated=platform.emulated, platform_api=platform.api,
            platform_cek=platform.cek_fingerprint,
            platform_chip=platform.chip_id and platform.chip_id.hex(),
            policy_word=word.word)
        if launch.verifier == policies.OWNER:
            return dataclasses.replace(launch,
                                       status=launches.AWAITING_SESSION)
        issued = machine.begin(platform, uuid.UUID(launch.id), word)
        key_id, sealed = self._parts.keys.seal(
            issued.keys.tek + issued.keys.tik,
            requests.sealed_for(launch))
        return dataclasses.replace(
            launch, dh_cert=issued.godh_certificate, session=issued.session,
            sealed_keys=sealed, sealing_key_id=key_id)

    def _refuse(self, launch, denial):
        """Keep the record of a launch that does not begin."""
        LOG.warning('A launch of server %(server)s on host %(host)s is '
                    'refused: %(detail)s',
                    {'server': launch.server_id, 'host': launch.host,
                     'detail': denial.detail})
        try:
            self._record_refused(dataclasses.replace(
                launch, status=launches.DENIED, reason_code=denial.code,
                reason_detail=denial.detail, reason_owner=denial.owner))
        except db_exc.DBDuplicateEntry:
            LOG.info('Launch %s has a record already.', launch.id)

    @db_api.retried
    def _record_refused(self, launch):
        with self._parts.journal.writer() as entry:
            launch = launches.record_refused(entry.session, launch)
            entry.record_launch('launch.denied', launch,
                                reason_code=launch.reason_code)

    def _insert(self, launch, shown, old):
        """Store a launch, in the place of the server's open one.

        :param old: the latter as it was a moment ago, or None
        :returns: Launch, None when its id is there already
        :raises Denied: the policy was withdrawn at this very moment
        """
        for _ in range(_INSERT_ATTEMPTS):
            try:
                return self._insert_once(launch, shown, old)
            except (_Overtaken, db_exc.DBDuplicateEntry):
                with self._parts.database.reader() as session:
                    if launches.find(session, launch.id) is not None:
                        return None
                    # Another launch of the server came at this very moment;
                    # the next attempt supersedes it.
                    old = launches.find_open(session, launch.server_id)
        raise requests.busy()

    @db_api.retried
    def _insert_once(self, launch, shown, old):
        with self._parts.journal.writer() as entry:
            if old is not None:
                self._close(entry, old, launch)
            launch = launches.create(
                entry.session, launch, shown,
                self._owner_expiry if launch.waiting_for else self._expiry)
            if not policies.hold(entry.session, launch.policy_id):
                raise errors.Denied('policy_revoked',
                                    'The launch\'s policy is revoked.')
            entry.record_launch(f'launch.{launch.status}', launch,
                                **details.of_platform(launch))
        return launch

    @staticmethod
    def _close(entry, old, launch):
        """Close a server's open launch for a newer one.

        :raises _Overtaken: it changed since it was looked at
        """
        if old.id == launch.id:
            raise _Overtaken
        if old.is_overdue:
            if not expiring.expire(entry, old):
                raise _Overtaken
            return
        if not launches.supersede(entry.session, old):
            raise _Overtaken
        entry.record_launch(
            'launch.superseded', old, superseded_by=launch.id,
            reason_code='attestation.superseded')

    def _select_policy(self, server):
        """The policy that a server is launched under.

        :returns: (Policy, the database's time when it was read)
        :raises Denied: there is none
        """
        with self._parts.database.reader() as session:
            now = clock.read(session)
            if server.policy is None:
                policy = policies.find_default(session, server.project_id)
            else:
                # A name cannot look like an id.
                policy = (policies.find_by_name(session, server.project_id,
                                                server.policy)
                          or policies.find_by_id(session, server.project_id,
                                                 server.policy))
        if policy is not None:
            return policy, now
        if server.policy is None:
            raise errors.Denied(
                'policy_missing',
                f'no attestation policy: set server property '
                f'attestation_policy or make one of project '
                f'{server.project_id}\'s policies the default')
        raise errors.Denied(
            'policy_unknown',
            f'the server property attestation_policy is {server.policy!r}, '
            f'which is no policy of project {server.project_id}')
