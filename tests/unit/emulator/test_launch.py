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

"""The secure processor's commands, held to sessions of virtee's library."""

import contextlib
import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.asymmetric import ec
import pytest

from nova_sev_attest.emulator import launch
from tests import vectors

_FOLDER = 'session-ecdh'
_NAMES = ('v1-policy-3b', 'v2-policy-3f-es')


class Vector:
    """One launch of the vectors, and the platform that it was made for."""

    def __init__(self, name):
        told = vectors.expected(f'{_FOLDER}/EXPECTED.json')['vectors']
        self.told, = (one for one in told if one['name'] == name)
        self.name = name
        self.key = ec.derive_private_key(
            int(self.told['pdh_private_scalar_hex'], 16), ec.SECP384R1())
        self.policy = int(self.told['policy'], 16)

    def read(self, name):
        return vectors.read(f'{_FOLDER}/{self.name}/{name}')

    def launch(self, **changes):
        arguments = {'api': tuple(self.told['api']),
                     'build': self.told['build']}
        return launch.Launch(self.key, **{**arguments, **changes})

    def started(self):
        begun = self.launch()
        begun.start(self.policy, self.read('godh.cert'),
                    self.read('session.bin'))
        return begun

    def measured(self, monkeypatch):
        begun = self.started()
        begun.update(self.read('firmware.bin'))
        nonce = bytes.fromhex(self.told['mnonce'])
        monkeypatch.setattr(launch.os, 'urandom', lambda size: nonce)
        return begun, begun.measure()


@pytest.fixture(params=_NAMES)
def vector(request):
    return Vector(request.param)


@pytest.fixture
def plain():
    return Vector(_NAMES[0])


@contextlib.contextmanager
def _refused(status):
    with pytest.raises(launch.CommandError) as caught:
        yield caught
    assert caught.value.status == status


def test_accepts_a_published_session(vector):
    begun = vector.started()
    assert begun.state == launch.State.LAUNCH_UPDATE
    assert begun.policy == vector.policy
    assert begun.encrypted_state == ('es' in vector.name)


def test_measures_as_published(vector, monkeypatch):
    begun, blob = vector.measured(monkeypatch)
    assert begun.digest.hex() == vector.told['launch_digest']
    assert blob == vector.read('measurement.bin')
    assert begun.state == launch.State.LAUNCH_SECRET


def test_opens_a_published_secret(vector, monkeypatch):
    begun, _ = vector.measured(monkeypatch)
    plaintext = begun.secret(vector.read('secret_header.bin'),
                             vector.read('secret_ciphertext.bin'))
    assert plaintext == vector.read('secret_plain.bin')


def test_derives_as_published():
    told = vectors.expected()['session_kdf']
    master = launch.derive(bytes(16), b'sev-master-secret', bytes(16))
    assert master.hex() == told['master_secret']
    assert launch.derive(master, b'sev-kek').hex() == told['kek']
    assert launch.derive(master, b'sev-kik').hex() == told['kik']


def test_nonce_is_new_each_time(plain):
    first, second = (plain.started() for _ in range(2))
    for one in (first, second):
        one.update(bytes(16))
    assert first.digest == second.digest
    assert first.measure() != second.measure()


def test_a_session_is_for_one_platform_only(plain):
    other = launch.Launch(ec.generate_private_key(ec.SECP384R1()), (1, 51),
                          3)
    with _refused(launch.Status.BAD_MEASUREMENT):
        other.start(plain.policy, plain.read('godh.cert'),
                    plain.read('session.bin'))
    assert other.state == launch.State.UNINIT


@pytest.mark.parametrize('at', [0, 16, 47, 64, 95, 96, 127])
def test_a_flipped_byte_of_the_session_is_refused(plain, at):
    session = bytearray(plain.read('session.bin'))
    session[at] ^= 1
    with _refused(launch.Status.BAD_MEASUREMENT):
        plain.launch().start(plain.policy, plain.read('godh.cert'),
                             bytes(session))


def test_a_flipped_initial_value_gives_other_keys(plain):
    """The wrapping IV is not under the first MAC; the policy's MAC fails."""
    session = bytearray(plain.read('session.bin'))
    session[48] ^= 1
    with _refused(launch.Status.BAD_MEASUREMENT):
        plain.launch().start(plain.policy, plain.read('godh.cert'),
                             bytes(session))


def test_another_policy_than_the_sessions_is_refused(plain):
    with _refused(launch.Status.BAD_MEASUREMENT) as refused:
        plain.launch().start(0x33, plain.read('godh.cert'),
                             plain.read('session.bin'))
    assert '0x33' in str(refused.value)


def test_a_newer_api_than_the_platforms_is_refused(plain):
    policy = plain.policy | 2 << 16
    with _refused(launch.Status.POLICY_FAILURE) as refused:
        plain.launch(api=(1, 51)).start(policy, plain.read('godh.cert'),
                                        plain.read('session.bin'))
    assert '2.0' in str(refused.value) and '1.51' in str(refused.value)


@pytest.mark.parametrize('cut', [0, 127, 129])
def test_a_session_of_another_length_is_refused(plain, cut):
    session = (plain.read('session.bin') + b'\0')[:cut]
    with _refused(launch.Status.INVALID_LENGTH):
        plain.launch().start(plain.policy, plain.read('godh.cert'), session)


@pytest.mark.parametrize('at, value', [
    (0, 2), (6, 1), (8, 4), (12, 2), (16, 1), (20, 0xff)])
