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

"""What the launch core raises.

Every error is a :class:`LaunchError` and carries ``code``, a short word that
stays the same from release to release, for machines to branch on. The text
is for people: what was expected, what came, and what to do about it. No
error ever carries a key or a secret, nor a value that the guest's owner
expects.
"""


class LaunchError(Exception):
    """Base of all errors of the launch core.

    :ivar code: a stable machine-readable word.
    """

    code = 'launch_error'


class FormatError(LaunchError):
    """Bytes or values that are not what their format says."""

    code = 'malformed'


class CertificateMalformed(FormatError):
    """Bytes that are no SEV certificate, ASK or ARK."""

    code = 'certificate_malformed'


class PolicyMalformed(FormatError):
    """No SEV policy word, or a version that none can hold."""

    code = 'policy_malformed'


class FirmwareMalformed(FormatError):
    """A firmware image of another size, or with a damaged table."""

    code = 'firmware_malformed'


class KernelHashesMalformed(FormatError):
    """Hashes of another size, or a command line that has no hash."""

    code = 'kernel_hashes_malformed'


class VmsaMalformed(FormatError):
    """A vCPU's register, or their number, that no save area can have."""

    code = 'vmsa_malformed'


class SessionMalformed(FormatError):
    """Keys, a session or a GODH certificate of another size or form."""

    code = 'session_malformed'


class EvidenceMalformed(FormatError):
    """A measurement or a version of another size."""

    code = 'evidence_malformed'


class SecretMalformed(FormatError):
    """Secrets that no table can hold, or a packet of another form."""

    code = 'secret_malformed'


class VerificationError(LaunchError):
    """The bytes are well formed; cryptography or policy says no."""

    code = 'verification_failed'


class CertificateVerificationError(VerificationError):
    """A certificate is not signed by the issuer it should be signed by."""

    code = 'certificate_untrusted'


class ChainVerificationError(VerificationError):
    """A platform's certificates do not lead to a trusted root.

    :ivar subject: short name of the certificate at fault, such as ``PEK``.
    :ivar issuer: the name of who should have signed it; ``None`` when the
        certificate itself is not fit for its place.
    :ivar reason: what is wrong and what to do.
    """

    code = 'platform_untrusted'

    def __init__(self, subject, issuer, reason):
        where = subject if issuer is None else f'{subject} <- {issuer}'
        super().__init__(f'platform certificate chain, {where}: {reason}')
        self.subject = subject
        self.issuer = issuer
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.subject, self.issuer, self.reason)


class MeasurementMismatch(VerificationError):
    """No allowed launch digest gives the measurement that came."""

    code = 'measurement_mismatch'


class ApiVersionTooOld(VerificationError):
    """The platform's SEV API is older than the policy's minimum."""

    code = 'api_version_too_old'


class FirmwareUnusable(LaunchError):
    """Well-formed firmware that cannot serve an attested launch."""

    code = 'firmware_unusable'


class SecretTooLarge(LaunchError):
    """The secret table does not fit where the firmware reserves room.

    :ivar size: bytes needed.
    :ivar limit: bytes available.
    """

    code = 'secret_too_large'

    def __init__(self, size, limit):
        super().__init__(
            f'the secret table needs {size} bytes and the guest has room for '
            f'{limit}; give it fewer or smaller secrets')
        self.size = size
        self.limit = limit

    def __reduce__(self):
        return type(self), (self.size, self.limit)


class StateError(LaunchError):
    """A step out of order, or taken twice."""

    code = 'wrong_state'
