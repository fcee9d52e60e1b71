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

import base64
import struct

from cryptography.hazmat.primitives.asymmetric import ec
import hypothesis
from hypothesis import strategies
import pytest

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import owner
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import secret
from nova_sev_attest.launch import session as launch_session
from tests.unit.launch import platforms
from tests import vectors

VECTORS = ('v1-policy-3b', 'v2-policy-3f-es')
#: The room of an RSA key behind an elliptic-curve key.
ROOM = slice(16 + 4 + 72 + 72, 0x414)
AREA = firmware.Area(0x810000, 0xc00)
FIELDS = {'nonce': (0, 16), 'wrapped keys': (16, 48), 'wrap IV': (48, 64),
          'wrap MAC': (64, 96), 'policy MAC': (96, 128)}


def file(vector, name):
    return vectors.read(f'session-ecdh/{vector}/{name}')


def with_room(godh, content):
    return godh[:ROOM.start] + content + godh[ROOM.stop:]


def godh(key='owner', **changes):
    values = {'usage': platforms.PDH, 'algorithm': platforms.ECDH_SHA256,
              'key': platforms.ec_key(key), 'api': (0, 0), **changes}
    return platforms.sev_body(**values) + 2 * platforms.EMPTY_SLOT


SESSION = bytes(range(1, 129))


class TestSession:

    @pytest.mark.parametrize('name', VECTORS)
    def test_of_virtees_library(self, name):
        data = file(name, 'godh.cert'), file(name, 'session.bin')
        read = owner.read_session(*data)
        assert (read.godh_certificate, read.session) == data
        assert read.nonce == data[1][:16]

    @pytest.mark.parametrize('name', VECTORS)
    @hypothesis.settings(max_examples=20)
    @hypothesis.given(room=strategies.binary(min_size=880, max_size=880))
    def test_uninitialised_room_reads_as_zeros(self, name, room):
        # No host gets to see the memory of the owner's tool.
        data = file(name, 'godh.cert')
        read = owner.read_session(with_room(data, room),
                                  file(name, 'session.bin'))
        assert read.godh_certificate == data
        if any(room):
            with pytest.raises(errors.CertificateMalformed,
                               match='follows the public key'):
                certificates.SevCertificate.parse(with_room(data, room))

    def test_of_our_own(self):
        verified = platforms.platform().parse().verify([platforms.anchor()])
        made = launch_session.create_session(
            verified, launch_policy.LaunchPolicy.for_technology('amd-sev'))
        read = owner.read_session(made.godh_certificate, made.session)
        assert (read.godh_certificate, read.session) == (
            made.godh_certificate, made.session)
        guest = platforms.platform().launch(
            read.godh_certificate, read.session, 0x3b)
        assert (guest.tek, guest.tik) == (made.keys.tek, made.keys.tik)

    def test_signed_and_of_any_api_version_as_sev_tool_makes_it(self):
        key = platforms.ec_key('owner')
        body = platforms.sev_body(platforms.PDH, platforms.ECDH_SHA256, key)
        data = (body + platforms.ec_slot(platforms.PEK, key, body) +
                platforms.EMPTY_SLOT)
        assert owner.read_session(data, SESSION).godh_certificate == data

    @pytest.mark.parametrize(('at', 'value', 'message'), [
        (0, 2, 'version 2, expected 1'),
        (6, 1, 'reserved bytes at offset 6'),
        (7, 1, 'reserved bytes at offset 6'),
        (8, 2, 'usage of a GODH certificate is PDH, this has PEK'),
        (8, 7, 'usage is 0x1007'),
        (12, 2, 'for ECDH_SHA256, this is for ECDSA_SHA256'),
        (13, 1, 'for ECDH_SHA256, this is for ECDH_SHA384'),
        (12, 1, 'only elliptic-curve keys'),
        (16, 1, 'not a point of secp256r1'),
        (16, 3, 'curve 3 is unknown'),
        (20, None, 'not a point of secp384r1'),
        (20 + 71, 1, 'not a point of secp384r1'),
        (92 + 48, 1, 'not a point of secp384r1'),
        (0x414, 1, 'INVALID cannot sign a certificate'),
        (0x41c, 1, 'empty signature slot must be zero'),
        (2083, 1, 'empty signature slot must be zero')])
    def test_another_certificate(self, at, value, message):
        data = bytearray(godh())
        data[at] = data[at] ^ 1 if value is None else value
        with pytest.raises(errors.CertificateMalformed, match=message):
            owner.read_session(bytes(data), SESSION)

    def test_key_on_another_curve(self):
        numbers = platforms.ec_key('p256', ec.SECP256R1)
        data = bytearray(godh())
        public = numbers.public_key().public_numbers()
        data[16:ROOM.start] = struct.pack(
            '<I72s72s', 1, public.x.to_bytes(72, 'little'),
            public.y.to_bytes(72, 'little'))
        with pytest.raises(errors.CertificateMalformed,
                           match='P-384, this is on secp256r1'):
            owner.read_session(bytes(data), SESSION)

    def test_the_point_at_infinity(self):
        data = bytearray(godh())
        data[20:ROOM.start] = bytes(144)
        with pytest.raises(errors.CertificateMalformed, match='not a point'):
            owner.read_session(bytes(data), SESSION)

    def test_the_platforms_certificate_in_place_of_the_owners(self):
        pek = platforms.platform().pek
        with pytest.raises(errors.CertificateMalformed, match='has PEK'):
            owner.read_session(pek, SESSION)

    @pytest.mark.parametrize('size', (0, 1, 0x414, 2083, 2085, 4168))
    def test_size_of_the_certificate(self, size):
        with pytest.raises(errors.CertificateMalformed,
                           match=f'2084 bytes, this has {size}$'):
            owner.read_session((godh() * 2)[:size], SESSION)

    @pytest.mark.parametrize('size', (0, 127, 129, 256))
    def test_size_of_the_session(self, size):
        with pytest.raises(errors.SessionMalformed,
                           match=f'has 128 bytes, this has {size};'):
            owner.read_session(godh(), (SESSION * 2)[:size])

    @pytest.mark.parametrize('name', FIELDS)
    def test_field_that_was_not_filled_in(self, name):
        start, end = FIELDS[name]
        data = SESSION[:start] + bytes(end - start) + SESSION[end:]
        with pytest.raises(errors.SessionMalformed,
                           match=f'^the {name} of the session is all zeros'):
            owner.read_session(godh(), data)
        almost = data[:end - 1] + b'\1' + data[end:]
        assert owner.read_session(godh(), almost).session == almost

    @hypothesis.given(at=strategies.integers(0, ROOM.start - 1),
                      bit=strategies.integers(0, 7))
    def test_no_other_bit_is_let_be(self, at, bit):
        # But for the API version: anyone's.
        data = bytearray(godh())
        data[at] ^= 1 << bit
        if at in (4, 5):
            assert owner.read_session(
                bytes(data), SESSION).godh_certificate == data
            return
        with pytest.raises(errors.CertificateMalformed):
            owner.read_session(bytes(data), SESSION)


