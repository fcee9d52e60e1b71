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

"""A SEV platform for tests: the other side of the protocol.

Written from the wire format, with its own packing, so that a mistake of the
core's does not agree with itself.
"""

import dataclasses
import functools
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

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import chain

OCA, PEK, PDH, CEK = 0x1001, 0x1002, 0x1003, 0x1004
ASK, NOBODY = 0x13, 0x1000
RSA_SHA256, ECDSA_SHA256, ECDH_SHA256 = 1, 2, 3
RSA_SHA384 = 0x101

EMPTY_SLOT = struct.pack('<II512x', NOBODY, 0)


@functools.lru_cache(maxsize=None)
def rsa_key(name, bits=2048):
    """A key that is made once per name and test run."""
    return rsa.generate_private_key(65537, bits)


@functools.lru_cache(maxsize=None)
def ec_key(name, curve=ec.SECP384R1):
    """A key that is made once per name and test run."""
    return ec.generate_private_key(curve())


def sev_body(usage, algorithm, key, api=(1, 51)):
    """The signed part of a SEV certificate, 0x414 bytes."""
    numbers = key.public_key().public_numbers()
    curve = 1 if numbers.curve.name == 'secp256r1' else 2
    return struct.pack('<IBBHII', 1, *api, 0, usage, algorithm) + struct.pack(
        '<I72s72s880x', curve, numbers.x.to_bytes(72, 'little'),
        numbers.y.to_bytes(72, 'little'))


def ec_slot(usage, key, body, algorithm=ECDSA_SHA256):
    """A signature slot with an ECDSA signature, 520 bytes."""
    r, s = utils.decode_dss_signature(
        key.sign(body, ec.ECDSA(hashes.SHA256())))
    return struct.pack('<II72s72s368x', usage, algorithm,
                       r.to_bytes(72, 'little'), s.to_bytes(72, 'little'))


def pss(key, body):
    digest = hashes.SHA256() if key.key_size == 2048 else hashes.SHA384()
    return key.sign(
        body, padding.PSS(padding.MGF1(digest), digest.digest_size),
        digest)[::-1]


def rsa_slot(key, body):
    """A signature slot with an ASK's signature, 520 bytes."""
    algorithm = RSA_SHA256 if key.key_size == 2048 else RSA_SHA384
    return struct.pack('<II512s', ASK, algorithm, pss(key, body))


def amd_certificate(usage, key, key_id, signer, signer_id):
    """An ARK or ASK, 832 or 1600 bytes."""
    numbers = key.public_key().public_numbers()
    size = key.key_size // 8
    body = struct.pack('<I16s16sI16xII', 1, key_id, signer_id, usage,
                       key.key_size, key.key_size)
    body += numbers.e.to_bytes(size, 'little')
    body += numbers.n.to_bytes(size, 'little')
    return body + pss(signer, body)


def ask_ark(name='emulated', bits=2048):
    """ASK and ARK, one after the other."""
    ark_key = rsa_key(f'{name} ark', bits)
    ark_id, ask_id = b'A' * 16, b'S' * 16
    ask = amd_certificate(ASK, rsa_key(f'{name} ask', bits), ask_id,
                          ark_key, ark_id)
    return ask + amd_certificate(0, ark_key, ark_id, ark_key, ark_id)


def anchor(name='emulated', bits=2048):
    data = ask_ark(name, bits)
    half = len(data) // 2
    return chain.Anchor(name,
                        certificates.AmdCertificate.parse(data[half:]),
                        certificates.AmdCertificate.parse(data[:half]),
                        emulated=True)


@dataclasses.dataclass
class Platform:
    """Keys and certificates, as bytes."""

    pdh_key: ec.EllipticCurvePrivateKey
    pdh: bytes
    pek: bytes
    oca: bytes
    cek: bytes

    @property
    def cert_chain(self):
        return self.pek + self.oca + self.cek

    def parse(self):
        return chain.PlatformCertificates.from_libvirt(self.pdh,
                                                       self.cert_chain)

    def launch(self, godh, session, policy_word):
        """LAUNCH_START: a guest, or AssertionError as firmware refuses."""
        nonce, wrapped, iv, wrap_mac, policy_mac = struct.unpack(
            '<16s32s16s32s32s', session)
        tek_tik = unwrap(self.pdh_key, godh, nonce, wrapped, iv, wrap_mac)
        tik = tek_tik[16:]
        assert policy_mac == hmac.digest(
            tik, struct.pack('<I', policy_word), 'sha256'), 'policy MAC'
        return Guest(tek_tik[:16], tik, policy_word)


def kdf(key, label, context):
    return hmac.digest(key, struct.pack('<I', 1) + label + b'\0' + context +
                       struct.pack('<I', 128), 'sha256')[:16]


def exchange(private_key, godh):
    """Z of a private key and a GODH certificate, 48 bytes."""
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(godh[20:92], 'little'),
        int.from_bytes(godh[92:164], 'little'), ec.SECP384R1())
    return private_key.exchange(ec.ECDH(), numbers.public_key())


