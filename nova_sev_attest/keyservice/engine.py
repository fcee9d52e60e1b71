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

"""Launches, from the session to the outcome.

Joins the launch core, the database, Nova and the secret store. What is
decided, is decided by the core; what must happen once, happens in one
statement of objects/launches.py.
"""

import base64
import binascii
import dataclasses
import datetime
import hashlib
import hmac
import json
import uuid

from oslo_db import exception as db_exc
from oslo_log import log as logging
from oslo_utils import timeutils

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice import diagnosing
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice import expectations
from nova_sev_attest.keyservice.objects import firmwares
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.keyservice.objects import policies
from nova_sev_attest.keyservice import sealing
from nova_sev_attest.keyservice.stores import base as store_base
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import errors as launch_errors
from nova_sev_attest.launch import expectation
from nova_sev_attest.launch import machine
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import session as launch_session
from nova_sev_attest.trust import chips as trust_chips
from nova_sev_attest.trust import kds
from nova_sev_attest.trust import platform_policy

LOG = logging.getLogger(__name__)

_KEY_SIZE = 16
_INSERT_ATTEMPTS = 5


def _fingerprint(value):
    """SHA-256 over the canonical form of what a request says."""
    return hashlib.sha256(json.dumps(
        value, sort_keys=True, separators=(',', ':')).encode()).digest()


def _platform_policy(content):
    """What a policy asks of platforms, as a PlatformPolicy."""
    return platform_policy.PlatformPolicy(
        roots=frozenset(content.trusted_roots),
        min_firmware=(*content.min_api, content.min_build or 0),
        chips=_digests(content.allowed_chips),
        owners=_digests(content.allowed_owners))


def _digests(listed):
    return listed and frozenset(bytes.fromhex(text) for text in listed)


def _decode(text, word, what):
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise errors.BadRequest(
            word, f'The {what} is not base64: {exc}.') from None


