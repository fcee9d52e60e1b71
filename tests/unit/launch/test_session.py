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

import copy
import hashlib
import hmac
import pickle
import struct

from cryptography.hazmat.primitives.asymmetric import ec
import pytest

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import session
from tests.unit.launch import platforms
from tests import vectors

POLICY = launch_policy.LaunchPolicy.for_technology('amd-sev')


def unhex(value):
    return bytes.fromhex(value)


def test_zero_vector():
    want = vectors.expected()['session_kdf']
    master = session._kdf(bytes(16), b'sev-master-secret', bytes(16))
    assert master.hex() == want['master_secret']
    kek, kik = session._wrapping_keys(bytes(16), bytes(16))
    assert (kek.hex(), kik.hex()) == (want['kek'], want['kik'])
    buffer = session._session_buffer(
        kek, kik, session.TransportKeys(bytes(16), bytes(16)),
        launch_policy.LaunchPolicy.parse(0), bytes(16), bytes(16))
    assert buffer == (bytes(16) + unhex(want['wrap_tk']) + bytes(16) +
                      unhex(want['wrap_mac']) + unhex(want['policy_mac']))


@pytest.mark.parametrize('index', (0, 1))
class TestRealExchange:
    """Sessions by another implementation, from Z to the last MAC."""

    @pytest.fixture
    def vector(self, index):
        return vectors.expected('session-ecdh/EXPECTED.json')[
            'vectors'][index]

    def file(self, vector, name):
        return vectors.read(f'session-ecdh/{vector["name"]}/{name}')

    def test_keys_and_buffer(self, vector):
        pdh = certificates.SevCertificate.parse(self.file(vector, 'pdh.cert'))
        private = ec.derive_private_key(
            int(vector['pdh_private_scalar_hex'], 16), ec.SECP384R1())
        assert private.public_key() == pdh.public_key()
        godh = certificates.SevCertificate.parse(
            self.file(vector, 'godh.cert'))
        z = private.exchange(ec.ECDH(), godh.public_key())
        assert z.hex() == vector['z_hex']

        nonce = unhex(vector['nonce'])
        kek, kik = session._wrapping_keys(z, nonce)
        assert (kek.hex(), kik.hex()) == (vector['kek'], vector['kik'])
        buffer = session._session_buffer(
            kek, kik, session.TransportKeys(unhex(vector['tek']),
                                            unhex(vector['tik'])),
            launch_policy.LaunchPolicy.parse(int(vector['policy'], 16)),
            nonce, unhex(vector['wrap_iv']))
        assert buffer == self.file(vector, 'session.bin')

    def test_built_session_is_made_of_the_same_steps(self, vector):
        # ECDH is symmetric: the platform's scalar against the owner's point
        # gives the session that the owner's scalar gave.
        godh = certificates.SevCertificate.parse(
            self.file(vector, 'godh.cert'))
        private = ec.derive_private_key(
            int(vector['pdh_private_scalar_hex'], 16), ec.SECP384R1())
        built = session._build_session(
            godh.public_key(),
            launch_policy.LaunchPolicy.parse(int(vector['policy'], 16)),
            private_key=private,
            keys=session.TransportKeys(unhex(vector['tek']),
                                       unhex(vector['tik'])),
            nonce=unhex(vector['nonce']), wrap_iv=unhex(vector['wrap_iv']))
        assert built.session == self.file(vector, 'session.bin')

    def test_what_must_not_hold(self, vector):
        """Near misses give other keys than the core's."""
        z, nonce = unhex(vector['z_hex']), unhex(vector['nonce'])
        good = session._wrapping_keys(z, nonce)
        other_z = {'Z little-endian': z[::-1],
                   'Z padded to 72': z.rjust(72, b'\0')}
        if not z[0]:
            other_z['Z stripped of leading zeros'] = z.lstrip(b'\0')
        for name, value in other_z.items():
            assert name in vector['must_not_hold']
            assert session._wrapping_keys(value, nonce) != good

        def kdf(counter, length):
            return hmac.digest(
                z, struct.pack(counter, 1) + b'sev-master-secret\0' + nonce +
                struct.pack(length, 128), 'sha256')[:16]

        core = session._kdf(z, b'sev-master-secret', nonce)
        assert core == kdf('<I', '<I')
        for name, forms in (('counter big-endian', ('>I', '<I')),
                            ('L big-endian', ('<I', '>I'))):
            assert name in vector['must_not_hold']
            assert core != kdf(*forms)

        # The last two: order of the wrapped keys, byte order of the policy.
        buffer = self.file(vector, 'session.bin')
        kek, _kik = good
        unwrapped = platforms.ctr(kek, buffer[48:64], buffer[16:48])
        assert unwrapped == unhex(vector['tek']) + unhex(vector['tik'])
        word = int(vector['policy'], 16)
        assert buffer[96:] != hmac.digest(
            unhex(vector['tik']), struct.pack('>I', word), 'sha256')
        assert buffer[96:] != hmac.digest(
            unhex(vector['tek']), struct.pack('<I', word), 'sha256')


