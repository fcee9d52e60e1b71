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

"""The launch measurement: the platform's HMAC over the launch digest.

    HMAC-SHA256(TIK, 0x04 || API major || API minor || build ||
                policy (u32, little-endian) || launch digest || mnonce)

AMD SEV API specification (publication 55766), LAUNCH_MEASURE. Only the
platform that unwrapped the session knows the TIK, so the measurement cannot
come from another launch, be it an earlier one of the same guest.
"""

import dataclasses
import hashlib
import hmac

from nova_sev_attest.launch import digest as launch_digest
from nova_sev_attest.launch import errors

MEASUREMENT_SIZE = 48


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a host presents for a launch. Nothing in it is believed.

    :ivar measure: the HMAC, 32 bytes.
    :ivar mnonce: the platform's nonce, 16 bytes.
    :ivar api_major: of the platform's firmware, one byte, as are the next.
    :ivar api_minor: see ``api_major``.
    :ivar build: build id of the platform's firmware.
    """

    measure: bytes
    mnonce: bytes
    api_major: int
    api_minor: int
    build: int

    def __post_init__(self):
        if len(self.measure) != 32 or len(self.mnonce) != 16:
            raise errors.EvidenceMalformed(
                f'expected a measure of 32 and a nonce of 16 bytes, got '
                f'{len(self.measure)} and {len(self.mnonce)}')
        for name in ('api_major', 'api_minor', 'build'):
            value = getattr(self, name)
            if not 0 <= value <= 0xff:
                raise errors.EvidenceMalformed(
                    f'{name} is {value}, expected 0 to 255')

    @classmethod
    def parse(cls, measurement, api_major, api_minor, build):
        """Parse what ``virDomainGetLaunchSecurityInfo`` returns.

        :param measurement: ``sev-measurement`` decoded: 48 bytes, measure
            then nonce.
        :param api_major: ``sev-api-major``.
        :param api_minor: ``sev-api-minor``.
        :param build: ``sev-build-id``.
        :raises EvidenceMalformed: a value of another size.
        """
        if len(measurement) != MEASUREMENT_SIZE:
            raise errors.EvidenceMalformed(
                f'a measurement has {MEASUREMENT_SIZE} bytes, this has '
                f'{len(measurement)}')
        return cls(bytes(measurement[:32]), bytes(measurement[32:]),
                   api_major, api_minor, build)

    @property
    def api(self):
        """(major, minor)."""
        return self.api_major, self.api_minor


def compute_measure(keys, policy, evidence, digest):
    """The measure that a platform would give.

    :param keys: the launch's TransportKeys.
    :param policy: the LaunchPolicy of its session.
    :param evidence: Evidence; its API version, build and nonce are used.
    :param digest: the launch digest, 32 bytes.
    :returns: 32 bytes.
    :raises FormatError: a digest of another size.
    """
    if len(digest) != launch_digest.DIGEST_SIZE:
        raise errors.FormatError(
            f'a launch digest has {launch_digest.DIGEST_SIZE} bytes, this '
            f'has {len(digest)}')
    message = (bytes((4, evidence.api_major, evidence.api_minor,
                      evidence.build)) +
               policy.to_bytes() + digest + evidence.mnonce)
    return hmac.digest(keys.tik, message, hashlib.sha256)


def find_digest(keys, policy, evidence, candidates):
    """The launch digest among ``candidates`` that was measured, or None.

    Looks at every candidate, whichever it is. This alone decides nothing:
    :func:`verify_measurement` does.

    :param keys: TransportKeys; the TIK alone is used.
    :param policy: LaunchPolicy of the session.
    :param evidence: Evidence.
    :param candidates: iterable of launch digests, 32 bytes each.
    :raises FormatError: a digest of another size.
    """
    found = None
    for digest in candidates:
        if hmac.compare_digest(
                compute_measure(keys, policy, evidence, digest),
                evidence.measure):
            found = digest
    return found


def verify_measurement(keys, policy, evidence, allowed):
    """Verify that an allowed launch digest was measured.

    :param keys: the launch's TransportKeys.
    :param policy: the LaunchPolicy of its session: the verifier's own
        choice, never what the host says it used.
    :param evidence: Evidence.
    :param allowed: collection of launch digests, 32 bytes each. An empty
        one allows nothing.
    :returns: the one that was measured.
    :raises ApiVersionTooOld: the platform's firmware is older than the
        policy's minimum.
    :raises MeasurementMismatch: none of them was measured.
    """
    if evidence.api < policy.min_api:
        raise errors.ApiVersionTooOld(
            'the platform runs SEV API version {}.{}, the policy asks for '
            '{}.{} or later; update its firmware or place the server on '
            'another host'.format(*evidence.api, *policy.min_api))
    digest = find_digest(keys, policy, evidence, allowed)
    if digest is None:
        raise errors.MeasurementMismatch(
            'the measurement is not that of any launch that the policy '
            'allows: firmware, kernel, initrd, command line, number of '
            'vCPUs or guest policy differ, or it belongs to another launch')
    return digest
