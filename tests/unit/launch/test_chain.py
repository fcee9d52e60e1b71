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

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec
import pytest

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import errors
from tests.unit.launch import platforms
from tests import vectors

NAMES = ('pdh', 'pek', 'oca', 'cek')


def refused(platform, subject, issuer, message, anchors=None):
    if anchors is None:
        anchors = [platforms.anchor()]
    with pytest.raises(errors.ChainVerificationError, match=message) as exc:
        platform.parse().verify(anchors)
    assert (exc.value.subject, exc.value.issuer) == (subject, issuer)
    assert exc.value.code == 'platform_untrusted'


def naples():
    read = vectors.read
    return platforms.Platform(None, *(
        read(f'virtee-sev/tests/naples/{name}.cert') for name in NAMES))


def amd_anchors():
    read = vectors.read
    root = 'virtee-sev/src/certs/sev/builtin'
    parse = certificates.AmdCertificate.parse
    return [chain.Anchor(f'amd-{name}', parse(read(f'{root}/{name}/ark.cert')),
                         parse(read(f'{root}/{name}/ask.cert')),
                         emulated=False)
            for name in ('rome', 'milan', 'genoa', 'turin', 'naples')]


class TestRealPlatform:

    def test_naples_chain_verifies(self):
        verified = naples().parse().verify(amd_anchors())
        assert verified.anchor_name == 'amd-naples'
        assert verified.emulated is False
        assert verified.api == (0, 16)
        assert verified.cek_fingerprint == hashlib.sha256(
            naples().cek).digest()
        assert verified.pdh.to_bytes() == naples().pdh

    def test_naples_chain_without_its_anchor(self):
        refused(naples(), 'CEK', 'ASK', r'tried: amd-rome, .*key server',
                amd_anchors()[:-1])

    def test_no_anchor_at_all(self):
        refused(naples(), 'CEK', 'ASK', 'tried: none', [])

    @pytest.mark.parametrize('name', NAMES)
    def test_any_flipped_byte_is_refused(self, name):
        anchors = amd_anchors()[-1:]
        good = naples()
        data = getattr(good, name)
        for offset in range(len(data)):
            flipped = bytearray(data)
            flipped[offset] ^= 1 << offset % 8
            platform = naples()
            setattr(platform, name, bytes(flipped))
            with pytest.raises((errors.CertificateMalformed,
                                errors.ChainVerificationError)):
                platform.parse().verify(anchors)

    @pytest.mark.parametrize('folder', ('v1-policy-3b', 'v2-policy-3f-es'))
    def test_pek_without_a_signature_by_the_cek(self, folder):
        platform = naples()
        for name in ('pdh', 'pek', 'oca'):
            setattr(platform, name,
                    vectors.read(f'session-ecdh/{folder}/{name}.cert'))
        refused(platform, 'PEK', 'CEK', 'found 0', amd_anchors())


@pytest.mark.parametrize('bits', (2048, 4096))
def test_made_platform_verifies(bits):
    name = f'root of {bits}'
    verified = platforms.platform(name, bits).parse().verify(
        [platforms.anchor(), platforms.anchor(name, bits)])
    assert verified.facts == chain.PlatformFacts(
        anchor_name=name, emulated=True, api=(1, 51),
        cek_fingerprint=verified.cek_fingerprint)


def test_owner():
    platform = platforms.platform()
    assert platform.parse().verify(
        [platforms.anchor()]).oca_fingerprint == hashlib.sha256(
            platform.oca).digest()


def test_signatures_of_the_pek_in_the_other_order():
    platform = platforms.platform(swap_pek_slots=True)
    assert platform.parse().verify([platforms.anchor()]).emulated


def test_order_of_the_certificates():
    platform = platforms.platform()
    platform.pek, platform.oca = platform.oca, platform.pek
    refused(platform, 'OCA', None, 'usage PEK is in its place')


def test_pdh_of_another_usage():
    refused(platforms.platform(pdh_usage=platforms.PEK), 'PDH', None,
            'usage PEK is in its place')


def test_pdh_on_another_curve():
    refused(platforms.platform(pdh_curve=ec.SECP256R1), 'PDH', None,
            'secp256r1, expected secp384r1')


@pytest.mark.parametrize('algorithm', (2, 0x103))
def test_pdh_of_another_algorithm(algorithm):
    refused(platforms.platform(pdh_algorithm=algorithm), 'PDH', None,
            'expected ECDH_SHA256')


def test_cek_on_another_curve():
    refused(platforms.platform(cek_curve=ec.SECP256R1), 'CEK', None,
            'secp256r1')


def test_cek_of_another_usage():
    refused(platforms.platform(cek_usage=platforms.OCA), 'CEK', None,
            'usage OCA is in its place')


