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

"""Evidence: what comes is bound, and verified where the service verifies."""

import dataclasses
import datetime
import hmac
import typing
import uuid

from oslo_log import log as logging

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.db import clock
from nova_sev_attest.keyservice import diagnosing
from nova_sev_attest.keyservice.engine import denying
from nova_sev_attest.keyservice.engine import details
from nova_sev_attest.keyservice.engine import limiting
from nova_sev_attest.keyservice.engine import lookup
from nova_sev_attest.keyservice.engine import platforms
from nova_sev_attest.keyservice.engine import releasing
from nova_sev_attest.keyservice.engine import requests
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice import expectations
from nova_sev_attest.keyservice.objects import audit
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.keyservice.objects import policies
from nova_sev_attest.keyservice import sealing
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import errors as launch_errors
from nova_sev_attest.launch import machine
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import session as launch_session

LOG = logging.getLogger(__name__)

_KEY_SIZE = 16
_REFUSED = 'launch.evidence_refused'
# Refusals on record of one launch: a host must not be able to fill the audit.
_MAX_REFUSED = 16


@dataclasses.dataclass(frozen=True)
class Passed:
    """What is known of a launch whose evidence verified.

    :ivar verified: the launch core's Verified
    :ivar area: the secret area of the firmware that was measured
    :ivar policy: Policy that it was held to, as limiting.read() has it
    :ivar read_at: the database's time when the policy was read
    """

    verified: typing.Any
    area: typing.Any
    policy: policies.Policy
    read_at: datetime.datetime


class Verifier:
    """Holds the evidence of a launch to its policy.

    :param parts: Parts
    """

    def __init__(self, parts):
        self._parts = parts
        self._limiting = limiting.Limiting(parts)
        self._diagnosis_seconds = parts.conf.launches.diagnosis_seconds

    def verify(self, launch, evidence, claims):
        """Verify a launch's evidence.

        :param evidence: as in the request, as claims
        :returns: Passed
        :raises Denied: the launch is to be closed
        """
        parsed = requests.parse_evidence(evidence)
        self.check_word(launch, evidence)
        with self._parts.database.reader() as session:
            policy, now = limiting.read(session, launch), clock.read(session)
            limiting.require_in_force(policy)
            content = policy.content
            images = self._parts.firmwares.load(session, launch.project_id,
                                                content.firmwares)
        issued = self._restore(launch)
        keys = issued.keys
        lists = expectations.lists(content, launch.technology)
        allowed = self._parts.expected.expected_digests(lists, images.values())
        try:
            verified = issued.verify(parsed, {
                digest: inputs.claims()
                for digest, inputs in allowed.items()})
            platforms.wanted(content).admit_firmware(
                (parsed.api_major, parsed.api_minor), parsed.build)
        except launch_errors.MeasurementMismatch:
            raise (self._find_other_purpose(issued, launch, images)
                   or self._explain(issued, launch, content, images, claims)
                   or self._diagnose(lists, keys, issued.policy, launch,
                                     images, parsed))
        except launch_errors.VerificationError as exc:
            raise errors.Denied(exc.code, str(exc)) from exc
        measured = images[verified.claims['firmware_sha256']]
        return Passed(verified, measured.secret_area, policy, now)

    def check_unverified(self, launch, evidence):
        """What of the evidence can be looked at without the launch's keys.

        :raises Denied: by the host's own word the launch is not one that
            the policy allows
        """
        self.check_word(launch, evidence)
        with self._parts.database.reader() as session:
            policy = limiting.read(session, launch)
        limiting.require_in_force(policy)
        try:
            platforms.wanted(policy.content).admit_firmware(
                (int(evidence['api_major']), int(evidence['api_minor'])),
                int(evidence['build_id']))
        except launch_errors.VerificationError as exc:
            raise errors.Denied(exc.code, str(exc)) from exc

    @staticmethod
    def check_word(launch, evidence):
        if int(evidence['policy']) != launch.policy_word:
            raise errors.Denied(
                'policy_word_mismatch',
                f'The guest was launched under policy word '
                f'{int(evidence["policy"]):#x}, the session is for '
                f'{launch.policy_word:#x}; only the key service sets it.')

    def _restore(self, launch):
        try:
            keys = self._parts.keys.open(
                launch.sealing_key_id, launch.sealed_keys,
                requests.sealed_for(launch))
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

    def _find_other_purpose(self, issued, launch, images):
        """Denied where the policy allows it for another purpose, or None."""
        other = (policies.BOOT if launch.purpose == policies.RESCUE
                 else policies.RESCUE)
        content = self._limiting.content(
            dataclasses.replace(launch, purpose=other))
        if content is None:
            return None
        lists = expectations.lists(content, launch.technology)
        if issued.explain(self._parts.expected.expected_digests(
                lists, images.values())) is None:
            return None
        return errors.Denied(
            'purpose_not_allowed',
            f'The policy allows what was launched for a {other} only, and '
            f'this launch is a {launch.purpose}.')

    def _diagnose(self, lists, keys, policy, launch, images, parsed):
        with self._parts.database.reader() as session:
            gathered = diagnosing.gather(
                session, self._parts.firmwares, launch,
                launch.evidence_fingerprint, images, parsed)
        return diagnosing.diagnose(lists, keys, policy, parsed, gathered,
                                   self._diagnosis_seconds)

    def _explain(self, issued, launch, content, images, claims):
        """What differs, if the measurement confirms the claims, or None."""
        images = dict(images)
        claimed = claims.get('firmware_sha256')
        if claimed is not None and claimed not in images:
            with self._parts.database.reader() as session:
                images.update(self._parts.firmwares.load(
                    session, launch.project_id, [claimed]))
        confirmed = issued.explain(expectations.candidates(
            content, launch.technology, claims, images))
        if confirmed is None:
            return None
        return expectations.difference(content, confirmed)


