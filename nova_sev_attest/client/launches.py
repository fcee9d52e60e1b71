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

"""Launches: one boot of one server each (/v1/launches)."""

import dataclasses

from oslo_log import log as logging

from nova_sev_attest.client import answers
from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions

LOG = logging.getLogger(__name__)

#: What a launch is for.
BOOT = 'boot'
RESCUE = 'rescue'

TOKEN_HEADER = 'X-Attestation-Launch-Token'
MAX_ANSWER = 128 * 1024
MAX_REASON = 255

_STILL_WAITING = 202
# Of one request of a wait, in seconds: what the service is asked for, and how
# soon the next one may follow.
_LONGEST_WAIT = 25
_SHORTEST_WAIT = 1.0

# The SEV API, sections "LAUNCH_START" and "LAUNCH_SECRET": a GODH
# certificate is 2084 bytes, a session 128, a packet's header 52; a packet's
# data is at most 16 KiB.
GODH_CERTIFICATE_SIZE = 2084
SESSION_SIZE = 128
PACKET_HEADER_SIZE = 52
MAX_PACKET_DATA = 16 * 1024
# Of one member of a platform's certificates, decoded: three of 2084 bytes.
MAX_CERTIFICATES = 32 * 1024


@dataclasses.dataclass(frozen=True)
class LaunchIdentity:
    """What names a launch and proves that one speaks for it.

    :ivar id: UUID of the launch, made by who launches
    :ivar token: 64 hexadecimal characters, made afresh with the id; the key
        service keeps its hash only
    """

    id: str
    token: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class SevCertificates:
    """The certificates of an SEV or SEV-ES platform, as it showed them.

    Nothing of them is verified here.

    :ivar pdh: the PDH certificate
    :ivar cert_chain: PEK, OCA and CEK
    :ivar signed_cek: the CEK that AMD signed for the chip, None where the
        key service has none
    """

    pdh: bytes = dataclasses.field(repr=False)
    cert_chain: bytes = dataclasses.field(repr=False)
    signed_cek: bytes | None = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class SevSession:
    """The service's side of an SEV or SEV-ES launch.

    :ivar dh_cert: the GODH certificate, 2084 bytes
    :ivar session: nonce, wrapped transport keys and their MACs, 128 bytes;
        readable by the addressed platform only
    :ivar policy: the SEV policy word, 32 bits
    """

    dh_cert: bytes = dataclasses.field(repr=False)
    session: bytes = dataclasses.field(repr=False)
    policy: int


@dataclasses.dataclass(frozen=True)
class SevRelease:
    """A launch secret, readable by the measured guest's platform only.

    :ivar header: 52 bytes
    :ivar secret: ciphertext, a multiple of 16 bytes
    :ivar gpa: guest physical address to inject at, None for the address
        that the firmware declares
    """

    header: bytes = dataclasses.field(repr=False)
    secret: bytes = dataclasses.field(repr=False)
    gpa: int | None


def _sev_session(answer):
    return SevSession(
        dh_cert=answers.octets(answer, 'dh_cert', GODH_CERTIFICATE_SIZE,
                               GODH_CERTIFICATE_SIZE),
        session=answers.octets(answer, 'session', SESSION_SIZE,
                               SESSION_SIZE),
        policy=answers.integer(answer, 'policy', 0, 0xffffffff))


def _sev_release(answer):
    secret = answers.octets(answer, 'secret', 16, MAX_PACKET_DATA)
    if len(secret) % 16:
        raise exceptions.InvalidResponse(
            f'The key service released {len(secret)} bytes, not a multiple '
            f'of 16.')
    gpa = None
    if answer.get('gpa') is not None:
        gpa = answers.integer(answer, 'gpa', 1, 2 ** 52 - 1)
    return SevRelease(
        header=answers.octets(answer, 'secret_header', PACKET_HEADER_SIZE,
                              PACKET_HEADER_SIZE),
        secret=secret, gpa=gpa)


# How each technology's session and release look.
_SESSIONS = {'amd-sev': _sev_session, 'amd-sev-es': _sev_session}
_RELEASES = {'amd-sev': _sev_release, 'amd-sev-es': _sev_release}


