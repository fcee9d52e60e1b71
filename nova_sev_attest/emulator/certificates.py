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

"""Certificates as AMD's platforms write them.

Two formats, both with little-endian integers: the SEV certificate (AMD "SEV
API", appendix C.1, 2084 bytes; OCA, PEK, CEK, PDH and the guest owner's
Diffie-Hellman certificate) and the AMD certificate of the signing keys
(appendix B.1; ARK and ASK).
"""

import enum
import struct

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric import utils
from cryptography.hazmat.primitives import hashes

SIZE = 2084
_KEY_SIZE = 1028
_SIGNATURE_SIZE = 512
_COORDINATE_SIZE = 72
_CURVE_P384 = 2
_VERSION = 1
# Version, API (major, minor), reserved, usage and algorithm of the key.
_HEAD = struct.Struct('<IBBHII')


class Usage(enum.IntEnum):
    """What a key may do."""

    ARK = 0x0000
    ASK = 0x0013
    INVALID = 0x1000
    OCA = 0x1001
    PEK = 0x1002
    PDH = 0x1003
    CEK = 0x1004


class Algorithm(enum.IntEnum):
    """What a key or signature is made with."""

    INVALID = 0x0000
    ECDSA_SHA256 = 0x0002
    ECDH_SHA256 = 0x0003
    RSA_SHA384 = 0x0101


class CertificateError(Exception):
    """A certificate that the platform does not take; the text says why."""


def sev_certificate(usage, key, api, signers):
    """Write a SEV certificate of a P-384 key.

    :param usage: a :class:`Usage`; PDH keys agree, all others sign.
    :param key: the elliptic curve public key.
    :param api: version of the platform's API, (major, minor).
    :param signers: one or two pairs of the issuer's usage and private key
        (elliptic curve, or the ASK's RSA key).
    :returns: 2084 bytes.
    """
    algorithm = (Algorithm.ECDH_SHA256 if usage == Usage.PDH
                 else Algorithm.ECDSA_SHA256)
    numbers = key.public_numbers()
    point = b''.join(
        value.to_bytes(_COORDINATE_SIZE, 'little')
        for value in (numbers.x, numbers.y))
    body = (_HEAD.pack(_VERSION, *api, 0, usage, algorithm)
            + (struct.pack('<I', _CURVE_P384) + point).ljust(_KEY_SIZE, b'\0'))
    signatures = [_signature(issuer, private, body)
                  for issuer, private in signers]
    while len(signatures) < 2:
        signatures.append(_slot(Usage.INVALID, Algorithm.INVALID, b''))
    return body + b''.join(signatures)


def _slot(usage, algorithm, signature):
    return (struct.pack('<II', usage, algorithm)
            + signature.ljust(_SIGNATURE_SIZE, b'\0'))


def _signature(usage, private, body):
    if isinstance(private, ec.EllipticCurvePrivateKey):
        der = private.sign(body, ec.ECDSA(hashes.SHA256()))
        signature = b''.join(
            value.to_bytes(_COORDINATE_SIZE, 'little')
            for value in utils.decode_dss_signature(der))
        return _slot(usage, Algorithm.ECDSA_SHA256, signature)
    return _slot(usage, Algorithm.RSA_SHA384, _rsa_sign(private, body))


def _rsa_sign(private, body):
    """RSA-PSS with SHA-384 and a salt as long as the hash; little-endian."""
    digest = hashes.SHA384()
    scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
    return private.sign(body, scheme, digest)[::-1]


def amd_certificate(usage, key, key_id, issuer_id, issuer):
    """Write an ARK or ASK certificate of an RSA key.

    :param key: the RSA public key, exponent 65537.
    :param key_id: 16 bytes that name the key.
    :param issuer_id: 16 bytes that name the issuer's key.
    :param issuer: the issuer's RSA private key.
    :returns: 64 bytes, then exponent, modulus and signature of the key's
        size each: 1600 bytes for an RSA key of 4096 bits.
    """
    numbers = key.public_numbers()
    size = key.key_size // 8
    body = (struct.pack('<I16s16sI16xII', _VERSION, key_id, issuer_id, usage,
                        key.key_size, key.key_size)
            + numbers.e.to_bytes(size, 'little')
            + numbers.n.to_bytes(size, 'little'))
    return body + _rsa_sign(issuer, body)


def owner_key(data):
    """Read the guest owner's Diffie-Hellman certificate.

    Its signatures are not looked at, as by AMD's firmware: the session's
    MACs are what proves the owner. Nor is the room that an RSA key would
    take: virtee's library, and so sevctl, leaves memory of its own there.

    :param data: 2084 bytes.
    :returns: the owner's public key, on P-384.
    :raises CertificateError: when it is anything else.
    """
    if len(data) != SIZE:
        raise CertificateError(f'{len(data)} bytes where a certificate has '
                               f'{SIZE}')
    version, _, _, reserved, usage, algorithm = _HEAD.unpack_from(data)
    curve, = struct.unpack_from('<I', data, _HEAD.size)
    if (version, reserved, usage, algorithm, curve) != (
            _VERSION, 0, Usage.PDH, Algorithm.ECDH_SHA256, _CURVE_P384):
        raise CertificateError(
            f'version {version}, reserved {reserved}, usage {usage:#x}, '
            f'algorithm {algorithm:#x}, curve {curve}: not an ECDH key on '
            f'P-384')
    start = _HEAD.size + 4
    x, y = (data[at:at + _COORDINATE_SIZE]
            for at in (start, start + _COORDINATE_SIZE))
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, 'little'), int.from_bytes(y, 'little'),
        ec.SECP384R1())
    try:
        return numbers.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            'the public key is no point of P-384') from error