class TestCreate:

    @pytest.fixture
    def platform(self):
        return platforms.platform()

    @pytest.fixture
    def verified(self, platform):
        return platform.parse().verify([platforms.anchor()])

    def test_platform_unwraps_it(self, platform, verified):
        made = session.create_session(verified, POLICY)
        guest = platform.launch(made.godh_certificate, made.session, 0x3b)
        assert (guest.tek, guest.tik) == (made.keys.tek, made.keys.tik)
        assert made.policy is POLICY

    def test_another_platform_cannot(self, verified):
        made = session.create_session(verified, POLICY)
        with pytest.raises(AssertionError, match='wrap MAC'):
            platforms.platform(name='other').launch(
                made.godh_certificate, made.session, 0x3b)

    def test_another_policy_is_refused(self, platform, verified):
        made = session.create_session(verified, POLICY)
        with pytest.raises(AssertionError, match='policy MAC'):
            platform.launch(made.godh_certificate, made.session, 0x3a)

    def test_nothing_is_used_twice(self, verified):
        made = [session.create_session(verified, POLICY) for _ in range(8)]
        for part in (lambda s: s.godh_certificate, lambda s: s.keys.tek,
                     lambda s: s.keys.tik, lambda s: s.session[:16],
                     lambda s: s.session[48:64]):
            assert len(set(map(part, made))) == len(made)
        assert not {s.keys.tek for s in made} & {s.keys.tik for s in made}

    def test_shows_no_key(self, verified):
        made = session.create_session(verified, POLICY)
        for text in (repr(made), str(made), f'{made.keys}', f'{made.keys!r}'):
            for key in (made.keys.tek, made.keys.tik):
                assert repr(key) not in text
                assert key.hex() not in text
        assert 'hidden' in repr(made)

    @pytest.mark.parametrize(('godh', 'buffer', 'message'), [
        (2083, 128, '^a GODH certificate has 2084 bytes, this has 2083$'),
        (2084, 127, '^a session buffer has 128 bytes, this has 127$')])
    def test_sizes(self, godh, buffer, message):
        with pytest.raises(errors.SessionMalformed, match=message):
            session.Session(bytes(godh), bytes(buffer),
                            session.TransportKeys(bytes(16), bytes(16)),
                            POLICY)


class TestTransportKeys:

    KEYS = session.TransportKeys(b'E' * 16, b'I' * 16)

    @pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
    def test_are_not_pickled(self, protocol):
        with pytest.raises(errors.StateError,
                           match='^transport keys are not to be pickled or '
                                 'copied$'):
            pickle.dumps(self.KEYS, protocol)

    @pytest.mark.parametrize('copier', (copy.copy, copy.deepcopy))
    def test_are_not_copied(self, copier):
        with pytest.raises(errors.StateError, match='copied'):
            copier(self.KEYS)

    def test_compare(self):
        assert self.KEYS == session.TransportKeys(b'E' * 16, b'I' * 16)
        assert self.KEYS != session.TransportKeys(b'E' * 16, b'J' * 16)
        assert self.KEYS != session.TransportKeys(b'I' * 16, b'E' * 16)
        assert self.KEYS != b'E' * 16 + b'I' * 16

    def test_are_not_shown(self):
        assert repr(self.KEYS) == 'TransportKeys(<hidden>)'

    def test_are_not_hashed(self):
        with pytest.raises(TypeError):
            hash(self.KEYS)

    @pytest.mark.parametrize(('tek', 'tik'), [(15, 16), (16, 17), (0, 0)])
    def test_sizes(self, tek, tik):
        with pytest.raises(errors.SessionMalformed, match='16 bytes'):
            session.TransportKeys(bytes(tek), bytes(tik))


def test_godh_certificate_is_not_signed():
    verified = platforms.platform().parse().verify([platforms.anchor()])
    made = session.create_session(verified, POLICY)
    godh = certificates.SevCertificate.parse(made.godh_certificate)
    assert godh.usage is certificates.Usage.PDH
    assert godh.signatures == (certificates.EMPTY_SIGNATURE,) * 2
    assert hashlib.sha256(made.godh_certificate).digest() == godh.sha256
