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

"""Launch sessions: how TEK and TIK reach one platform and no other.

AMD SEV API specification (publication 55766), LAUNCH_START. The guest's
owner makes a Diffie-Hellman key pair for this one launch, agrees with the
platform's PDH on a secret Z, and derives from it the keys that wrap TEK and
TIK:

    Z       x coordinate of the ECDH on P-384, 48 bytes, big-endian
    master  KDF(Z, "sev-master-secret", nonce)
    KEK     KDF(master, "sev-kek", "")       encrypts TEK || TIK
    KIK     KDF(master, "sev-kik", "")       authenticates the result

The session buffer is 128 bytes: nonce[16], wrapped keys[32], wrap IV[16],
wrap MAC[32], policy MAC[32]. Nothing of it is ever used twice.
"""

import dataclasses
import hashlib
import hmac
import os
import struct

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers import modes

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import policy as launch_policy

KEY_SIZE = 16
SESSION_SIZE = 128


class TransportKeys:
    """The transport encryption (TEK) and integrity (TIK) keys of a launch.

    Shows its keys to nothing but its attributes: not in ``repr``, and it
    refuses to be pickled or copied. Python cannot promise to wipe them from
    memory.

    :ivar tek: 16 bytes.
    :ivar tik: 16 bytes.
    """

    __slots__ = ('tek', 'tik')

    def __init__(self, tek, tik):
        if len(tek) != KEY_SIZE or len(tik) != KEY_SIZE:
            raise errors.SessionMalformed(
                f'TEK and TIK have {KEY_SIZE} bytes each, got {len(tek)} and '
                f'{len(tik)}')
        self.tek = bytes(tek)
        self.tik = bytes(tik)

    def __repr__(self):
        return 'TransportKeys(<hidden>)'

    def __reduce_ex__(self, protocol):
        raise errors.StateError(
            'transport keys are not to be pickled or copied')

    def __eq__(self, other):
        if not isinstance(other, TransportKeys):
            return NotImplemented
        return hmac.compare_digest(self.tek + self.tik,
                                   other.tek + other.tik)

    __hash__ = None


@dataclasses.dataclass(frozen=True)
class Session:
    """What starts one launch on one platform.

    :ivar godh_certificate: 2084 bytes; libvirt's ``dhCert``, undecoded.
    :ivar session: 128 bytes; libvirt's ``session``, undecoded.
    :ivar keys: TransportKeys, which stay with the verifier.
    :ivar policy: the LaunchPolicy that the session is bound to.
    """

    godh_certificate: bytes
    session: bytes
    keys: TransportKeys
    policy: launch_policy.LaunchPolicy

    def __post_init__(self):
        for name, value, size in (
                ('GODH certificate', self.godh_certificate,
                 certificates.SEV_CERTIFICATE_SIZE),
                ('session buffer', self.session, SESSION_SIZE)):
            if len(value) != size:
                raise errors.SessionMalformed(
                    f'a {name} has {size} bytes, this has {len(value)}')


def create_session(platform, policy):
    """Make a fresh session for a platform.

    :param platform: a VerifiedPlatform.
    :param policy: the LaunchPolicy that the platform must enforce.
    :returns: Session.
    """
    return _build_session(
        platform.pdh.public_key(), policy,
        private_key=ec.generate_private_key(ec.SECP384R1()),
        keys=TransportKeys(os.urandom(KEY_SIZE), os.urandom(KEY_SIZE)),
        nonce=os.urandom(16), wrap_iv=os.urandom(16))


def _build_session(pdh_key, policy, *, private_key, keys, nonce, wrap_iv):
    # Apart from create_session, for known-answer tests only.
    kek, kik = _wrapping_keys(private_key.exchange(ec.ECDH(), pdh_key), nonce)
    godh = certificates.SevCertificate.for_exchange(private_key.public_key())
    return Session(
        godh_certificate=godh.to_bytes(),
        session=_session_buffer(kek, kik, keys, policy, nonce, wrap_iv),
        keys=keys, policy=policy)


def _session_buffer(kek, kik, keys, policy, nonce, wrap_iv):
    cipher = Cipher(algorithms.AES(kek), modes.CTR(wrap_iv)).encryptor()
    wrapped = cipher.update(keys.tek + keys.tik) + cipher.finalize()
    return (nonce + wrapped + wrap_iv +
            hmac.digest(kik, wrapped, hashlib.sha256) +
            hmac.digest(keys.tik, policy.to_bytes(), hashlib.sha256))


def _wrapping_keys(z, nonce):
    master = _kdf(z, b'sev-master-secret', nonce)
    return _kdf(master, b'sev-kek', b''), _kdf(master, b'sev-kik', b'')


def _kdf(key, label, context):
    """NIST SP 800-108 counter mode with HMAC-SHA256, as AMD counts.

    Counter and length are 32-bit little-endian where the usual
    implementations, pyca/cryptography's among them, are big-endian. One
    block of output is enough for every key here.
    """
    block = hmac.digest(
        key, struct.pack('<I', 1) + label + b'\0' + context +
        struct.pack('<I', 8 * KEY_SIZE), hashlib.sha256)
    return block[:KEY_SIZE]