class Verifying:
    """What a host's evidence leads to.

    :param parts: Parts
    """

    def __init__(self, parts):
        self._parts = parts
        self._lookup = lookup.Lookup(parts)
        self._verifier = Verifier(parts)
        self._releasing = releasing.Releasing(parts)
        self._denying = denying.Denying(parts)
        self._owner_expiry = parts.conf.launches.owner_expiry

    def evidence(self, launch_id, token, evidence, claims):
        """Take a launch's evidence, and release to it if all agrees.

        The same evidence again gets what it got before, or what came of it
        in the meantime.

        :param evidence: the evidence of the request body, as documented
        :param claims: the claims of the request body
        :returns: Launch, which is released or waits for its owner; its
            release is None when there are no secrets
        :raises Denied: the launch is denied
        :raises ServiceError: the launch or the request is refused
        """
        launch = self._lookup.authenticate(launch_id, token)
        fingerprint = requests.fingerprint(evidence)
        if launch.status == launches.AWAITING_SESSION:
            raise errors.Conflict(
                'session_missing',
                'The launch has no session yet, and so there can be no '
                'evidence.')
        if launch.status == launches.SESSION_ISSUED and not _is_other(
                launch, fingerprint):
            if evidence['technology'] != launch.technology:
                raise errors.BadRequest(
                    'evidence_malformed',
                    f'The launch is one of {launch.technology}, the evidence '
                    f'of {evidence["technology"]}.')
            requests.parse_evidence(evidence)
            launch = self._lookup.in_time(
                self._bind(launch, fingerprint, evidence, claims))
        if (launch.status == launches.SESSION_ISSUED
                and not _is_other(launch, fingerprint)):
            launch = (self._advance(launch, evidence, claims)
                      or self._lookup.authenticate(launch_id, token))
        return self._answer(launch, fingerprint)

    @db_api.retried
    def _bind(self, launch, fingerprint, evidence, claims):
        """Take evidence, unless there is some; the Launch after it."""
        with self._parts.journal.writer() as entry:
            if launches.bind_evidence(entry.session, launch, fingerprint,
                                      evidence, claims):
                entry.record_launch('launch.evidence_received', launch,
                                    evidence_sha256=fingerprint.hex())
            return launches.get(entry.session, launch.id)

    def _advance(self, launch, evidence, claims):
        """Take the step that the launch's evidence leads to.

        :returns: the Launch after it, None when another request changed it
            in the meantime, or it was denied
        """
        try:
            if launch.verifier == policies.OWNER:
                self._verifier.check_unverified(launch, evidence)
                return self._await(launch)
            passed = self._verifier.verify(launch, evidence, claims)
            if launch.approval == policies.OWNER:
                done = self._await(launch, passed.verified.claims)
            else:
                done = self._releasing.pack(launch, passed)
        except errors.Denied as denial:
            told = {name: value for name, value in claims.items()
                    if value is not None}
            if told:
                denial.owner['claimed'] = told
            self._denying.deny(launch, denial)
            return None
        if done is not None:
            self._parts.sightings.attested(launch, evidence['build_id'])
        return done

    @db_api.retried
    def _await(self, launch, verdict=None):
        with self._parts.journal.writer() as entry:
            if not launches.await_release(entry.session, launch,
                                          self._owner_expiry, verdict):
                return None
            entry.record_launch(
                'launch.awaiting_release', launch,
                **details.of_evidence(launch),
                verdict_sha256=verdict and details.sha256(verdict))
            return launches.get(entry.session, launch.id)

    def _answer(self, launch, fingerprint):
        """What evidence gets, from where its launch is now."""
        if _is_other(launch, fingerprint):
            refusal = errors.Conflict(
                'evidence_conflict',
                'Other evidence came for this launch before; the first '
                'counts.')
            self._record_refused(launch, fingerprint, refusal)
            raise refusal
        if launch.status == launches.DENIED:
            raise requests.denied(launch)
        if launch.is_released or launch.waiting_for:
            return launch
        if launch.is_open:
            raise requests.busy()
        raise requests.closed(launch)

    @db_api.retried
    def _record_refused(self, launch, fingerprint, refusal):
        LOG.warning('Other evidence for launch %(id)s, which is %(status)s, '
                    'is refused.',
                    {'id': launch.id, 'status': launch.status})
        with self._parts.database.reader() as session:
            if audit.count_of_subject(session, launch.project_id, launch.id,
                                      _REFUSED) >= _MAX_REFUSED:
                return
        with self._parts.journal.writer() as entry:
            entry.record_launch(
                _REFUSED, launch, reason_code=refusal.code,
                evidence_sha256=fingerprint.hex(), status=launch.status)


def _is_other(launch, fingerprint):
    """Whether a launch has evidence already, and this is not it."""
    bound = launch.evidence_fingerprint
    return bound is not None and not hmac.compare_digest(bound, fingerprint)
