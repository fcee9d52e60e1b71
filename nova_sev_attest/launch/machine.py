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

"""The launch of one SEV or SEV-ES guest, as the verifier sees it.

A pure state machine: it does no I/O, reads no clock and keeps no record.
States are types, and each step exists only on the state it belongs to:

    begin(platform, ...)      -> SessionIssued   the host gets the session
    SessionIssued.verify(...) -> Verified        the host's evidence held
    Verified.release(...)     -> Released        the guest gets its secrets

The order, and why:

1. The platform's chain is verified before a session is made, because the
   session gives TEK and TIK to whoever owns the PDH's private key.
2. Evidence is verified before a secret is fetched or packed. ``verify``
   succeeds or fails once: the wrong guess of a host is its last.
3. A packet is made from :class:`Verified` only, which only ``verify`` makes,
   and once, because a second one under the same keys would be another
   secret for the same guest.

Each step takes the keys away from the state it leaves, so that an old state
cannot be used again. Only a failed ``verify`` keeps them, for
:meth:`SessionIssued.explain`, from which no state follows.

Between two steps a verifier that keeps its launches elsewhere may drop the
object and make it anew by :meth:`SessionIssued.restore`. No other state can
be restored: the evidence is verified again.
"""

import os
import uuid

from nova_sev_attest.launch import errors
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import secret
from nova_sev_attest.launch import session as launch_session

_STEP = object()


def begin(platform, launch_id, policy):
    """Start a launch.

    :param platform: the VerifiedPlatform that it shall run on.
    :param launch_id: uuid.UUID of this one launch.
    :param policy: the LaunchPolicy that the verifier demands.
    :returns: SessionIssued.
    """
    return SessionIssued(
        launch_id, platform.facts,
        launch_session.create_session(platform, policy), token=_STEP)


class _State:
    """A launch at one step, holding its keys until it is left."""

    def __init__(self, launch_id, platform, keys, token):
        if token is not _STEP:
            raise errors.StateError(
                f'{type(self).__name__} is reached by the launch\'s steps '
                f'only; start with begin() or SessionIssued.restore()')
        if not isinstance(launch_id, uuid.UUID):
            raise errors.StateError(
                f'a launch is named by a uuid.UUID, not by a '
                f'{type(launch_id).__name__}')
        self.launch_id = launch_id
        self.platform = platform
        self._keys = keys

    def __repr__(self):
        return f'<{type(self).__name__} {self.launch_id}>'

    def __reduce_ex__(self, protocol):
        raise errors.StateError('a launch is not to be pickled or copied')

    def _take_keys(self):
        keys = self._keys
        if keys is None:
            raise errors.StateError(
                f'launch {self.launch_id}: this step was taken before; a '
                f'launch is done once, begin a new one')
        self._keys = None
        return keys


