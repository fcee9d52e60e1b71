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

"""The two binary certificate formats of AMD SEV.

*SEV certificates* (PDH, PEK, OCA, CEK and the guest owner's GODH) are 2084
bytes: AMD SEV API specification (publication 55766), appendix C.1. *AMD
certificates* (ARK and ASK) are 832 bytes for 2048-bit keys and 1600 bytes
for 4096-bit keys: same publication, appendix B.1. All integers are
little-endian, those of hundreds of bits included.

Parsing accepts exactly one encoding of each certificate: reserved and unused
bytes must be zero, so that ``parse(data).to_bytes() == data`` and no byte of
an accepted certificate can be changed unnoticed. The one exception is
:meth:`SevCertificate.parse_exchange`, for what other owners' tools make.
"""

import dataclasses
import enum
import hashlib
import struct

from cryptography import exceptions as crypto_exceptions
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric import utils
from cryptography.hazmat.primitives import hashes

from nova_sev_attest.launch import errors

SEV_CERTIFICATE_SIZE = 2084
_SIGNED_SIZE = 0x414
_SIGNATURE_SIZE = 512
_COMPONENT_SIZE = 72  # one EC coordinate, or R, or S

_HEADER = struct.Struct('<IBBHII')
_EC_KEY = struct.Struct('<I72s72s880s')
_KEY_END = 0x10 + 4 + 2 * _COMPONENT_SIZE  # of an elliptic-curve key
_SIGNATURE = struct.Struct('<II512s')

_AMD_HEADER = struct.Struct('<I16s16sI16sII')


class Usage(enum.IntEnum):
    """What a certificate's key is for; also names a signature's signer."""

    ARK = 0x0
    ASK = 0x13
    INVALID = 0x1000
    OCA = 0x1001
    PEK = 0x1002
    PDH = 0x1003
    CEK = 0x1004


class Algorithm(enum.IntEnum):
    """The SEV API's number of what a key does or how a signature was made."""

    INVALID = 0x0
    RSA_SHA256 = 0x1
    ECDSA_SHA256 = 0x2
    ECDH_SHA256 = 0x3
    RSA_SHA384 = 0x101
    ECDSA_SHA384 = 0x102
    ECDH_SHA384 = 0x103


_RSA_HASH = {Algorithm.RSA_SHA256: hashes.SHA256,
             Algorithm.RSA_SHA384: hashes.SHA384}
_ECDSA_HASH = {Algorithm.ECDSA_SHA256: hashes.SHA256,
               Algorithm.ECDSA_SHA384: hashes.SHA384}
_EC_KEY_ALGORITHMS = frozenset((
    Algorithm.ECDSA_SHA256, Algorithm.ECDSA_SHA384,
    Algorithm.ECDH_SHA256, Algorithm.ECDH_SHA384))

_CURVES = {1: ec.SECP256R1, 2: ec.SECP384R1}
_CURVE_IDS = {'secp256r1': 1, 'secp384r1': 2}


def _enum(kind, value, field):
    try:
        return kind(value)
    except ValueError:
        raise errors.CertificateMalformed(
            f'{field} is {value:#x}, which the SEV API does not define; the '
            f'data is damaged or not a SEV certificate') from None


def _must_be_zero(data, field):
    if any(data):
        raise errors.CertificateMalformed(
            f'{field} must be zero and is not; the certificate is damaged '
            f'or of an unknown version')


@dataclasses.dataclass(frozen=True)
class Signature:
    """One of a SEV certificate's two signature slots.

    :ivar usage: who signed (the usage of the signing key).
    :ivar algorithm: how.
    :ivar data: 512 bytes. ECDSA: R and S, each 72 bytes little-endian, then
        zeros. RSA: the signature, little-endian, then zeros.
    """

    usage: Usage
    algorithm: Algorithm
    data: bytes

    @classmethod
    def parse(cls, data):
        """Parse a slot.

        :param data: 520 bytes: usage and algorithm (u32, little-endian),
            then 512 bytes of signature.
        :raises CertificateMalformed: an unknown number, or bytes where zeros
            have to be.
        """
        usage, algorithm, value = _SIGNATURE.unpack(data)
        usage = _enum(Usage, usage, "a signature's usage")
        algorithm = _enum(Algorithm, algorithm, "a signature's algorithm")
        if usage is Usage.INVALID:
            if algorithm is not Algorithm.INVALID:
                raise errors.CertificateMalformed(
                    'an empty signature slot names an algorithm')
            _must_be_zero(value, 'an empty signature slot')
        elif algorithm in _ECDSA_HASH:
            _must_be_zero(value[2 * _COMPONENT_SIZE:],
                          'what follows R and S of a signature')
        elif algorithm not in _RSA_HASH:
            raise errors.CertificateMalformed(
                f'{algorithm.name} cannot sign a certificate')
        return cls(usage, algorithm, value)

    def to_bytes(self):
        """The slot, 520 bytes, as parse() takes it."""
        return _SIGNATURE.pack(self.usage, self.algorithm, self.data)