def unwrap(private_key, godh, nonce, wrapped, iv, wrap_mac):
    master = kdf(exchange(private_key, godh), b'sev-master-secret', nonce)
    kek, kik = kdf(master, b'sev-kek', b''), kdf(master, b'sev-kik', b'')
    assert wrap_mac == hmac.digest(kik, wrapped, 'sha256'), 'wrap MAC'
    return ctr(kek, iv, wrapped)


def ctr(key, iv, data):
    cipher = Cipher(algorithms.AES(key), modes.CTR(iv)).decryptor()
    return cipher.update(data) + cipher.finalize()


@dataclasses.dataclass
class Guest:
    """A launched guest."""

    tek: bytes
    tik: bytes
    policy_word: int

    def measure(self, *memory, api=(1, 51), build=3):
        """LAUNCH_MEASURE over pieces of memory: 48 bytes."""
        digest = hashlib.sha256(b''.join(memory)).digest()
        mnonce = os.urandom(16)
        measure = hmac.digest(
            self.tik, struct.pack('<BBBBI', 4, *api, build,
                                  self.policy_word) + digest + mnonce,
            'sha256')
        return measure + mnonce

    def inject(self, header, data, measure):
        """LAUNCH_SECRET: the table in clear."""
        flags, iv, mac = struct.unpack('<I16s32s', header)
        assert flags == 0
        assert mac == hmac.digest(
            self.tik, b'\x01' + header[:20] +
            struct.pack('<II', len(data), len(data)) + data + measure,
            'sha256'), 'secret MAC'
        return ctr(self.tek, iv, data)


def platform(root='emulated', bits=2048, name='platform', *, pdh_usage=PDH,
             pdh_algorithm=ECDH_SHA256, pdh_curve=ec.SECP384R1,
             pek_curve=ec.SECP384R1, pek_algorithm=ECDSA_SHA256,
             cek_usage=CEK,
             cek_curve=ec.SECP384R1, swap_pek_slots=False):
    """A platform whose chain is right, but for what is asked otherwise."""
    cek = ec_key(f'{name} cek', cek_curve)
    oca = ec_key(f'{name} oca')
    pek = ec_key(f'{name} pek', pek_curve)
    pdh = ec_key(f'{name} pdh', pdh_curve)
    cek_body = sev_body(cek_usage, ECDSA_SHA256, cek)
    oca_body = sev_body(OCA, ECDSA_SHA256, oca)
    pek_body = sev_body(PEK, pek_algorithm, pek)
    pdh_body = sev_body(pdh_usage, pdh_algorithm, pdh)
    slots = [ec_slot(OCA, oca, pek_body), ec_slot(CEK, cek, pek_body)]
    if swap_pek_slots:
        slots.reverse()
    return Platform(
        pdh_key=pdh,
        pdh=pdh_body + ec_slot(PEK, pek, pdh_body) + EMPTY_SLOT,
        pek=pek_body + b''.join(slots),
        oca=oca_body + ec_slot(OCA, oca, oca_body) + EMPTY_SLOT,
        cek=(cek_body + rsa_slot(rsa_key(f'{root} ask', bits), cek_body) +
             EMPTY_SLOT))


_FOOTER = bytes.fromhex('de82b596b21ff745baeaa366c55a082d')
_SECRET = bytes.fromhex('61b32e4c9b7dc34c8081127c90d3d294')
_HASHES = bytes.fromhex('1f3755723b3a044b927b1da6efa8d454')
_RESET = bytes.fromhex('de71f7007e1acb4f890e68c77e2fb44e')


def table_entry(guid, data):
    return data + struct.pack('<H', len(data) + 18) + guid


def firmware(secret=(0x810000, 0xC00), hash_table=(0x810C00, 0x400),
             reset_eip=0x80b004, size=8192, more=b''):
    """A firmware image; an area of None is left out of the table."""
    entries = more
    if hash_table is not None:
        entries += table_entry(_HASHES, struct.pack('<II', *hash_table))
    if secret is not None:
        entries += table_entry(_SECRET, struct.pack('<II', *secret))
    if reset_eip is not None:
        entries += table_entry(_RESET, struct.pack('<I', reset_eip))
    return with_table(entries, size)


def with_table(entries, size=8192, length=None):
    """Firmware with these table entries and a footer of this length."""
    if length is None:
        length = len(entries) + 18
    end = entries + struct.pack('<H', length) + _FOOTER + bytes(32)
    return bytes(i * 7 & 0xff for i in range(size - len(end))) + end


def read_secret_table(data):
    """A guest's reader of the secret table: list of (GUID, data)."""
    assert data[:16] == bytes.fromhex('42f5741edd71664d963eef4287ff173b')
    size, = struct.unpack_from('<I', data, 16)
    assert size <= len(data) and not any(data[size:])
    entries, at = [], 20
    while at < size:
        length, = struct.unpack_from('<I', data, at + 16)
        entries.append((data[at:at + 16], data[at + 20:at + length]))
        at += length
    assert at == size
    return entries
