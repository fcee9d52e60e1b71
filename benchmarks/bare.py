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

"""What a launch costs at least: its primitives, called bare.

The same cryptography as the launch core's, by pyca/cryptography and the
standard library, without parsing, checks, types or errors beyond what the
primitives need.
"""

import hashlib
import hmac
import os
import struct

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric import utils
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers import modes
from cryptography.hazmat.primitives import hashes

_SIGNED = 0x414
_SLOT = 520


def _number(data):
    return int.from_bytes(data, 'little')


def _point(certificate):
    return ec.EllipticCurvePublicNumbers(
        _number(certificate[20:92]), _number(certificate[92:164]),
        ec.SECP384R1()).public_key()


def _check(key, certificate, slot=0):
    signature = certificate[_SIGNED + slot * _SLOT + 8:]
    key.verify(
        utils.encode_dss_signature(_number(signature[:72]),
                                   _number(signature[72:144])),
        certificate[:_SIGNED], ec.ECDSA(hashes.SHA256()))


class Platform:
    """A platform's certificates, as bytes, and its ASK's key.

    :param made: as ``tests.unit.launch.platforms.platform`` makes it.
    :param ask_ark: ASK and ARK; their keys have 4096 bits.
    """

    def __init__(self, made, ask_ark):
        self._made = made
        self._ask = rsa.RSAPublicNumbers(
            _number(ask_ark[64:576]), _number(ask_ark[576:1088])).public_key()

    def verify(self):
        """Each of its keys loaded once, five signatures; returns the PDH."""
        made = self._made
        pdh, pek, oca, cek = map(_point, (made.pdh, made.pek, made.oca,
                                          made.cek))
        digest = hashes.SHA384()
        self._ask.verify(
            made.cek[_SIGNED + 8:_SIGNED + 8 + 512][::-1],
            made.cek[:_SIGNED],
            padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        _check(oca, made.oca)
        _check(oca, made.pek)
        _check(cek, made.pek, slot=1)
        _check(pek, made.pdh)
        return pdh


def _kdf(key, label, context=b''):
    return hmac.digest(key, b'\1\0\0\0' + label + b'\0' + context +
                       b'\x80\0\0\0', hashlib.sha256)[:16]


def _ctr(key, iv, data):
    cipher = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
    return cipher.update(data) + cipher.finalize()


def session(pdh, word):
    """A session for a platform; returns TEK and TIK."""
    key = ec.generate_private_key(ec.SECP384R1())
    tek, tik, nonce, iv = (os.urandom(16) for _ in range(4))
    master = _kdf(key.exchange(ec.ECDH(), pdh), b'sev-master-secret', nonce)
    wrapped = _ctr(_kdf(master, b'sev-kek'), iv, tek + tik)
    numbers = key.public_key().public_numbers()
    godh = (numbers.x.to_bytes(72, 'little') +
            numbers.y.to_bytes(72, 'little'))
    buffer = (nonce + wrapped + iv +
              hmac.digest(_kdf(master, b'sev-kik'), wrapped, hashlib.sha256) +
              hmac.digest(tik, struct.pack('<I', word), hashlib.sha256))
    assert len(godh) + len(buffer) == 272
    return tek, tik


def measure(keys, word, digest, mnonce):
    """The measure that a platform gives."""
    return hmac.digest(
        keys[1], b'\x04\x01\x33\x03' + struct.pack('<I', word) + digest +
        mnonce, hashlib.sha256)


def verify_and_pack(keys, word, digest, given, mnonce, secrets):
    """Compare the measure and encrypt a secret table."""
    if not hmac.compare_digest(measure(keys, word, digest, mnonce), given):
        raise ValueError('not the measure')
    (guid, data), = secrets.items()
    table = (bytes(16) + struct.pack('<I', 40 + len(data)) + guid.bytes_le +
             struct.pack('<I', 20 + len(data)) + data)
    table += bytes(-len(table) % 16)
    iv = os.urandom(16)
    ciphertext = _ctr(keys[0], iv, table)
    size = struct.pack('<I', len(table))
    mac = hmac.digest(keys[1], b'\1\0\0\0\0' + iv + size + size + ciphertext +
                      given, hashlib.sha256)
    return bytes(4) + iv + mac, ciphertext
