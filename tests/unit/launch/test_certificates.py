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

import itertools
import struct

from cryptography.hazmat.primitives.asymmetric import ec
import hypothesis
from hypothesis import strategies
import pytest

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import errors
from tests.unit.launch import platforms
from tests import vectors

GENERATIONS = ('naples', 'rome', 'milan', 'genoa', 'turin')
NAPLES = 'virtee-sev/tests/naples'
ECDH = ('session-ecdh/v1-policy-3b', 'session-ecdh/v2-policy-3f-es')

parse = certificates.SevCertificate.parse
parse_amd = certificates.AmdCertificate.parse
UNUSABLE = ('^the RSA public key is not usable: its exponent or modulus is '
            'out of range$')


def naples(name):
    return vectors.read(f'{NAPLES}/{name}.cert')


def amd(generation, name):
    return vectors.read(
        f'virtee-sev/src/certs/sev/builtin/{generation}/{name}.cert')


def patched(data, offset, value):
    return data[:offset] + value + data[offset + len(value):]


def u32(value):
    return struct.pack('<I', value)


@pytest.mark.parametrize('path', [
    f'{folder}/{name}.cert' for folder, name in itertools.chain(
        itertools.product((NAPLES,), ('pdh', 'pek', 'oca', 'cek')),
        itertools.product(ECDH, ('pdh', 'pek', 'oca', 'godh')))])
def test_published_certificate_round_trips(path):
    data = vectors.read(path)
    assert parse(data).to_bytes() == data


def test_fields_of_a_real_pek():
    pek = parse(naples('pek'))
    assert (pek.version, pek.api_major, pek.api_minor) == (1, 0, 16)
    assert pek.usage is certificates.Usage.PEK
    assert pek.algorithm is certificates.Algorithm.ECDSA_SHA256
    assert pek.curve is ec.SECP384R1
    assert pek.public_key().curve.name == 'secp384r1'
    assert [(slot.usage, slot.algorithm) for slot in pek.signatures] == [
        (certificates.Usage.OCA, certificates.Algorithm.ECDSA_SHA256),
        (certificates.Usage.CEK, certificates.Algorithm.ECDSA_SHA256)]


def test_real_signatures_verify():
    pdh, pek, oca, cek = map(parse, map(naples, ('pdh', 'pek', 'oca', 'cek')))
    cek.verify_issued_by(parse_amd(amd('naples', 'ask')))
    oca.verify_issued_by(oca)
    pek.verify_issued_by(oca)
    pek.verify_issued_by(cek)
    pdh.verify_issued_by(pek)


@pytest.mark.parametrize('generation', [
    generation for generation in GENERATIONS if generation != 'naples'])
def test_real_cek_is_refused_under_another_ask(generation):
    with pytest.raises(errors.CertificateVerificationError):
        parse(naples('cek')).verify_issued_by(
            parse_amd(amd(generation, 'ask')))


@pytest.mark.parametrize('generation', GENERATIONS)
def test_amd_roots(generation):
    ark_data, ask_data = amd(generation, 'ark'), amd(generation, 'ask')
    ark, ask = parse_amd(ark_data), parse_amd(ask_data)
    assert ark.to_bytes() == ark_data and ask.to_bytes() == ask_data
    assert ark.usage is certificates.Usage.ARK
    assert ask.usage is certificates.Usage.ASK
    assert ark.key_size == (2048 if generation == 'naples' else 4096)
    ark.verify_issued_by(ark)
    ask.verify_issued_by(ark)
    with pytest.raises(errors.CertificateVerificationError,
                       match='says that key'):
        ark.verify_issued_by(ask)


@pytest.mark.parametrize('generation', ('naples', 'rome'))
def test_any_flipped_byte_of_an_ask_is_refused(generation):
    ark = parse_amd(amd(generation, 'ark'))
    data = amd(generation, 'ask')
    for offset in range(len(data)):
        flipped = patched(data, offset, bytes((data[offset] ^ 0x40,)))
        with pytest.raises(errors.LaunchError):
            ask = parse_amd(flipped)
            # Only the usage could turn it into another good certificate.
            assert ask.usage is certificates.Usage.ASK
            ask.verify_issued_by(ark)


def test_naples_ark_without_its_signature():
    unsigned = vectors.read(f'{NAPLES}/ark.cert.bad')
    with pytest.raises(errors.CertificateMalformed, match='append the 256'):
        parse_amd(unsigned)
    completed = parse_amd(unsigned + vectors.read(f'{NAPLES}/ark.cert.sig'))
    completed.verify_issued_by(completed)
    assert completed.to_bytes() == amd('naples', 'ark')
    forged = parse_amd(unsigned + bytes(256))
    with pytest.raises(errors.CertificateVerificationError):
        forged.verify_issued_by(forged)


