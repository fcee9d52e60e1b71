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
import hashlib
import os
import socket
import struct
import threading
import time

import pytest

from nova_sev_attest.emulator import channel
from nova_sev_attest.emulator import daemon
from nova_sev_attest.emulator import holds
from nova_sev_attest.emulator import launch

_MEMORY = 16 << 20
_ADDRESS = 0x810000


def _encode(data):
    return base64.b64encode(data).decode()


def _file(data):
    descriptor = os.memfd_create('test')
    os.write(descriptor, data)
    return descriptor


@pytest.fixture
def memory():
    descriptor = os.memfd_create('memory')
    os.ftruncate(descriptor, _MEMORY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def started(connect, memory, published):
    """A guest of the published session, its firmware measured."""
    guest = connect()
    guest.call('start', [memory], policy=published.policy, name='guest',
               uuid='a-uuid', dh_cert=_encode(published.read('godh.cert')),
               session=_encode(published.read('session.bin')))
    image = _file(published.read('firmware.bin'))
    guest.call('update', [image])
    os.close(image)
    return guest


def _status(connect):
    return connect().call('status')['launches']


def _wait(function):
    deadline = time.monotonic() + 5
    while not function():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_tells_its_capabilities(connect, published):
    told = connect().call('capabilities')
    assert base64.b64decode(told['pdh']) == published.read('pdh.cert')
    assert base64.b64decode(told['cert-chain']) == b'chain' * 3
    assert told['cbitpos'] == 51 and told['reduced-phys-bits'] == 1


def test_measures_a_published_launch(connect, started, published):
    blob = base64.b64decode(started.call('measure')['measurement'])
    assert len(blob) == 48
    record, = _status(connect)
    assert record['digest'] == published.told('launch_digest')
    assert record['state'] == 'launch-secret'
    assert record['name'] == 'guest' and record['uuid'] == 'a-uuid'
    assert record['technology'] == 'amd-sev' and record['policy'] == 0x3b
    assert not record['instructions_run']


def test_secret_goes_into_memory_and_nowhere_else(
        server, connect, memory, published, monkeypatch):
    # The published packet was made for this build and nonce.
    monkeypatch.setattr(daemon.platform, 'API', (0, 24))
    monkeypatch.setattr(daemon.platform, 'BUILD', 15)
    nonce = bytes.fromhex(published.told('mnonce'))
    monkeypatch.setattr(launch.os, 'urandom', lambda size: nonce)
    guest = connect()
    guest.call('start', [memory], policy=published.policy,
               dh_cert=_encode(published.read('godh.cert')),
               session=_encode(published.read('session.bin')))
    image = _file(published.read('firmware.bin'))
    guest.call('update', [image])
    os.close(image)
    guest.call('measure')
    reply = guest.call(
        'secret', address=_ADDRESS,
        header=_encode(published.read('secret_header.bin')),
        data=_encode(published.read('secret_ciphertext.bin')))
    assert reply == {}
    plaintext = published.read('secret_plain.bin')
    assert os.pread(memory, len(plaintext), _ADDRESS) == plaintext
    record, = _status(connect)
    assert record['secrets'] == 1
    assert [event['event'] for event in record['events']] == [
        'started', 'measured', 'secret_injected']


def test_hash_table_is_put_into_memory(started, connect, memory):
    started.call('update', address=_ADDRESS, data=_encode(b'hash' * 4))
    assert os.pread(memory, 16, _ADDRESS) == b'hash' * 4


def test_run_is_recorded_once(connect, started):
    started.call('measure')
    assert not _status(connect)[0]['instructions_run']
    started.call('finish')
    started.call('finish')
    record, = _status(connect)
    assert record['instructions_run'] and record['state'] == 'running'
    assert [event['event'] for event in record['events']] == [
        'started', 'measured', 'finished']


def test_no_run_before_the_measurement(connect, started):
    with pytest.raises(channel.PlatformError, match='INVALID_GUEST_STATE'):
        started.call('finish')
    record, = _status(connect)
    assert not record['instructions_run']
    assert record['events'][-1]['event'] == 'refused'
    assert 'launch-secret' in record['events'][-1]['reason']


def test_guest_ends_with_its_connection(connect, started, memory):
    started.close()
    _wait(lambda: _status(connect)[0]['state'] == 'ended')
    record, = _status(connect)
    assert record['events'][-1]['event'] == 'ended'
    assert not record['instructions_run']


def test_refused_start_is_recorded(connect, memory, published):
    session = bytearray(published.read('session.bin'))
    session[20] ^= 1
    with pytest.raises(channel.PlatformError, match='BAD_MEASUREMENT'):
        connect().call('start', [memory], policy=published.policy,
                       name='bad', session=_encode(session),
                       dh_cert=_encode(published.read('godh.cert')))
    record, = _status(connect)
    assert record['events'][0]['event'] == 'refused'
    assert record['digest'] is None


def test_guests_do_not_meet(connect, published):
    memories = [_file(bytes(_MEMORY)) for _ in range(2)]
    first, second = connect(), connect()
    for guest, memory in zip((first, second), memories):
        guest.call('start', [memory], policy=published.policy)
    first.call('update', address=_ADDRESS, data=_encode(b'a' * 16))
    assert os.pread(memories[1], 16, _ADDRESS) == bytes(16)
    first.call('measure')
    assert second.call('query')['state'] == 'launch-update'
    for memory in memories:
        os.close(memory)


@pytest.mark.parametrize('address', [
    0, _MEMORY - 15, _MEMORY, 1 << 31, (1 << 32) - 16])
def test_writes_stay_in_memory(connect, started, memory, address):
    with pytest.raises(channel.PlatformError, match="not in the guest's"):
        started.call('update', address=address, data=_encode(bytes(16)))
    assert os.fstat(memory).st_size == _MEMORY


@pytest.mark.parametrize('arguments, text', [
    ({'command': 'update', 'address': -1, 'data': ''}, 'address'),
    ({'command': 'update', 'address': True, 'data': 'AAAA'}, 'address'),
    ({'command': 'update', 'address': 1 << 32, 'data': 'AAAA'}, 'address'),
    ({'command': 'update', 'address': 4096, 'data': '?'}, 'base64'),
    ({'command': 'update', 'address': 4096, 'data': 7}, 'base64'),
    ({'command': 'update', 'address': 4096}, 'base64'),
    ({'command': 'start', 'policy': 1}, 'memory'),
    ({'command': 'destroy'}, "no command 'destroy'"),
    ({'command': 7}, 'no command 7'),
    ({}, 'no command None'),
])
def test_nonsense_is_refused_and_harmless(started, arguments, text):
    with pytest.raises(channel.PlatformError, match=text):
        started.call(arguments.pop('command', None), **arguments)
    assert started.call('query')['state'] == 'launch-update'


def test_long_secrets_are_refused(started):
    started.call('measure')
    with pytest.raises(channel.PlatformError, match='16384 at most'):
        started.call('secret', address=_ADDRESS, header=_encode(bytes(52)),
                     data=_encode(bytes(16400)))


def test_names_are_short_texts(connect, memory):
    for name in ('x' * 257, 7):
        with pytest.raises(channel.PlatformError, match='short texts'):
            connect().call('start', [memory], policy=1, name=name)


def test_commands_need_a_guest(connect):
    with pytest.raises(channel.PlatformError, match='before start'):
        connect().call('measure')


def test_faults_do_not_end_the_daemon(connect, server, monkeypatch):
    def fail():
        raise RuntimeError('private details')

    monkeypatch.setattr(server, 'capabilities', fail)
    with pytest.raises(channel.PlatformError) as caught:
        connect().call('capabilities')
    assert 'private details' not in str(caught.value)
    assert _status(connect) == []


@pytest.mark.parametrize('data', [
    struct.pack('<I', 1 << 20), struct.pack('<I', 3) + b'{]}',
    struct.pack('<I', 2) + b'[]', b'\1', struct.pack('<I', 9) + b'{}'])
def test_garbage_ends_only_its_connection(server, connect, data):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(server.server_address)
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        raw.settimeout(5)
        assert raw.recv(1) == b''
    assert _status(connect) == []


def test_strangers_are_not_served(server, connect):
    server.users = {12345}
    with pytest.raises(channel.PlatformError, match='gone'):
        connect().call('status')


def test_nobody_listening_is_told(tmp_path):
    with pytest.raises(channel.PlatformError, match='daemon running'):
        channel.Channel(str(tmp_path / 'none'))


def test_a_platform_that_went_is_told(tmp_path):
    path = str(tmp_path / 'sock')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        guest = channel.Channel(path)
    with pytest.raises(channel.PlatformError, match='gone'):
        guest.call('status')
    guest.close()


def test_descriptors_are_not_kept(connect, started, memory):
    def opened():
        return len(os.listdir('/proc/self/fd'))

    before = opened()
    for _ in range(20):
        with pytest.raises(channel.PlatformError):
            started.call('start', [memory], policy=1)
    assert opened() == before


def test_measures_the_registers_of_an_encrypted_state(
        connect, memory, published):
    guest = connect()
    # Without a session: any policy will do.
    guest.call('start', [memory], policy=0x3f, name='guest', uuid='a-uuid')
    guest.call('update', address=_ADDRESS, data=_encode(bytes(16)))
    pages = [bytes(4096), b'\1' * 4096]
    for page in pages:
        assert guest.call('update_vmsa', page=_encode(page)) == {}
    with pytest.raises(channel.PlatformError, match='4097'):
        guest.call('update_vmsa', page=_encode(bytes(4097)))
    guest.call('measure')
    record, = _status(connect)
    assert record['technology'] == 'amd-sev-es' and record['vcpus'] == 2
    assert record['digest'] == hashlib.sha256(
        bytes(16) + b''.join(pages)).hexdigest()


def test_without_encrypted_state_no_registers_are_measured(connect, started):
    with pytest.raises(channel.PlatformError, match='INVALID_PARAM'):
        started.call('update_vmsa', page=_encode(bytes(4096)))
    record, = _status(connect)
    assert record['vcpus'] == 0


def _told_of(connect):
    return connect().call('status')


@pytest.mark.parametrize('when, ran', [('before', False), ('after', True)])
def test_a_command_is_held_until_it_is_let_go(connect, started, server,
                                              when, ran):
    started.call('measure')
    channel.hold(server.server_address, 'finish', when)
    # Another command is not.
    assert started.call('query')['state'] == 'launch-secret'
    answers = []
    guest = threading.Thread(
        target=lambda: answers.append(started.call('finish')))
    guest.start()
    _wait(lambda: _told_of(connect)['held'] == ['a-uuid'])
    assert answers == []
    assert _status(connect)[0]['instructions_run'] is ran
    channel.let_go(server.server_address)
    guest.join(5)
    assert answers == [{}] and _told_of(connect)['held'] == []
    assert _status(connect)[0]['instructions_run']
    assert started.call('finish') == {}


def test_another_hold_lets_the_one_before_go(connect, started, server):
    channel.hold(server.server_address, 'measure', 'before')
    guest = threading.Thread(target=started.call, args=('measure',))
    guest.start()
    _wait(lambda: _told_of(connect)['held'])
    channel.hold(server.server_address, 'secret', 'before')
    guest.join(5)
    assert not guest.is_alive()


def test_a_hold_ends_by_itself(started, server, monkeypatch):
    monkeypatch.setattr(holds, '_LONGEST_SECONDS', 0.01)
    channel.hold(server.server_address, 'measure', 'before')
    assert started.call('measure')['measurement']


@pytest.mark.parametrize('held, when', [
    (7, 'before'), ('finish', 'during'), ('finish', None)])
def test_a_hold_that_makes_no_sense_is_refused(connect, held, when):
    with pytest.raises(channel.PlatformError, match='expected a command'):
        connect().call('hold', held=held, when=when)


def test_only_root_may_have_commands_held(connect, monkeypatch):
    guest = connect()
    assert guest.call('status')['held'] == []
    monkeypatch.setattr(daemon.os, 'geteuid', lambda: 12345)
    monkeypatch.setattr(daemon, '_user_of', lambda connection: 64055)
    for command in ('hold', 'let_go'):
        with pytest.raises(channel.PlatformError, match='only root'):
            guest.call(command, held='finish', when='before')