def test_a_malformed_owner_certificate_is_refused(plain, at, value):
    certificate = bytearray(plain.read('godh.cert'))
    certificate[at] ^= value
    with _refused(launch.Status.INVALID_CERTIFICATE):
        plain.launch().start(plain.policy, bytes(certificate),
                             plain.read('session.bin'))


def test_what_a_certificate_leaves_after_its_key_is_not_looked_at(plain):
    # Where an RSA key would be, sevctl leaves memory of its own.
    certificate = bytearray(plain.read('godh.cert'))
    certificate[0x200] ^= 1
    begun = plain.launch()
    begun.start(plain.policy, bytes(certificate), plain.read('session.bin'))
    assert begun.state == launch.State.LAUNCH_UPDATE


def test_an_owner_certificate_of_another_length_is_refused(plain):
    with _refused(launch.Status.INVALID_CERTIFICATE):
        plain.launch().start(plain.policy, plain.read('godh.cert') + b'\0',
                             plain.read('session.bin'))


def test_certificate_and_session_go_together(plain):
    with _refused(launch.Status.INVALID_PARAM):
        plain.launch().start(plain.policy, plain.read('godh.cert'))


def test_without_a_session_the_keys_are_nobodys(plain):
    begun = plain.launch()
    begun.start(plain.policy)
    begun.update(bytes(16))
    assert len(begun.measure()) == 48
    with _refused(launch.Status.BAD_MEASUREMENT):
        begun.secret(bytes(52), bytes(16))


def test_a_packet_of_another_launch_is_refused(plain):
    """The measurement's nonce ties a packet to one launch."""
    begun = plain.started()
    begun.update(plain.read('firmware.bin'))
    begun.measure()
    with _refused(launch.Status.BAD_MEASUREMENT):
        begun.secret(plain.read('secret_header.bin'),
                     plain.read('secret_ciphertext.bin'))


@pytest.mark.parametrize('part, at', [
    ('header', 0), ('header', 4), ('header', 20), ('header', 51),
    ('data', 0), ('data', -1)])
def test_a_flipped_byte_of_the_packet_is_refused(plain, monkeypatch, part,
                                                 at):
    begun, _ = plain.measured(monkeypatch)
    packet = {'header': bytearray(plain.read('secret_header.bin')),
              'data': bytearray(plain.read('secret_ciphertext.bin'))}
    packet[part][at] ^= 1
    with _refused(launch.Status.BAD_MEASUREMENT):
        begun.secret(bytes(packet['header']), bytes(packet['data']))
    # What was refused changed nothing.
    assert begun.secret(plain.read('secret_header.bin'),
                        plain.read('secret_ciphertext.bin'))


@pytest.mark.parametrize('header, data', [
    (51, 16), (53, 16), (52, 0), (52, 15), (52, 16400)])
def test_packet_lengths_are_bounded(plain, monkeypatch, header, data):
    begun, _ = plain.measured(monkeypatch)
    with _refused(launch.Status.INVALID_LENGTH):
        begun.secret(bytes(header), bytes(data))


def test_compressed_secrets_are_not_supported(plain, monkeypatch):
    begun, blob = plain.measured(monkeypatch)
    data, iv, flags = bytes(16), bytes(16), struct.pack('<I', 1)
    length = struct.pack('<I', len(data))
    mac = hmac.new(
        bytes.fromhex(plain.told['tik']),
        b'\x01' + flags + iv + 2 * length + data + blob[:32],
        hashlib.sha256).digest()
    with _refused(launch.Status.UNSUPPORTED):
        begun.secret(flags + iv + mac, data)


@pytest.mark.parametrize('data', [b'', bytes(15), bytes(17)])
def test_updates_are_whole_blocks(plain, data):
    with _refused(launch.Status.INVALID_LENGTH):
        plain.started().update(data)


def test_save_areas_are_for_encrypted_state_only(plain):
    with _refused(launch.Status.INVALID_PARAM):
        plain.started().update_vmsa(bytes(4096))
    encrypted = Vector(_NAMES[1]).started()
    with _refused(launch.Status.INVALID_PARAM):
        encrypted.update_vmsa(bytes(4095))
    encrypted.update_vmsa(bytes(4096))
    assert encrypted.digest == hashlib.sha256(bytes(4096)).digest()


# Every command, and the only state it is for.
_COMMANDS = {
    'start': (launch.State.UNINIT, lambda one: one.start(0x3b)),
    'update': (launch.State.LAUNCH_UPDATE, lambda one: one.update(bytes(16))),
    'update_vmsa': (launch.State.LAUNCH_UPDATE,
                    lambda one: one.update_vmsa(bytes(4096))),
    'measure': (launch.State.LAUNCH_UPDATE, lambda one: one.measure()),
    'secret': (launch.State.LAUNCH_SECRET,
               lambda one: one.secret(bytes(52), bytes(16))),
    'finish': (launch.State.LAUNCH_SECRET, lambda one: one.finish()),
}


@pytest.mark.parametrize('steps', range(4))
@pytest.mark.parametrize('name', _COMMANDS)
def test_no_command_out_of_its_order(plain, name, steps):
    begun = plain.launch()
    for step in (lambda: begun.start(0x3b), begun.measure,
                 begun.finish)[:steps]:
        step()
    state = begun.state
    assert state == list(launch.State)[steps]
    only, command = _COMMANDS[name]
    if state == only:
        return
    with _refused(launch.Status.INVALID_GUEST_STATE):
        command(begun)
    assert begun.state == state