class TestSevFormat:

    GOOD = platforms.platform().pek

    def test_p256_round_trips(self):
        data = platforms.platform(pdh_curve=ec.SECP256R1).pdh
        certificate = parse(data)
        assert certificate.curve is ec.SECP256R1
        assert certificate.to_bytes() == data

    @pytest.mark.parametrize('size', (0, 1, 2083, 2085, 4168))
    def test_size(self, size):
        with pytest.raises(errors.CertificateMalformed, match='2084 bytes'):
            parse(bytes(size))

    @pytest.mark.parametrize(('offset', 'value', 'message'), [
        (0, u32(2), 'version 2'),
        (6, b'\x01', 'reserved'),
        (7, b'\x01', 'reserved'),
        (8, u32(0x1005), 'usage is 0x1005'),
        (8, u32(0x13), 'ASK does not belong'),
        (8, u32(0x1000), 'INVALID does not belong'),
        (0xC, u32(4), 'algorithm is 0x4'),
        (0xC, u32(0), 'INVALID; only elliptic'),
        (0xC, u32(1), 'RSA_SHA256; only elliptic'),
        (0x10, u32(3), 'curve 3'),
        (0x10, u32(1), 'not a point of secp256r1'),
        (0x14, b'\0' * 72, 'not a point of secp384r1'),
        (0x14 + 71, b'\x01', 'not a point of secp384r1'),
        (0x14 + 144, b'\x01', '^what follows the public key must'),
        (0x413, b'\x01', '^what follows the public key must'),
        (0x414, u32(7), "signature's usage is 0x7"),
        (0x418, u32(7), "signature's algorithm is 0x7"),
        (0x418, u32(0), 'INVALID cannot sign'),
        (0x418, u32(3), 'ECDH_SHA256 cannot sign'),
        (0x41C + 144, b'\x01', '^what follows R and S of a '),
        (0x61B, b'\x01', '^what follows R and S of a '),
        (0x823, b'\x01', '^what follows R and S of a '),
        (0x61C, u32(0x1000),
         '^an empty signature slot names an algorithm$'),
        (0x61C, u32(0x1000) + u32(0), 'empty signature slot must'),
    ])
    def test_damage_is_named(self, offset, value, message):
        with pytest.raises(errors.CertificateMalformed, match=message) as exc:
            parse(patched(self.GOOD, offset, value))
        assert exc.value.code == 'certificate_malformed'

    @hypothesis.given(strategies.binary(max_size=2 * 2084))
    def test_arbitrary_bytes(self, data):
        with pytest.raises(errors.CertificateMalformed):
            parse(data)

    @hypothesis.given(strategies.integers(0, 2083), strategies.binary(
        min_size=1, max_size=8))
    def test_whatever_parses_round_trips(self, offset, value):
        data = patched(self.GOOD, offset, value)[:2084]
        try:
            certificate = parse(data)
        except errors.CertificateMalformed:
            return
        assert certificate.to_bytes() == data