EMPTY_SIGNATURE = Signature(Usage.INVALID, Algorithm.INVALID,
                            bytes(_SIGNATURE_SIZE))


def _verify_rsa(public_key, algorithm, signature, signed):
    hash_class = _RSA_HASH.get(algorithm)
    if hash_class is None:
        raise errors.CertificateVerificationError(
            f'the signer has an RSA key and the signature says '
            f'{algorithm.name}')
    digest = hash_class()
    # A certificate's signature field has the room of the largest key.
    size = public_key.key_size // 8
    if any(signature[size:]):
        raise errors.CertificateVerificationError(
            f'the signature is longer than the {size} bytes of the key that '
            f'should have made it')
    try:
        public_key.verify(
            signature[:size][::-1], signed,
            padding.PSS(mgf=padding.MGF1(digest),
                        salt_length=digest.digest_size),
            digest)
    except crypto_exceptions.InvalidSignature:
        raise errors.CertificateVerificationError(
            'the RSA signature does not verify') from None


def _verify_ecdsa(public_key, algorithm, signature, signed):
    hash_class = _ECDSA_HASH.get(algorithm)
    if hash_class is None:
        raise errors.CertificateVerificationError(
            f'the signer has an ECDSA key and the signature says '
            f'{algorithm.name}')
    r = int.from_bytes(signature[:_COMPONENT_SIZE], 'little')
    s = int.from_bytes(signature[_COMPONENT_SIZE:2 * _COMPONENT_SIZE],
                       'little')
    try:
        public_key.verify(utils.encode_dss_signature(r, s), signed,
                          ec.ECDSA(hash_class()))
    except crypto_exceptions.InvalidSignature:
        raise errors.CertificateVerificationError(
            'the ECDSA signature does not verify') from None