class SessionIssued(_State):
    """The session is made; the evidence has not come.

    :ivar launch_id: uuid.UUID.
    :ivar platform: PlatformFacts.
    :ivar policy: LaunchPolicy.
    :ivar godh_certificate: 2084 bytes for the host.
    :ivar session: 128 bytes for the host.
    """

    def __init__(self, launch_id, platform, session, *, token=None):
        super().__init__(launch_id, platform, session.keys, token)
        self.policy = session.policy
        self.godh_certificate = session.godh_certificate
        self.session = session.session
        self._failed = None

    @classmethod
    def restore(cls, launch_id, platform, session):
        """The same launch again, from what was stored of it.

        :param launch_id: uuid.UUID.
        :param platform: the PlatformFacts that the launch began with.
        :param session: the Session that it began with, with its keys.
        """
        return cls(launch_id, platform, session, token=_STEP)

    @property
    def keys(self):
        """TransportKeys, for sealing; raises StateError once verified."""
        if self._keys is None:
            raise errors.StateError(
                f'launch {self.launch_id}: its keys have moved on')
        return self._keys

    def verify(self, evidence, allowed):
        """Verify the host's evidence.

        :param evidence: Evidence.
        :param allowed: mapping of each allowed launch digest (32 bytes) to
            the named claims that it stands for (a mapping of str to JSON
            values, such as ``firmware_sha256``). An empty one allows
            nothing.
        :returns: Verified.
        :raises ApiVersionTooOld, MeasurementMismatch: the launch has failed
            for good.
        :raises StateError: evidence was verified before, whatever came out.
        """
        keys = self._take_keys()
        try:
            digest = measurement.verify_measurement(
                keys, self.policy, evidence, allowed)
        except errors.VerificationError:
            self._failed = (keys, evidence)
            raise
        return Verified(self, keys, evidence, digest, allowed[digest],
                        token=_STEP)

    def explain(self, candidates, policy=None):
        """After ``verify`` failed: which guess does the measurement confirm?

        For telling people what differs, by candidates made from what the
        host claims to have launched. It accepts nothing and leads nowhere.

        :param candidates: mapping of launch digests (32 bytes) to anything.
        :param policy: LaunchPolicy to try in place of the session's.
        :returns: the value of the confirmed digest, or None.
        :raises StateError: ``verify`` has not failed.
        """
        if self._failed is None:
            raise errors.StateError(
                f'launch {self.launch_id}: claims explain evidence that '
                f'failed, and nothing before that')
        keys, evidence = self._failed
        digest = measurement.find_digest(
            keys, self.policy if policy is None else policy, evidence,
            candidates)
        return None if digest is None else candidates[digest]


class Verified(_State):
    """The platform measured what the guest's owner allows.

    :ivar launch_id: uuid.UUID.
    :ivar platform: PlatformFacts.
    :ivar digest: the launch digest, 32 bytes.
    :ivar claims: the verdict, a dict of named claims: those of the digest
        and of the platform.
    """

    def __init__(self, issued, keys, evidence, digest, named, *, token=None):
        super().__init__(issued.launch_id, issued.platform, keys, token)
        self.digest = digest
        self._measure = evidence.measure
        self.claims = {
            **named,
            'platform_root': self.platform.anchor_name,
            'emulated': self.platform.emulated,
            'cek_fingerprint': self.platform.cek_fingerprint.hex(),
            'api_version': '{}.{}'.format(*evidence.api),
            'build_id': evidence.build,
            'policy_word': issued.policy.word,
            'launch_digest': digest.hex(),
        }

    def release(self, secrets=None, area=None):
        """Encrypt the guest's secrets to this one launch.

        :param secrets: mapping of uuid.UUID to bytes; None or empty when
            the guest gets none.
        :param area: the firmware's secret Area, from
            ``Firmware.require_secret_area``; needed with secrets.
        :returns: Released.
        :raises SecretMalformed, SecretTooLarge: the launch stays verified.
        :raises StateError: released before, or no area given.
        """
        table = None
        if secrets:
            table = secret.build_secret_table(secrets)
            if area is None:
                raise errors.StateError(
                    'secrets need the area that the firmware keeps for them')
            if len(table) > area.size:
                raise errors.SecretTooLarge(len(table), area.size)
        keys = self._take_keys()
        packet = None
        if table is not None:
            packet = secret._encrypt(keys, self._measure, table,
                                     os.urandom(secret.IV_SIZE))
        return Released(self, packet, area, token=_STEP)


class Released(_State):
    """The secrets were packed; the keys are gone.

    :ivar launch_id: uuid.UUID.
    :ivar platform: PlatformFacts.
    :ivar claims: as in Verified.
    :ivar packet: LaunchSecret, or None when the guest gets no secret.
    :ivar gpa: guest-physical address to inject it at, or None.
    """

    def __init__(self, verified, packet, area, *, token=None):
        super().__init__(verified.launch_id, verified.platform, None, token)
        self.claims = verified.claims
        self.packet = packet
        self.gpa = None if packet is None else area.base
