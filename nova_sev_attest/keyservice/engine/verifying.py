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

"""Evidence: verified by the service, which then releases the secrets."""

import uuid

from oslo_log import log as logging

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice import diagnosing
from nova_sev_attest.keyservice.engine import lookup
from nova_sev_attest.keyservice.engine import platforms
from nova_sev_attest.keyservice.engine import releasing
from nova_sev_attest.keyservice.engine import requests
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice import expectations
from nova_sev_attest.keyservice.objects import firmwares
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


class Verifying:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts
        self._lookup = lookup.Lookup(parts)
        self._releasing = releasing.Releasing(parts)
        self._diagnosis_seconds = parts.conf.launches.diagnosis_seconds

    def evidence(self, launch_id, token, evidence, claims):
        """Verify a launch's evidence and release the policy's secrets.

        The same evidence again gets what it got before.

        :param evidence: the evidence of the request body, as documented
        :param claims: the claims of the request body
        :returns: Launch; its release is None when the policy has no secrets
        :raises Denied: it does not verify; the launch is closed
        :raises ServiceError: the launch or the request is refused
        """
        launch = self._lookup.authenticate(launch_id, token)
        fingerprint = requests.fingerprint(evidence)
        if not launch.is_open:
            return requests.again(launch, fingerprint)
        if evidence['technology'] != launch.technology:
            raise errors.BadRequest(
                'evidence_malformed',
                f'The launch is one of {launch.technology}, the evidence of '
                f'{evidence["technology"]}.')
        parsed = requests.parse_evidence(evidence)
        if not self._bind(launch.id, fingerprint):
            return requests.again(
                self._lookup.authenticate(launch_id, token), fingerprint)
        try:
            packet, verdict = self._release(launch, evidence, parsed, claims,
                                            fingerprint)
        except errors.Denied as denial:
            return self._deny(launch, fingerprint, denial, claims)
        with self._parts.database.writer() as session:
            done = launches.release(session, launch.id, fingerprint, packet,
                                    verdict)
        launch = self._lookup.authenticate(launch_id, token)
        if not done:
            # Another request released, or the time is over.
            return requests.again(launch, fingerprint)
        self._parts.sightings.attested(launch, parsed.build)
        LOG.info('Launch %(id)s of server %(server)s verified; %(what)s',
                 {'id': launch.id, 'server': launch.server_id,
                  'what': ('its secrets were released.' if packet else
                           'it gets no secrets.')})
        return launch

    @db_api.retried
    def _bind(self, launch_id, fingerprint):
        with self._parts.database.writer() as session:
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
        with self._parts.database.reader() as session:
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
        allowed = self._parts.expected.expected_digests(lists, images.values())
        try:
            verified = issued.verify(parsed, {
                digest: inputs.claims()
                for digest, inputs in allowed.items()})
            platforms.wanted(content).admit_firmware(
                (parsed.api_major, parsed.api_minor), parsed.build)
        except launch_errors.MeasurementMismatch:
            denial = self._explain(issued, launch, content, images, claims)
            if denial is None:
                with self._parts.database.reader() as session:
                    gathered = diagnosing.gather(
                        session, launch, fingerprint, images, parsed)
                denial = diagnosing.diagnose(
                    lists, keys, issued.policy, parsed, gathered,
                    self._diagnosis_seconds)
            raise denial
        except launch_errors.VerificationError as exc:
            raise errors.Denied(exc.code, str(exc)) from exc
        area = images[verified.claims['firmware_sha256']].secret_area
        secrets = self._releasing.fetch(content, launch.project_id)
        try:
            released = verified.release(secrets, area)
        except launch_errors.SecretTooLarge as exc:
            raise errors.Denied('secret_too_large', str(exc)) from exc
        packet = released.packet and launches.Release(
            released.packet.header, released.packet.data, released.gpa)
        return packet, released.claims

    def _restore(self, launch):
        try:
            keys = self._parts.keys.open(
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
            with self._parts.database.reader() as session:
                images.update(firmwares.load(
                    session, launch.project_id, [claimed]))
        confirmed = issued.explain(expectations.candidates(
            content, launch.technology, claims, images))
        if confirmed is None:
            return None
        return expectations.difference(content, confirmed)

    def _deny(self, launch, fingerprint, denial, claims):
        owner = dict(denial.owner)
        told = {name: value for name, value in claims.items()
                if value is not None}
        if told:
            owner['claimed'] = told
        with self._parts.database.writer() as session:
            done = launches.deny(session, launch.id, denial.code,
                                 denial.detail, owner)
        LOG.warning('Launch %(id)s of server %(server)s on host %(host)s '
                    'is denied: %(detail)s',
                    {'id': launch.id, 'server': launch.server_id,
                     'host': launch.host, 'detail': denial.detail})
        if not done:
            with self._parts.database.reader() as session:
                launch = launches.get(session, launch.id)
            return requests.again(launch, fingerprint)
        raise denial
