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

"""The platform's identity, checked with the formats written out again."""

import stat

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric import utils
from cryptography.hazmat.primitives import hashes
import pytest

from nova_sev_attest.emulator import certificates
from nova_sev_attest.emulator import platform
from tests import vectors

_SIZE = 2084
_AMD_SIZE = 1600


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('keys')


@pytest.fixture(scope='module')
def made(folder):
    return platform.open_platform(folder)


def _number(data, at, size):
    return int.from_bytes(data[at:at + size], 'little')


class Certificate:
    """A SEV certificate as the specification's table has it."""

    def __init__(self, data):
        assert len(data) == _SIZE
        self.data = data
        self.usage, self.algorithm = _number(data, 8, 4), _number(data, 12, 4)
        self.api = data[4], data[5]
        assert _number(data, 0, 4) == 1 and _number(data, 6, 2) == 0
        assert _number(data, 16, 4) == 2
        self.key = ec.EllipticCurvePublicNumbers(
            _number(data, 20, 72), _number(data, 92, 72),
            ec.SECP384R1()).public_key()
        assert not any(data[164:0x414])

    def signature(self, slot):
        at = 0x414 + slot * 520
        return (_number(self.data, at, 4), _number(self.data, at + 4, 4),
                self.data[at + 8:at + 520])

    def verify(self, slot, issuer):
        usage, algorithm, blob = self.signature(slot)
        assert (usage, algorithm) == (issuer.usage, 2)
        assert not any(blob[144:])
        der = utils.encode_dss_signature(_number(blob, 0, 72),
                                         _number(blob, 72, 72))
        issuer.key.verify(der, self.data[:0x414],
                          ec.ECDSA(hashes.SHA256()))

    def verify_amd(self, slot, key):
        usage, algorithm, blob = self.signature(slot)
        assert (usage, algorithm) == (0x13, 0x101)
        _verify_pss(key, blob, self.data[:0x414])


def _verify_pss(key, blob, body):
    key.verify(blob[::-1], body,
               padding.PSS(padding.MGF1(hashes.SHA384()), 48),
               hashes.SHA384())


def _amd_key(data):
    assert len(data) == _AMD_SIZE and _number(data, 0, 4) == 1
    assert _number(data, 0x38, 4) == _number(data, 0x3c, 4) == 4096
    return rsa.RSAPublicNumbers(_number(data, 0x40, 512),
                                _number(data, 0x240, 512)).public_key()


def test_anchor_is_ask_then_ark(folder, made):
    anchor = (folder / 'ask_ark.cert').read_bytes()
    ask, ark = anchor[:_AMD_SIZE], anchor[_AMD_SIZE:]
    assert _number(ask, 0x24, 4) == 0x13 and _number(ark, 0x24, 4) == 0
    assert ark[4:20] == ark[20:36] == ask[20:36] != ask[4:20]
    assert not any(ask[0x28:0x38]) and not any(ark[0x28:0x38])
    for data in (ask, ark):
        _verify_pss(_amd_key(ark), data[0x440:], data[:0x440])


def test_chain_is_signed_up_to_the_root(folder, made):
    pek, oca, cek = (Certificate(made.cert_chain[at:at + _SIZE])
                     for at in range(0, 3 * _SIZE, _SIZE))
    pdh = Certificate(made.pdh)
    assert [one.usage for one in (pek, oca, cek, pdh)] == [
        0x1002, 0x1001, 0x1004, 0x1003]
    assert [one.algorithm for one in (pek, oca, cek, pdh)] == [2, 2, 2, 3]
    assert {one.api for one in (pek, oca, cek, pdh)} == {platform.API}
    pdh.verify(0, pek)
    pek.verify(0, oca)
    pek.verify(1, cek)
    oca.verify(0, oca)
    anchor = (folder / 'ask_ark.cert').read_bytes()
    cek.verify_amd(0, _amd_key(anchor[:_AMD_SIZE]))
    for one in (oca, cek, pdh):
        assert one.signature(1) == (0x1000, 0, bytes(512))
    with pytest.raises(InvalidSignature):
        cek.data = b'\2' + cek.data[1:]
        cek.verify_amd(0, _amd_key(anchor[:_AMD_SIZE]))


def test_key_is_the_certificates(made):
    assert Certificate(made.pdh).key == made.key.public_key()


def test_identity_is_kept(folder, made):
    again = platform.open_platform(folder)
    assert (again.pdh, again.cert_chain, again.chip_id) == (
        made.pdh, made.cert_chain, made.chip_id)
    assert len(made.chip_id) == 64


def test_another_chip_has_the_same_root(folder, made):
    anchor = (folder / 'ask_ark.cert').read_bytes()
    other = platform.open_platform(folder, 'chip1')
    assert (folder / 'ask_ark.cert').read_bytes() == anchor
    assert other.pdh != made.pdh and other.chip_id != made.chip_id
    Certificate(other.cert_chain[2 * _SIZE:]).verify_amd(
        0, _amd_key(anchor[:_AMD_SIZE]))


def test_keys_are_roots_only(folder, made):
    private = set(folder.rglob('*.pem'))
    assert {path.name for path in private} == {'ask.pem', 'pdh.pem'}
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert 'key=' not in repr(made)


def test_interrupted_making_leaves_no_half_chip(folder, made, monkeypatch):
    def fail(*arguments):
        raise OSError('no space')

    monkeypatch.setattr(platform, '_store_key', fail)
    with pytest.raises(OSError, match='no space'):
        platform.open_platform(folder, 'chip2')
    assert not (folder / 'chips' / 'chip2').exists()
    assert not list((folder / 'chips').glob('.*'))
    monkeypatch.undo()
    assert platform.open_platform(folder, 'chip2').pdh


def test_a_published_certificate_is_written_the_same():
    """Layout of what virtee's library reads: the vectors' PDH, body only."""
    published = vectors.read('session-ecdh/v1-policy-3b/pdh.cert')
    key = certificates.owner_key(published)
    written = certificates.sev_certificate(
        certificates.Usage.PDH, key, (0, 24), [])
    assert written[:0x414] == published[:0x414]