@dataclasses.dataclass(frozen=True)
class SevCertificate:
    """A SEV certificate with an elliptic-curve key.

    RSA keys, which the format also knows, have no place in the chains that
    SEV platforms show today and are refused.

    :ivar version: format version, always 1.
    :ivar api_major: SEV API version of the firmware that made it.
    :ivar api_minor: see ``api_major``.
    :ivar usage: what the key is for: OCA, PEK, PDH or CEK.
    :ivar algorithm: what the key is used with.
    :ivar curve: ``ec.SECP256R1`` or ``ec.SECP384R1``.
    :ivar x: the point's affine coordinate, an integer.
    :ivar y: see ``x``. The point is on the curve.
    :ivar signatures: the two slots, in order.
    """

    version: int
    api_major: int
    api_minor: int
    usage: Usage
    algorithm: Algorithm
    curve: type
    x: int
    y: int
    signatures: tuple

    @classmethod
    def parse(cls, data):
        """Parse a certificate.

        :param data: exactly 2084 bytes.
        :raises CertificateMalformed: any other size, an undefined value, a
            non-zero reserved byte, a point that is not on its curve.
        """
        if len(data) != SEV_CERTIFICATE_SIZE:
            raise errors.CertificateMalformed(
                f'a SEV certificate has {SEV_CERTIFICATE_SIZE} bytes, this '
                f'has {len(data)}')
        data = bytes(data)
        (version, api_major, api_minor, reserved, usage,
         algorithm) = _HEADER.unpack_from(data)
        if version != 1:
            raise errors.CertificateMalformed(
                f'SEV certificate version {version}, expected 1')
        if reserved:
            raise errors.CertificateMalformed(
                'the reserved bytes at offset 6 must be zero')
        usage = _enum(Usage, usage, "the certificate's usage")
        if usage in (Usage.ARK, Usage.ASK, Usage.INVALID):
            raise errors.CertificateMalformed(
                f'usage {usage.name} does not belong in a SEV certificate; '
                f'expected OCA, PEK, PDH or CEK')
        algorithm = _enum(Algorithm, algorithm, "the key's algorithm")
        if algorithm not in _EC_KEY_ALGORITHMS:
            raise errors.CertificateMalformed(
                f'the key is for {algorithm.name}; only elliptic-curve keys '
                f'are supported')
        curve, x, y = cls._parse_key(data[_HEADER.size:_SIGNED_SIZE])
        middle = _SIGNED_SIZE + _SIGNATURE.size
        return cls(version, api_major, api_minor, usage, algorithm, curve,
                   x, y, (Signature.parse(data[_SIGNED_SIZE:middle]),
                          Signature.parse(data[middle:])))

    @staticmethod
    def _parse_key(data):
        curve_id, x, y, unused = _EC_KEY.unpack(data)
        curve = _CURVES.get(curve_id)
        if curve is None:
            raise errors.CertificateMalformed(
                f'curve {curve_id} is unknown; expected 1 (P-256) or 2 '
                f'(P-384)')
        _must_be_zero(unused, 'what follows the public key')
        x = int.from_bytes(x, 'little')
        y = int.from_bytes(y, 'little')
        _load_point(curve, x, y)
        return curve, x, y

    @classmethod
    def for_exchange(cls, public_key):
        """Make the guest owner's Diffie-Hellman certificate (GODH).

        Its usage is PDH, its API version 0.0, and it is unsigned: a guest
        owner has no key that the platform could know.

        :param public_key: an ``ec.EllipticCurvePublicKey`` on P-384.
        :raises CertificateMalformed: it is on another curve.
        """
        numbers = public_key.public_numbers()
        if not isinstance(numbers.curve, ec.SECP384R1):
            raise errors.CertificateMalformed(
                f'a Diffie-Hellman key on {numbers.curve.name}, expected '
                f'secp384r1 (P-384)')
        return cls(1, 0, 0, Usage.PDH, Algorithm.ECDH_SHA256,
                   ec.SECP384R1, numbers.x, numbers.y,
                   (EMPTY_SIGNATURE, EMPTY_SIGNATURE))

    @classmethod
    def parse_exchange(cls, data):
        """Parse a GODH certificate that another tool made.

        The 880 bytes behind the key, room that an RSA key would take, are
        not looked at and read as zeros: virtee's library, which sevctl is
        made of, never writes them, so that they hold whatever its memory
        held. The platform's firmware does not look at them either, and no
        one verifies a signature over them. All else is as strict as in
        :meth:`parse`. A signature by any key is let be: AMD's sev-tool signs
        with the key itself, and the firmware does not check that.

        :param data: exactly 2084 bytes.
        :returns: SevCertificate of usage PDH with a key for ECDH on P-384;
            its ``to_bytes()`` has zeros in that room.
        :raises CertificateMalformed: anything else.
        """
        data = bytes(data)
        if len(data) == SEV_CERTIFICATE_SIZE:
            data = (data[:_KEY_END] + bytes(_SIGNED_SIZE - _KEY_END) +
                    data[_SIGNED_SIZE:])
        parsed = cls.parse(data)
        if parsed.usage is not Usage.PDH:
            raise errors.CertificateMalformed(
                f'the usage of a GODH certificate is PDH, this has '
                f'{parsed.usage.name}; upload the guest owner\'s own, such '
                f'as sevctl\'s vm_godh.b64')
        if parsed.algorithm is not Algorithm.ECDH_SHA256:
            raise errors.CertificateMalformed(
                f'the key of a GODH certificate is for ECDH_SHA256, this is '
                f'for {parsed.algorithm.name}')
        if parsed.curve is not ec.SECP384R1:
            raise errors.CertificateMalformed(
                f'the key of a GODH certificate is on P-384, this is on '
                f'{parsed.curve.name}')
        return parsed

    def signed_bytes(self):
        """The 0x414 bytes that both signatures cover."""
        return _HEADER.pack(
            self.version, self.api_major, self.api_minor, 0, self.usage,
            self.algorithm) + _EC_KEY.pack(
                _CURVE_IDS[self.curve.name],
                self.x.to_bytes(_COMPONENT_SIZE, 'little'),
                self.y.to_bytes(_COMPONENT_SIZE, 'little'), b'')

    def to_bytes(self):
        """The certificate's 2084 bytes."""
        return self.signed_bytes() + b''.join(
            signature.to_bytes() for signature in self.signatures)

    @property
    def sha256(self):
        """SHA-256 of the whole certificate, 32 bytes."""
        return hashlib.sha256(self.to_bytes()).digest()

    def public_key(self):
        """The key as an ``ec.EllipticCurvePublicKey``."""
        return _load_point(self.curve, self.x, self.y)

    def verify_issued_by(self, issuer):
        """Check that ``issuer`` signed this certificate.

        The signature is looked up by the signer's usage: which of the two
        slots it is in means nothing.

        :param issuer: a SevCertificate or an AmdCertificate.
        :raises CertificateVerificationError: no signature or more than one
            by a key of the issuer's usage, or it does not verify.
        """
        found = [signature for signature in self.signatures
                 if signature.usage == issuer.usage]
        if len(found) != 1:
            raise errors.CertificateVerificationError(
                f'expected one signature by a {issuer.usage.name} key, '
                f'found {len(found)}')
        verify = (_verify_rsa if isinstance(issuer, AmdCertificate)
                  else _verify_ecdsa)
        verify(issuer.public_key(), found[0].algorithm, found[0].data,
               self.signed_bytes())


def _load_point(curve, x, y):
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()
    except ValueError:
        raise errors.CertificateMalformed(
            f'the public key is not a point of {curve.name}') from None