def test_pek_on_another_curve():
    refused(platforms.platform(pek_curve=ec.SECP256R1), 'PEK', None,
            'secp256r1')


def test_pek_for_key_exchange():
    refused(platforms.platform(pek_algorithm=3), 'PEK', None,
            'ECDH_SHA256, expected ECDSA_SHA256 or ECDSA_SHA384')


@pytest.mark.parametrize(('name', 'subject', 'issuer'), [
    ('cek', 'PEK', 'CEK'), ('oca', 'PEK', 'OCA'), ('pek', 'PEK', 'OCA'),
    ('pdh', 'PDH', 'PEK')])
def test_certificate_of_another_platform(name, subject, issuer):
    platform = platforms.platform()
    setattr(platform, name, getattr(platforms.platform(name='other'), name))
    refused(platform, subject, issuer, 'export the platform certificates')


def test_cek_signed_by_another_root():
    refused(platforms.platform('another'), 'CEK', 'ASK', 'tried: emulated')


def test_oca_not_signed_by_itself():
    platform = platforms.platform()
    body = platform.oca[:0x414]
    platform.oca = body + platforms.ec_slot(
        platforms.OCA, platforms.ec_key('other'), body) + platforms.EMPTY_SLOT
    refused(platform, 'OCA', 'OCA', 'does not verify')


class TestReplacementCek:
    """The CEK that AMD signed takes the place of the host's."""

    def host(self):
        platform = platforms.platform()
        signed = platform.cek
        platform.cek = signed[:0x414] + 2 * platforms.EMPTY_SLOT
        return platform, signed

    def test_the_hosts_own_is_not_enough(self):
        refused(self.host()[0], 'CEK', 'ASK', 'not signed by AMD')

    def test_replaced(self):
        platform, signed = self.host()
        verified = chain.PlatformCertificates.from_libvirt(
            platform.pdh, platform.cert_chain, cek=signed).verify(
                [platforms.anchor()])
        assert verified.cek_fingerprint == hashlib.sha256(signed).digest()

    def test_for_a_chip(self):
        platform, signed = self.host()
        verified = platform.parse().of_chip(
            b'chip', certificates.SevCertificate.parse(signed)).verify(
                [platforms.anchor()])
        assert verified.chip_id == b'chip'
        assert verified.cek_fingerprint == hashlib.sha256(signed).digest()

    def test_what_the_host_shows_names_no_chip(self):
        assert platforms.platform().parse().verify(
            [platforms.anchor()]).chip_id is None

    def test_of_another_chip(self):
        platform, _signed = self.host()
        other = platforms.platform(name='other').cek
        with pytest.raises(errors.ChainVerificationError) as exc:
            chain.PlatformCertificates.from_libvirt(
                platform.pdh, platform.cert_chain, cek=other).verify(
                    [platforms.anchor()])
        assert (exc.value.subject, exc.value.issuer) == ('PEK', 'CEK')


@pytest.mark.parametrize('size', (0, 2084, 3 * 2084 - 1, 4 * 2084))
def test_size_of_the_chain(size):
    with pytest.raises(errors.CertificateMalformed, match='expected 6252'):
        chain.PlatformCertificates.from_libvirt(platforms.platform().pdh,
                                                bytes(size))


def test_verified_platform_is_made_by_verify_only():
    verified = platforms.platform().parse().verify([platforms.anchor()])
    with pytest.raises(errors.StateError,
                       match=r'^a verified platform comes from '
                             r'PlatformCertificates\.verify only$'):
        chain.VerifiedPlatform(verified.pdh, verified.facts)


class TestAnchor:

    def test_ark_and_ask_exchanged(self):
        good = platforms.anchor()
        with pytest.raises(errors.ChainVerificationError,
                           match='usage ASK in its place') as exc:
            chain.Anchor('x', good.ask, good.ark, True)
        assert (exc.value.subject, exc.value.issuer) == ('ARK', None)

    def test_ask_of_another_root(self):
        good, other = platforms.anchor(), platforms.anchor('another')
        with pytest.raises(errors.ChainVerificationError,
                           match='the RSA signature does not verify$'
                           ) as exc:
            chain.Anchor('x', good.ark, other.ask, True)
        assert (exc.value.subject, exc.value.issuer) == ('ASK', 'ARK')

    def test_certifying_id(self):
        ark = platforms.anchor().ark
        ask = certificates.AmdCertificate.parse(platforms.amd_certificate(
            platforms.ASK, platforms.rsa_key('emulated ask'), b'S' * 16,
            platforms.rsa_key('emulated ark'), b'X' * 16))
        with pytest.raises(errors.ChainVerificationError,
                           match='58585858.*signed it'):
            chain.Anchor('x', ark, ask, True)