class Engine:
    """What the compute service does with launches.

    :param conf: ConfigOpts
    :param database: Database
    :param journal: Journal
    :param store: SecretReader
    :param servers: ServerReader
    :param keys: KeyRepository
    :param anchors: the configured trust anchors
    :param chips: ChipCertificates
    """

    def __init__(self, conf, database, journal, store, servers, keys, anchors,
                 chips):
        self._expiry = datetime.timedelta(seconds=conf.launches.expiry)
        self._diagnosis_seconds = conf.launches.diagnosis_seconds
        self._db = database
        self._journal = journal
        self._store = store
        self._servers = servers
        self._keys = keys
        self._anchors = anchors
        self._chips = chips
        self._expected = expectation.Cache()

    def create(self, launch_id, token, request):
        """Begin a launch, or give the session that it began with.

        :param launch_id: UUID as text
        :param token: the launch token as text
        :param request: the launch of the request body, as documented
        :returns: (Launch, whether it is new)
        :raises ServiceError: the launch is refused
        """
        fingerprint = _fingerprint(request)
        token_hash = _hash_token(token)
        self.sweep()
        with self._db.reader() as session:
            launch = launches.find(session, launch_id)
        if launch is None:
            launch = self._begin(launch_id, token_hash, fingerprint, request)
            if self._insert(launch):
                LOG.info(
                    'Launch %(id)s of server %(server)s on host %(host)s '
                    'began under policy %(policy)s, revision %(revision)d.',
                    {'id': launch.id, 'server': launch.server_id,
                     'host': launch.host, 'policy': launch.policy_id,
                     'revision': launch.policy_revision})
                return launch, True
            # The same request came twice at once, and the other was first.
            with self._db.reader() as session:
                launch = launches.get(session, launch_id)
        if not (hmac.compare_digest(launch.token_hash, token_hash)
                and hmac.compare_digest(launch.request_fingerprint,
                                        fingerprint)):
            raise errors.Conflict(
                'launch_conflict',
                'A launch with this id was begun with another token or '
                'another request; every boot needs a new id.')
        if launch.status == launches.DENIED and launch.session is None:
            raise _denied(launch)
        if launch.status in (launches.EXPIRED, launches.DENIED,
                             launches.SUPERSEDED, launches.FAILED):
            raise _closed(launch)
        return launch, False

    def _begin(self, launch_id, token_hash, fingerprint, request):
        try:
            self._keys.check()
        except sealing.SealingError as exc:
            LOG.error('No launch can begin: %s', exc)
            raise errors.Unavailable(
                'sealing_key_missing',
                'The key service has no usable sealing key; its operator '
                'must run "nova-sev-attest-manage sealing-key create".'
            ) from exc
        try:
            certificates = chain.PlatformCertificates.from_libvirt(
                _decode(request['platform']['pdh'], 'platform_malformed',
                        'PDH certificate'),
                _decode(request['platform']['cert_chain'],
                        'platform_malformed', 'certificate chain'))
        except launch_errors.FormatError as exc:
            raise errors.BadRequest(
                'platform_malformed',
                f'The host\'s platform certificates are malformed: '
                f'{exc}') from exc
        server = self._servers.get(request['server_id'])
        now = timeutils.utcnow()
        launch = launches.Launch(
            id=launch_id, server_id=server.id, project_id=server.project_id,
            host=request['host'], technology=request['technology'],
            status=launches.SESSION_ISSUED, created_at=now, updated_at=now,
            expires_at=now + self._expiry, token_hash=token_hash,
            request_fingerprint=fingerprint)
        try:
            if not self._servers.is_on(server, request['host']):
                raise errors.Denied(
                    'host_mismatch',
                    f'Server {server.id} is not on host {request["host"]}, '
                    f'nor on its way there.')
            policy = self._select_policy(server)
            launch = dataclasses.replace(
                launch, policy_id=policy.id, policy_revision=policy.revision)
            platform = self._admit(request, policy.content, certificates)
        except errors.Denied as denial:
            self._refuse(launch, denial)
            raise
        issued = machine.begin(
            platform, uuid.UUID(launch_id),
            launch_policy.LaunchPolicy.for_technology(
                launch.technology, policy.content.min_api))
        key_id, sealed = self._keys.seal(
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

    def _admit(self, request, content, certificates):
        """Hold a host to a policy.

        :returns: VerifiedPlatform
        :raises Denied: the policy does not allow it
        """
        if request['technology'] not in content.technologies:
            raise errors.Denied(
                'technology_not_allowed',
                f'Policy {content.name!r} does not allow '
                f'{request["technology"]}.')
        trusted = _platform_policy(content)
        try:
            platform = self._identify(
                request, certificates, trusted.needs_chip).verify(
                    [anchor for anchor in self._anchors
                     if anchor.name in content.trusted_roots])
            trusted.admit(platform)
        except platform_policy.PlatformNotAllowed as exc:
            raise errors.Denied(exc.code, str(exc)) from exc
        except launch_errors.VerificationError as exc:
            raise errors.Denied('platform_untrusted', str(exc)) from exc
        return platform

    def _identify(self, request, certificates, needed):
        """Put the CEK that AMD signed for the chip in the host's place.

        A host whose own CEK leads to a root is left as it is, unless the
        policy tells chips apart.

        :param needed: whether it does
        :returns: PlatformCertificates
        :raises VerificationError: no CEK fits
        :raises Unavailable: the CEK cannot be had now
        """
        chip_id = request['platform'].get('cpu0_id')
        root = certificates.find_root(self._anchors)
        if chip_id is None or (root is not None and not needed):
            return certificates
        chip_id = _decode(chip_id, 'platform_malformed', 'chip id')
        try:
            # AMD does not know the chips of emulated platforms.
            cek = self._chips.get(
                chip_id, certificates.pek,
                may_ask=root is None or not root.emulated)
        except (kds.KeyServerUnavailable,
                trust_chips.ChipStoreUnusable) as exc:
            LOG.error('The CEK of a chip of host %(host)s cannot be had: '
                      '%(reason)s', {'host': request['host'], 'reason': exc})
            raise errors.Unavailable(
                'chip_certificate_unavailable',
                'The signed CEK of the host\'s chip cannot be had now; the '
                'key service\'s log says why. Try again later.') from exc
        return certificates.of_chip(chip_id, cek)

    @db_api.retried
    def _refuse(self, launch, denial):
        """Keep the record of a launch that does not begin."""
        LOG.warning('A launch of server %(server)s on host %(host)s is '
                    'refused: %(detail)s',
                    {'server': launch.server_id, 'host': launch.host,
                     'detail': denial.detail})
        try:
            with self._db.writer() as session:
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
                with self._db.reader() as session:
                    if launches.find(session, launch.id) is not None:
                        return False
                # Another launch of the server came at this very moment;
                # the next attempt supersedes it.
        raise errors.Conflict(
            'launch_conflict',
            'Several launches of this server begin at once; try again.')

    @db_api.retried
    def _insert_once(self, launch):
        with self._db.writer() as session:
            launches.create(session, launch)

    def _select_policy(self, server):
        with self._db.reader() as session:
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

    def evidence(self, launch_id, token, evidence, claims):
        """Verify a launch's evidence and release the policy's secrets.

        The same evidence again gets what it got before.

        :param evidence: the evidence of the request body, as documented
        :param claims: the claims of the request body
        :returns: Launch; its release is None when the policy has no secrets
        :raises Denied: it does not verify; the launch is closed
        :raises ServiceError: the launch or the request is refused
        """
        launch = self._authenticate(launch_id, token)
        fingerprint = _fingerprint(evidence)
        if not launch.is_open:
            return _again(launch, fingerprint)
        if evidence['technology'] != launch.technology:
            raise errors.BadRequest(
                'evidence_malformed',
                f'The launch is one of {launch.technology}, the evidence of '
                f'{evidence["technology"]}.')
        parsed = _parse_evidence(evidence)
        if not self._bind(launch.id, fingerprint):
            return _again(self._authenticate(launch_id, token), fingerprint)
        try:
            packet, verdict = self._release(launch, evidence, parsed, claims,
                                            fingerprint)
        except errors.Denied as denial:
            return self._deny(launch, fingerprint, denial, claims)
        with self._db.writer() as session:
            done = launches.release(session, launch.id, fingerprint, packet,
                                    verdict)
        launch = self._authenticate(launch_id, token)
        if not done:
            # Another request released, or the time is over.
            return _again(launch, fingerprint)
        LOG.info('Launch %(id)s of server %(server)s verified; %(what)s',
                 {'id': launch.id, 'server': launch.server_id,
                  'what': ('its secrets were released.' if packet else
                           'it gets no secrets.')})
        return launch

    @db_api.retried
    def _bind(self, launch_id, fingerprint):
        with self._db.writer() as session:
            return launches.bind_evidence(session, launch_id, fingerprint)

    def _release(self, launch, evidence, parsed, claims, fingerprint):
        """Verify, then fetch, then pack.

        :returns: (Release or None, verdict)
        :raises Denied: the launch is to be closed
        """
        if int(evidence['policy']) != launch.policy_word:
            raise errors.Denied(
                'policy_word_mismatch',
                f'The guest was launched under policy word '
                f'{int(evidence["policy"]):#x}, the session is for '
                f'{launch.policy_word:#x}; only the key service sets it.')
        with self._db.reader() as session:
            policy = policies.find_by_id(
                session, launch.project_id, launch.policy_id,
                launch.policy_revision)
            if policy is None:
                raise errors.Denied(
                    'policy_missing',
                    'The launch\'s policy was deleted in the meantime.')
            content = policy.content
            images = firmwares.load(session, launch.project_id,
                                    content.firmwares)
        issued = self._restore(launch)
        keys = issued.keys
        lists = expectations.lists(content, launch.technology)
        allowed = self._expected.expected_digests(lists, images.values())
        try:
            verified = issued.verify(parsed, {
                digest: inputs.claims()
                for digest, inputs in allowed.items()})
            _platform_policy(content).admit_firmware(
                (parsed.api_major, parsed.api_minor), parsed.build)
        except launch_errors.MeasurementMismatch:
            denial = self._explain(issued, launch, content, images, claims)
            if denial is None:
                with self._db.reader() as session:
                    gathered = diagnosing.gather(
                        session, launch, fingerprint, images, parsed)
                denial = diagnosing.diagnose(
                    lists, keys, issued.policy, parsed, gathered,
                    self._diagnosis_seconds)
            raise denial
        except launch_errors.VerificationError as exc:
            raise errors.Denied(exc.code, str(exc)) from exc
        area = images[verified.claims['firmware_sha256']].secret_area
        secrets = self._fetch(content, launch.project_id)
        try:
            released = verified.release(secrets, area)
        except launch_errors.SecretTooLarge as exc:
            raise errors.Denied('secret_too_large', str(exc)) from exc
        packet = released.packet and launches.Release(
            released.packet.header, released.packet.data, released.gpa)
        return packet, released.claims

    def _restore(self, launch):
        try:
            keys = self._keys.open(
                launch.sealing_key_id, launch.sealed_keys,
                sealing.associated_data(launch.id, launch.server_id,
                                        launch.project_id))
        except sealing.SealingError as exc:
            LOG.error('Launch %(id)s cannot go on: %(reason)s',
                      {'id': launch.id, 'reason': exc})
            raise errors.Unavailable(
                'sealing_key_missing',
                'The key service cannot open the launch\'s keys; its log '
                'says why.') from exc
        return machine.SessionIssued.restore(
            uuid.UUID(launch.id),
            chain.PlatformFacts(
                anchor_name=launch.platform_root,
                emulated=launch.platform_emulated, api=launch.platform_api,
                cek_fingerprint=launch.platform_cek),
            launch_session.Session(
                godh_certificate=launch.dh_cert, session=launch.session,
                keys=launch_session.TransportKeys(
                    keys[:_KEY_SIZE], keys[_KEY_SIZE:]),
                policy=launch_policy.LaunchPolicy.parse(launch.policy_word)))

    def _explain(self, issued, launch, content, images, claims):
        """What differs, if the measurement confirms the claims, or None."""
        images = dict(images)
        claimed = claims.get('firmware_sha256')
        if claimed is not None and claimed not in images:
            with self._db.reader() as session:
                images.update(firmwares.load(
                    session, launch.project_id, [claimed]))
        confirmed = issued.explain(expectations.candidates(
            content, launch.technology, claims, images))
        if confirmed is None:
            return None
        return expectations.difference(content, confirmed)

    def _fetch(self, content, project_id):
        try:
            found = self._store.fetch(content.secrets.values(), project_id)
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

    def _deny(self, launch, fingerprint, denial, claims):
        owner = dict(denial.owner)
        told = {name: value for name, value in claims.items()
                if value is not None}
        if told:
            owner['claimed'] = told
        with self._db.writer() as session:
            done = launches.deny(session, launch.id, denial.code,
                                 denial.detail, owner)
        LOG.warning('Launch %(id)s of server %(server)s on host %(host)s '
                    'is denied: %(detail)s',
                    {'id': launch.id, 'server': launch.server_id,
                     'host': launch.host, 'detail': denial.detail})
        if not done:
            with self._db.reader() as session:
                launch = launches.get(session, launch.id)
            return _again(launch, fingerprint)
        raise denial

    @db_api.retried
    def outcome(self, launch_id, token, status, reason):
        """Record what the host says of the end of a launch.

        :param status: 'running' or 'failed'
        :param reason: text or None
        :returns: Launch
        :raises Conflict: the launch is not where it could end like that
        """
        launch = self._authenticate(launch_id, token)
        with self._db.writer() as session:
            if status == launches.RUNNING:
                changed = launches.run(session, launch.id)
            else:
                changed = launches.fail(
                    session, launch.id, reason or 'The host gave no reason.')
        launch = self._authenticate(launch_id, token)
        closed = launch.status in (launches.DENIED, launches.EXPIRED,
                                   launches.SUPERSEDED)
        if changed or launch.status == status or (
                closed and status == launches.FAILED):
            return launch
        raise errors.Conflict(
            'launch_conflict',
            f'The launch is {launch.status} and cannot become {status}.')

    @db_api.retried
    def sweep(self):
        """Expire launches whose time is over; returns how many."""
        with self._db.reader() as session:
            if not launches.count_overdue(session):
                return 0
        with self._db.writer() as session:
            count = launches.expire(session)
        LOG.info('%d launches expired.', count)
        return count

    def _authenticate(self, launch_id, token):
        """The launch, after expiry, of who knows its token."""
        self.sweep()
        with self._db.reader() as session:
            launch = launches.get(session, launch_id)
        if not hmac.compare_digest(launch.token_hash, _hash_token(token)):
            raise errors.Forbidden(
                'launch_token_mismatch',
                'The launch was begun with another token.')
        return launch


def _hash_token(token):
    return hashlib.sha256(token.encode()).digest()


def _parse_evidence(evidence):
    try:
        return measurement.Evidence.parse(
            _decode(evidence['measurement'], 'evidence_malformed',
                    'measurement'),
            int(evidence['api_major']), int(evidence['api_minor']),
            int(evidence['build_id']))
    except launch_errors.FormatError as exc:
        raise errors.BadRequest('evidence_malformed', str(exc)) from exc


def _denied(launch):
    """The answer that a denied launch got when it was denied."""
    return errors.Denied(launch.reason_code.removeprefix('attestation.'),
                         launch.reason_detail)


def _closed(launch):
    if launch.status == launches.EXPIRED:
        return errors.Conflict('launch_expired', launch.reason_detail)
    return errors.Conflict(
        'launch_closed',
        f'The launch is {launch.status}: {launch.reason_detail}')


def _again(launch, fingerprint):
    """What evidence gets whose launch is not open any more."""
    bound = launch.evidence_fingerprint
    if bound is not None and not hmac.compare_digest(bound, fingerprint):
        raise errors.Conflict(
            'evidence_conflict',
            'Other evidence came for this launch before; the first counts.')
    if launch.status == launches.DENIED and bound is not None:
        raise _denied(launch)
    if launch.verdict is None:
        raise _closed(launch)
    return launch