@dataclasses.dataclass(frozen=True)
class AmdCertificate:
    """AMD's root key (ARK) or SEV signing key (ASK).

    :ivar version: format version, always 1.
    :ivar key_id: 16 bytes that name the key.
    :ivar certifying_id: the ``key_id`` of the signer.
    :ivar usage: ARK or ASK.
    :ivar exponent: RSA public exponent.
    :ivar modulus: RSA modulus, of 2048 or 4096 bits.
    :ivar signature: 256 or 512 bytes, little-endian.
    """

    version: int
    key_id: bytes
    certifying_id: bytes
    usage: Usage
    exponent: int
    modulus: int
    signature: bytes

    #: Size in bytes of a whole certificate -> its RSA key's size in bits.
    SIZES = {832: 2048, 1600: 4096}

    @classmethod
    def parse(cls, data):
        """Parse a certificate.

        :param data: exactly 832 or 1600 bytes. (AMD's first publication of
            the Naples ARK has 576: it lacks the signature, which must be
            appended.)
        :raises CertificateMalformed: another size, an undefined value, a
            non-zero reserved byte, an unusable RSA key.
        """
        bits = cls.SIZES.get(len(data))
        if bits is None:
            raise errors.CertificateMalformed(
                f'an AMD certificate has 832 or 1600 bytes, this has '
                f'{len(data)}; 576 bytes are a Naples ARK without its '
                f'signature: append the 256 bytes that AMD published apart')
        data = bytes(data)
        (version, key_id, certifying_id, usage, reserved, exponent_bits,
         modulus_bits) = _AMD_HEADER.unpack_from(data)
        if version != 1:
            raise errors.CertificateMalformed(
                f'AMD certificate version {version}, expected 1')
        usage = _enum(Usage, usage, "the certificate's usage")
        if usage not in (Usage.ARK, Usage.ASK):
            raise errors.CertificateMalformed(
                f'usage {usage.name} in an AMD certificate; expected ARK or '
                f'ASK')
        _must_be_zero(reserved, 'the reserved field at offset 0x28')
        if exponent_bits != bits or modulus_bits != bits:
            raise errors.CertificateMalformed(
                f'key sizes {exponent_bits} and {modulus_bits} bits do not '
                f'fit a certificate of {len(data)} bytes, expected {bits}')
        size = bits // 8
        body = _AMD_HEADER.size
        exponent = int.from_bytes(data[body:body + size], 'little')
        modulus = int.from_bytes(data[body + size:body + 2 * size], 'little')
        if modulus.bit_length() != bits:
            raise errors.CertificateMalformed(
                f'the RSA modulus has {modulus.bit_length()} bits, expected '
                f'{bits}')
        _load_rsa(exponent, modulus)
        return cls(version, key_id, certifying_id, usage, exponent, modulus,
                   data[body + 2 * size:])

    @property
    def key_size(self):
        """Size of the RSA key in bits: 2048 or 4096."""
        return self.modulus.bit_length()

    def signed_bytes(self):
        """All bytes before the signature."""
        size = self.key_size // 8
        return _AMD_HEADER.pack(
            self.version, self.key_id, self.certifying_id, self.usage,
            bytes(16), self.key_size, self.key_size) + self.exponent.to_bytes(
                size, 'little') + self.modulus.to_bytes(size, 'little')

    def to_bytes(self):
        """The certificate's 832 or 1600 bytes."""
        return self.signed_bytes() + self.signature

    @property
    def sha256(self):
        """SHA-256 of the whole certificate, 32 bytes."""
        return hashlib.sha256(self.to_bytes()).digest()

    def public_key(self):
        """The key as an ``rsa.RSAPublicKey``."""
        return _load_rsa(self.exponent, self.modulus)

    def verify_issued_by(self, issuer):
        """Check that ``issuer`` (itself, for an ARK) signed this.

        :param issuer: an AmdCertificate.
        :raises CertificateVerificationError: the certifying id is not the
            issuer's key id, or the signature does not verify.
        """
        if self.certifying_id != issuer.key_id:
            raise errors.CertificateVerificationError(
                f'the {self.usage.name} says that key '
                f'{self.certifying_id.hex()} signed it; the '
                f'{issuer.usage.name} is key {issuer.key_id.hex()}')
        # These certificates name no algorithm: RSA-PSS, with SHA-256 in the
        # first generation (2048 bits) and SHA-384 in all later ones.
        algorithm = (Algorithm.RSA_SHA256 if issuer.key_size == 2048
                     else Algorithm.RSA_SHA384)
        _verify_rsa(issuer.public_key(), algorithm, self.signature,
                    self.signed_bytes())


def _load_rsa(exponent, modulus):
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise errors.CertificateMalformed(
            'the RSA public key is not usable: its exponent or modulus is '
            'out of range') from None