class Launches:
    """The resource; every PUT is idempotent and may be repeated.

    :param rest: RestClient
    """

    def __init__(self, rest):
        self._rest = rest

    def create(self, identity, server_id, host, technology, platform,
               deadline=None, waiting=None, purpose=BOOT):
        """Open a launch and get its session.

        Where the owner makes the session, this waits for it.

        :param identity: LaunchIdentity
        :param server_id: UUID of the server
        :param host: the compute host's name, as Nova's API shows it
        :param technology: 'amd-sev', ...
        :param platform: the platform's certificates by name, as bytes
            ('pdh', 'cert_chain' and, if known, 'cpu0_id' for SEV)
        :param deadline: Deadline
        :param waiting: called once with the seconds that the owner has,
            before the wait for the owner begins; returns the Deadline of the
            wait, or None for the one that there is, or raises
        :param purpose: BOOT, or RESCUE, which a key service from before there
            were rescues refuses
        :returns: SevSession
        :raises AttestationDenied: no launch for this server on this platform
        :raises RequestRefused: the request was wrong, or conflicts
        :raises OwnerTimeout: the owner made no session in time
        :raises ServiceUnavailable: no usable answer in time
        """
        request = {
            'server_id': server_id,
            'host': host,
            'technology': technology,
            'platform': {name: answers.encode(data)
                         for name, data in platform.items()},
        }
        if purpose != BOOT:
            request['purpose'] = purpose
        launch = answers.member(
            self._put(identity, '', {'launch': request}, deadline, waiting),
            'launch', dict)
        self._check_answers_to(launch, identity)
        return _SESSIONS[technology](answers.member(launch, 'session', dict))

    def send_evidence(self, identity, technology, evidence, claims,
                      deadline=None, waiting=None):
        """Send a launch's measurement and get the release.

        Where the owner releases or approves, this waits for it.

        :param evidence: the technology's evidence, bytes and integers by
            name
        :param claims: what the host says that it launched; explains a
            denial and never accepts
        :param waiting: as for create()
        :returns: SevRelease, None where the policy has no secrets for it
        :raises AttestationDenied: the evidence does not verify; the launch
            is closed
        :raises RequestRefused: the launch expired, is closed, or got other
            evidence before
        :raises OwnerTimeout: the owner did not decide in time
        :raises ServiceUnavailable: no usable answer in time
        """
        body = {'evidence': {'technology': technology}, 'claims': claims}
        for name, value in evidence.items():
            body['evidence'][name] = (answers.encode(value)
                                      if isinstance(value, bytes) else value)
        answer = self._put(identity, '/evidence', body, deadline, waiting)
        self._check_answers_to(answers.member(answer, 'launch', dict),
                               identity)
        if 'release' in answer and answer['release'] is None:
            return None
        return _RELEASES[technology](answers.member(answer, 'release', dict))

    def report_outcome(self, identity, status, reason=None, deadline=None):
        """Say how the launch ended.

        :param status: 'running' or 'failed'
        :param reason: a sentence, cut to 255 characters
        """
        self._put(identity, '/outcome', {'outcome': {
            'status': status,
            'reason': None if reason is None else reason[:MAX_REASON],
        }}, deadline)

    def get(self, launch_id, deadline=None):
        """One launch as the key service shows it to the caller.

        :raises NotFound: there is none that the caller may see
        """
        answer = self._rest.request(
            'GET', f'/v1/launches/{launch_id}', deadline=deadline,
            max_answer=MAX_ANSWER)
        return answers.member(answer.body, 'launch', dict)

    def list(self, server_id=None, status=None, host=None, policy_id=None,
             technology=None, project_id=None, sort=None, limit=None,
             marker=None, deadline=None):
        """One page of launches, and the marker of the next page or None.

        :param project_id: of the servers; for who sees those of all projects
        :param sort: such as 'status,created_at:desc'; the newest come first
            without it
        """
        return self._rest.page('/v1/launches', 'launches', {
            'server_id': server_id, 'status': status, 'host': host,
            'policy_id': policy_id, 'technology': technology,
            'project_id': project_id, 'sort': sort, 'limit': limit,
            'marker': marker}, deadline)

    def each(self, server_id=None, status=None, host=None, policy_id=None,
             technology=None, project_id=None, sort=None, deadline=None):
        """Every launch, chosen as in list(); an iterator."""
        return self._rest.items('/v1/launches', 'launches', {
            'server_id': server_id, 'status': status, 'host': host,
            'policy_id': policy_id, 'technology': technology,
            'project_id': project_id, 'sort': sort}, deadline)

    def certificates(self, launch_id, deadline=None):
        """What the launch's platform showed; for the owner.

        :returns: SevCertificates
        :raises NotFound: the owner has no such launch
        :raises Conflict: its platform's certificates are not known
        """
        found = answers.member(
            self._of(launch_id, 'certificates', deadline), 'certificates',
            dict)
        signed = None
        if found.get('signed_cek') is not None:
            signed = answers.octets(found, 'signed_cek', 1, MAX_CERTIFICATES)
        return SevCertificates(
            pdh=answers.octets(found, 'pdh', 1, MAX_CERTIFICATES),
            cert_chain=answers.octets(found, 'cert_chain', 1,
                                      MAX_CERTIFICATES),
            signed_cek=signed)

    def set_session(self, launch_id, dh_cert, session, deadline=None):
        """Give a launch the session that its owner made.

        :param dh_cert: the GODH certificate, 2084 bytes
        :param session: 128 bytes
        :returns: the launch's members
        :raises Conflict: it does not wait for a session
        """
        return self._set(launch_id, 'session', {
            'dh_cert': answers.encode(dh_cert),
            'session': answers.encode(session)}, deadline)

    def evidence(self, launch_id, deadline=None):
        """What the host sent of a launch; for the owner.

        :returns: (the evidence's members, the host's claims), as they came;
            ``measurement`` is in base64
        :raises Conflict: none came yet
        """
        answer = self._of(launch_id, 'evidence', deadline)
        return (answers.member(answer, 'evidence', dict),
                answers.member(answer, 'claims', dict))

    def set_secret(self, launch_id, release, deadline=None):
        """Release a launch, for an owner who verifies.

        :param release: SevRelease with what the owner packed; None: the
            guest gets no secret
        :returns: the launch's members
        :raises Conflict: it does not wait for a secret
        """
        return self._set(launch_id, 'secret', release and {
            'secret_header': answers.encode(release.header),
            'secret': answers.encode(release.secret),
            'gpa': release.gpa}, deadline)

    def decide(self, launch_id, action, reason=None, deadline=None):
        """Approve or deny a launch, as its owner.

        :param action: 'approve' or 'deny'
        :param reason: a sentence, kept with the launch
        :returns: the launch's members
        :raises Conflict: it is not, or not any more, to be decided
        """
        return self._set(launch_id, 'decision',
                         {'action': action, 'reason': reason}, deadline)

    def events(self, launch_id, deadline=None):
        """What became of a launch, from its audit, oldest first.

        :returns: list of dict: 'event', 'at', 'actor', 'details'
        """
        return answers.member(self._of(launch_id, 'events', deadline),
                              'events', list)

    def _of(self, launch_id, below, deadline):
        return self._rest.request(
            'GET', f'/v1/launches/{launch_id}/{below}',
            deadline=deadline).body

    def _set(self, launch_id, name, value, deadline):
        answer = self._rest.request(
            'PUT', f'/v1/launches/{launch_id}/{name}', json={name: value},
            deadline=deadline, max_answer=MAX_ANSWER)
        return answers.member(answer.body, 'launch', dict)

    def _put(self, identity, below, body, deadline, waiting=None):
        """The body of the final answer, after any wait for the owner."""
        if deadline is None:
            deadline = deadlines.Deadline(self._rest.attempts.total_timeout)
        answer = self._put_once(identity, below, body, deadline)
        if answer.status != _STILL_WAITING:
            return answer.body
        expires_in = self._expires_in(answer, identity)
        if waiting is not None:
            deadline = waiting(expires_in) or deadline
        LOG.info('Launch %(id)s waits for its owner, for %(seconds)d s at '
                 'most.', {'id': identity.id, 'seconds': min(
                     expires_in, deadline.remaining())})
        # The last second is for the answer.
        while (left := deadline.remaining()) > _SHORTEST_WAIT:
            asked = deadlines.Deadline(_SHORTEST_WAIT)
            answer = self._put_once(
                identity, below, body, deadline,
                wait=max(1, int(min(_LONGEST_WAIT, left - _SHORTEST_WAIT))))
            if answer.status != _STILL_WAITING:
                return answer.body
            self._expires_in(answer, identity)
            # A service that does not wait is not asked all the time.
            self._rest.attempts.sleep(asked.remaining())
        raise exceptions.OwnerTimeout(
            f'The launch waits for its owner, who did not act within '
            f'{deadline.seconds:g} s.', request_id=answer.request_id)

    def _expires_in(self, answer, identity):
        """Seconds that a launch that waits has left, by the service's clock.

        :raises InvalidResponse: the answer is not about this launch
        """
        launch = answers.member(answer.body, 'launch', dict)
        self._check_answers_to(launch, identity)
        return answers.integer(launch, 'expires_in', 0, 2 ** 31)

    def _put_once(self, identity, below, body, deadline, wait=None):
        try:
            return self._rest.request(
                'PUT', f'/v1/launches/{identity.id}{below}', json=body,
                headers={TOKEN_HEADER: identity.token}, deadline=deadline,
                max_answer=MAX_ANSWER, wait=wait)
        except exceptions.RequestRefused as refusal:
            if refusal.status != 403:
                raise
            raise exceptions.AttestationDenied(
                refusal.status, refusal.code, refusal.detail,
                request_id=refusal.request_id) from None

    @staticmethod
    def _check_answers_to(launch, identity):
        if answers.member(launch, 'id', str) != identity.id:
            raise exceptions.InvalidResponse(
                f'The key service answered for another launch than '
                f'{identity.id}.')