class TestSevSignatures:

    def certificate(self, *slots):
        body = platforms.sev_body(platforms.PEK, 2, platforms.ec_key('pek'))
        return parse(body + b''.join(
            slot(body) if callable(slot) else slot for slot in slots))

    def oca(self):
        key = platforms.ec_key('oca')
        body = platforms.sev_body(platforms.OCA, 2, key)
        return parse(body + 2 * platforms.EMPTY_SLOT)

    def slot(self, usage=platforms.OCA, key='oca', algorithm=2):
        return lambda body: platforms.ec_slot(
            usage, platforms.ec_key(key), body, algorithm)

    @pytest.mark.parametrize('reverse', (False, True))
    def test_signature_is_found_in_either_slot(self, reverse):
        slots = [self.slot(), platforms.EMPTY_SLOT]
        if reverse:
            slots.reverse()
        self.certificate(*slots).verify_issued_by(self.oca())

    def test_no_signature(self):
        with pytest.raises(errors.CertificateVerificationError,
                           match='OCA key, found 0'):
            self.certificate(
                platforms.EMPTY_SLOT,
                platforms.EMPTY_SLOT).verify_issued_by(self.oca())

    def test_two_signatures_by_the_same_signer(self):
        with pytest.raises(errors.CertificateVerificationError,
                           match='found 2'):
            self.certificate(self.slot(), self.slot()).verify_issued_by(
                self.oca())

    def test_another_key(self):
        with pytest.raises(errors.CertificateVerificationError,
                           match='^the ECDSA signature does not verify$'):
            self.certificate(
                self.slot(key='other'),
                platforms.EMPTY_SLOT).verify_issued_by(self.oca())

    def test_another_hash_than_was_signed_with(self):
        with pytest.raises(errors.CertificateVerificationError,
                           match='ECDSA signature does not verify'):
            self.certificate(
                self.slot(algorithm=0x102),
                platforms.EMPTY_SLOT).verify_issued_by(self.oca())

    def test_rsa_signature_where_the_signer_has_an_ec_key(self):
        with pytest.raises(errors.CertificateVerificationError,
                           match='ECDSA key and the signature says RSA'):
            self.certificate(
                self.slot(algorithm=1),
                platforms.EMPTY_SLOT).verify_issued_by(self.oca())

    def test_ec_signature_where_the_signer_has_an_rsa_key(self):
        with pytest.raises(errors.CertificateVerificationError,
                           match='RSA key and the signature says ECDSA'):
            self.certificate(
                self.slot(usage=platforms.ASK),
                platforms.EMPTY_SLOT).verify_issued_by(
                    platforms.anchor().ask)

    def test_zero_signature(self):
        slot = struct.pack('<II512x', platforms.OCA, 2)
        with pytest.raises(errors.CertificateVerificationError):
            self.certificate(slot, platforms.EMPTY_SLOT).verify_issued_by(
                self.oca())

    def test_bytes_behind_an_rsa_signature(self):
        data = patched(platforms.platform().cek, 0x41C + 256, b'\x01')
        with pytest.raises(errors.CertificateVerificationError,
                           match='longer than the 256 bytes'):
            parse(data).verify_issued_by(platforms.anchor().ask)


class TestExchangeCertificate:

    def test_is_what_other_tools_make(self):
        for folder in ECDH:
            data = vectors.read(f'{folder}/godh.cert')
            made = certificates.SevCertificate.for_exchange(
                parse(data).public_key())
            assert made.to_bytes() == data

    def test_wants_p384(self):
        with pytest.raises(errors.CertificateMalformed, match='secp256r1'):
            certificates.SevCertificate.for_exchange(
                platforms.ec_key('p256', ec.SECP256R1).public_key())


class TestAmdFormat:

    GOOD = platforms.ask_ark()[:832]

    def test_good(self):
        ask = parse_amd(self.GOOD)
        assert (ask.key_id, ask.certifying_id) == (b'S' * 16, b'A' * 16)
        assert ask.public_key().key_size == 2048

    @pytest.mark.parametrize('size', (0, 576, 831, 833, 1599, 1601))
    def test_size(self, size):
        with pytest.raises(errors.CertificateMalformed,
                           match='832 or 1600 bytes'):
            parse_amd(bytes(size))

    @pytest.mark.parametrize(('offset', 'value', 'message'), [
        (0, u32(0), 'version 0'),
        (0x24, u32(1), 'usage is 0x1'),
        (0x24, u32(0x1004), 'usage CEK'),
        (0x28, b'\x01', '^the reserved field at offset 0x28 must'),
        (0x37, b'\x01', '^the reserved field at offset 0x28 must'),
        (0x38, u32(4096), '4096 and 2048'),
        (0x3C, u32(0xffffffff), '2048 and 4294967295'),
        (0x40, b'\0' * 256, UNUSABLE),
        (0x40, b'\x02', UNUSABLE),
        (0x23F, b'\0', 'the RSA modulus has'),
    ])
    def test_damage_is_named(self, offset, value, message):
        with pytest.raises(errors.CertificateMalformed, match=message):
            parse_amd(patched(self.GOOD, offset, value))

    @hypothesis.given(strategies.one_of(
        strategies.binary(max_size=64),
        strategies.binary(min_size=832, max_size=832)))
    def test_arbitrary_bytes(self, data):
        with pytest.raises(errors.CertificateMalformed):
            parse_amd(data)

    @hypothesis.given(strategies.integers(0, 831), strategies.binary(
        min_size=1, max_size=4))
    def test_whatever_parses_round_trips(self, offset, value):
        data = patched(self.GOOD, offset, value)[:832]
        try:
            certificate = parse_amd(data)
        except errors.CertificateMalformed:
            return
        assert certificate.to_bytes() == data