class TestSecret:

    HEADER = bytes(4) + bytes(range(1, 49))

    @pytest.mark.parametrize('name', VECTORS)
    def test_of_a_whole_launch(self, name):
        parts = (file(name, 'secret_header.bin'),
                 file(name, 'secret_ciphertext.bin'))
        assert owner.read_secret(*parts, AREA) == secret.LaunchSecret(*parts)

    @pytest.mark.parametrize('index', (0, 1))
    def test_of_sevctl(self, index):
        case = vectors.expected()['launch_secret']['cases'][index]
        parts = [base64.b64decode(case[name])
                 for name in ('header_b64', 'payload_b64')]
        packet = owner.read_secret(*parts, AREA)
        assert [packet.header, packet.data] == parts

    @pytest.mark.parametrize(('header', 'data'), [
        (51, 16), (53, 16), (0, 16), (52, 0), (52, 15), (52, 17),
        (52, 16400)])
    def test_sizes(self, header, data):
        with pytest.raises(errors.SecretMalformed,
                           match=f'got {header} and {data}$'):
            owner.read_secret((self.HEADER * 2)[:header], bytes(data),
                              owner.area_at(0x1000))

    @pytest.mark.parametrize(('flags', 'message'), [
        (1, '^the launch secret is compressed, which hypervisors cannot '
            'inject; pack it without compression$'),
        (2, '0x2, expected 0'), (3, '0x3, expected 0'),
        (1 << 31, '0x80000000, expected 0')])
    def test_flags(self, flags, message):
        with pytest.raises(errors.SecretMalformed, match=message):
            owner.read_secret(struct.pack('<I', flags) + self.HEADER[4:],
                              bytes(16), AREA)

    @pytest.mark.parametrize(('name', 'start', 'end'), [
        ('IV', 4, 20), ('MAC', 20, 52)])
    def test_field_that_was_not_filled_in(self, name, start, end):
        header = (self.HEADER[:start] + bytes(end - start) +
                  self.HEADER[end:])
        with pytest.raises(errors.SecretMalformed,
                           match=f'^the {name} of the launch secret is all'):
            owner.read_secret(header, bytes(16), AREA)

    def test_room(self):
        assert owner.read_secret(self.HEADER, bytes(AREA.size), AREA)
        with pytest.raises(errors.SecretTooLarge,
                           match='needs 3088 bytes .* room for 3072') as exc:
            owner.read_secret(self.HEADER, bytes(AREA.size + 16), AREA)
        assert (exc.value.size, exc.value.limit) == (3088, 3072)

    def test_its_mac_is_for_the_platform_to_check(self):
        # What the docstring says: any MAC passes here.
        other = self.HEADER[:20] + self.HEADER[20:][::-1]
        assert owner.read_secret(other, bytes(16), AREA).header == other


class TestAddress:

    @pytest.mark.parametrize('gpa', (
        0x10, 0x810000, (1 << 32) - 16384))
    def test_fit(self, gpa):
        assert owner.area_at(gpa) == firmware.Area(gpa, 16384)

    @pytest.mark.parametrize('gpa', (
        0, 8, 0x810008, (1 << 32) - 16384 + 16, 1 << 32, 1 << 64, -16))
    def test_unfit(self, gpa):
        with pytest.raises(errors.SecretMalformed, match='cannot be put at'):
            owner.area_at(gpa)
