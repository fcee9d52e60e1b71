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

"""The monitor's proxy between a client and a QEMU that is played here."""

import array
import contextlib
import json
import os
import socket
import threading

import pytest

from nova_sev_attest.emulator import channel
from nova_sev_attest.emulator import firmware
from nova_sev_attest.emulator import monitor

_GREETING = {'QMP': {'version': {}, 'capabilities': []}}


class Platform:
    """Records calls; refuses those named."""

    def __init__(self):
        self.calls = []
        self.refuses = {}

    def call(self, command, **arguments):
        self.calls.append((command, arguments))
        if command in self.refuses:
            raise channel.PlatformError(self.refuses[command])
        return {'state': 'launch-secret', 'policy': 59}


class Qemu:
    """QEMU's end of a connection."""

    def __init__(self, connection):
        self.connection = connection
        connection.settimeout(5)
        self._file = connection.makefile('rb')

    def say(self, message):
        self.connection.sendall(json.dumps(message).encode() + b'\r\n')

    def heard(self):
        return json.loads(self._file.readline())

    def close(self):
        self._file.close()
        self.connection.close()


class Bench:
    """A proxy, with a client before and a QEMU behind it."""

    def __init__(self, answers, folder):
        self.path = str(folder / 'monitor')
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen()
        behind = socket.socket(socket.AF_UNIX)
        behind.bind(str(folder / 'qemu'))
        behind.listen()
        self._behind = behind
        self._lifeline, self._held = os.pipe()

        def to_qemu():
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(behind.getsockname())
            return connection

        proxy = monitor.Proxy(listener, to_qemu, answers, self._lifeline)
        self.thread = threading.Thread(target=proxy.run)
        self.thread.start()

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.connect(self.path)
        qemu = Qemu(self._behind.accept()[0])
        qemu.say(_GREETING)
        client = Qemu(client)
        assert client.heard() == _GREETING
        return client, qemu

    def end_qemu(self):
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def close(self):
        self.end_qemu()
        self.thread.join(5)
        assert not self.thread.is_alive()
        self._behind.close()
        os.close(self._lifeline)


@pytest.fixture
def platform():
    return Platform()


@pytest.fixture
def bench(platform, tmp_path):
    answers = monitor.Guest(platform, 'bWVhc3VyZW1lbnQ=',
                            firmware.Area(0x810000, 0xc00))
    made = Bench(answers, tmp_path)
    yield made
    made.close()


@pytest.fixture
def ends(bench):
    client, qemu = bench.connect()
    yield client, qemu
    client.close()
    qemu.close()


def _passes(ends, command):
    """A command that must reach QEMU, and QEMU's reply the client."""
    client, qemu = ends
    client.say(command)
    assert qemu.heard() == command
    qemu.say({'return': {'by': 'qemu'}, 'id': command.get('id')})
    assert client.heard() == {'return': {'by': 'qemu'},
                              'id': command.get('id')}


def test_passes_all_that_is_qemus(ends):
    client, qemu = ends
    _passes(ends, {'execute': 'query-status', 'id': 'libvirt-1'})
    qemu.say({'event': 'STOP'})
    assert client.heard() == {'event': 'STOP'}


def test_passes_what_is_no_command(ends):
    _passes(ends, {'not': 'a command', 'id': 1})
    client, qemu = ends
    client.connection.sendall(b'rubbish\n')
    assert qemu._file.readline() == b'rubbish\n'
    client.connection.sendall(b'[]\n')
    assert qemu._file.readline() == b'[]\n'


def test_commands_may_come_in_pieces(ends):
    client, qemu = ends
    data = json.dumps({'execute': 'stop', 'id': 'x'}).encode() + b'\r\n'
    for at in range(len(data)):
        client.connection.sendall(data[at:at + 1])
    assert qemu.heard() == {'execute': 'stop', 'id': 'x'}


def test_passes_descriptors(ends):
    client, qemu = ends
    sent = os.memfd_create('tap')
    os.write(sent, b'a tap device')
    line = json.dumps({'execute': 'getfd',
                       'arguments': {'fdname': 'net0'}}).encode() + b'\n'
    client.connection.sendmsg(
        [line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                  array.array('i', [sent]))])
    data, descriptors, _, _ = socket.recv_fds(qemu.connection, 4096, 4)
    assert data == line
    assert os.pread(descriptors[0], 100, 0) == b'a tap device'
    for descriptor in (sent, *descriptors):
        os.close(descriptor)


def test_answers_query_sev(ends, platform):
    client, _ = ends
    client.say({'execute': 'query-sev', 'id': 'libvirt-5'})
    assert client.heard() == {
        'id': 'libvirt-5',
        'return': {'enabled': True, 'sev-type': 'sev', 'handle': 1,
                   'policy': 59, 'state': 'launch-secret'}}


def test_answers_the_measurement(ends):
    client, _ = ends
    client.say({'execute': 'query-sev-launch-measure'})
    assert client.heard() == {'return': {'data': 'bWVhc3VyZW1lbnQ='}}


@pytest.mark.parametrize('gpa, address', [(None, 0x810000), (4096, 4096)])
def test_hands_the_secret_to_the_platform(ends, platform, gpa, address):
    client, qemu = ends
    arguments = {'packet-header': 'aGVhZA==', 'secret': 'c2VjcmV0'}
    if gpa is not None:
        arguments['gpa'] = gpa
    client.say({'execute': 'sev-inject-launch-secret',
                'arguments': arguments, 'id': 1})
    assert client.heard() == {'return': {}, 'id': 1}
    assert platform.calls == [('secret', {
        'header': 'aGVhZA==', 'data': 'c2VjcmV0', 'address': address})]
    # And QEMU hears nothing of it.
    _passes(ends, {'execute': 'query-status', 'id': 2})


def test_secret_larger_than_the_area_is_refused(ends, platform):
    client, _ = ends
    client.say({'execute': 'sev-inject-launch-secret', 'arguments': {
        'packet-header': '', 'secret': 'A' * 4104}})
    assert 'larger' in client.heard()['error']['desc']
    assert platform.calls == []


@pytest.mark.parametrize('area', [None, firmware.Area(0, 0)])
def test_secret_without_a_place_is_refused(platform, area):
    guest = monitor.Guest(platform, '', area)
    with pytest.raises(monitor.CommandFailed, match='no area'):
        guest.answer('sev-inject-launch-secret',
                     {'packet-header': '', 'secret': ''})
    assert platform.calls == []


def test_refusals_are_errors_of_the_command(ends, platform):
    client, _ = ends
    platform.refuses['secret'] = 'BAD_MEASUREMENT'
    client.say({'execute': 'sev-inject-launch-secret', 'id': 3, 'arguments': {
        'packet-header': '', 'secret': '', 'gpa': 1}})
    reply = client.heard()
    assert reply['id'] == 3
    assert reply['error']['class'] == 'GenericError'
    assert 'BAD_MEASUREMENT' in reply['error']['desc']


def test_run_is_told_before_qemu_hears(ends, platform):
    client, qemu = ends
    client.say({'execute': 'cont', 'id': 4})
    assert qemu.heard() == {'execute': 'cont', 'id': 4}
    assert platform.calls == [('finish', {})]


def test_run_by_another_way_is_told(ends, platform):
    client, qemu = ends
    qemu.say({'timestamp': {'seconds': 1}, 'event': 'RESUME'})
    assert client.heard()['event'] == 'RESUME'
    assert platform.calls == [('finish', {})]
    qemu.say({'event': 'STOP'})
    assert client.heard()['event'] == 'STOP'
    assert platform.calls == [('finish', {})]


def test_refused_run_never_reaches_qemu(ends, platform):
    client, _ = ends
    platform.refuses['finish'] = 'gone'
    client.say({'execute': 'cont', 'id': 4})
    assert 'gone' in client.heard()['error']['desc']
    _passes(ends, {'execute': 'query-status', 'id': 5})


def test_migration_is_refused(ends):
    client, _ = ends
    client.say({'execute': 'migrate', 'arguments': {'uri': 'tcp:x'}})
    assert 'not implemented' in client.heard()['error']['desc']


@pytest.mark.parametrize('arguments', [
    {}, {'secret': 7, 'packet-header': 1}, ['secret']])
def test_malformed_arguments_do_not_end_the_proxy(ends, arguments):
    client, _ = ends
    client.say({'execute': 'sev-inject-launch-secret',
                'arguments': arguments})
    assert 'malformed' in client.heard()['error']['desc']
    _passes(ends, {'execute': 'query-status', 'id': 6})


def test_a_restarted_client_finds_a_fresh_monitor(bench):
    client, qemu = bench.connect()
    client.close()
    assert qemu._file.readline() == b''
    qemu.close()
    ends = bench.connect()
    _passes(ends, {'execute': 'qmp_capabilities', 'id': 1})
    for one in ends:
        one.close()


def test_ends_with_qemu_and_passes_its_last_words(bench):
    client, qemu = bench.connect()
    qemu.say({'event': 'SHUTDOWN'})
    qemu.close()
    bench.end_qemu()
    assert client.heard() == {'event': 'SHUTDOWN'}
    assert client._file.readline() == b''
    bench.thread.join(5)
    assert not bench.thread.is_alive()
    client.close()


def test_ends_though_nobody_connected(bench):
    bench.end_qemu()
    bench.thread.join(5)
    assert not bench.thread.is_alive()


def test_probe_answers_capabilities_only(tmp_path):
    bench = Bench(monitor.Probe({'cbitpos': 51}), tmp_path)
    ends = bench.connect()
    ends[0].say({'execute': 'query-sev-capabilities', 'id': 1})
    assert ends[0].heard() == {'return': {'cbitpos': 51}, 'id': 1}
    _passes(ends, {'execute': 'query-sev', 'id': 2})
    _passes(ends, {'execute': 'cont', 'id': 3})
    for one in ends:
        one.close()
    bench.close()


def test_endless_lines_end_the_connection(bench, monkeypatch):
    monkeypatch.setattr(monitor, '_LONGEST_LINE', 1 << 17)
    client, qemu = bench.connect()
    # The proxy may close before all is sent.
    with contextlib.suppress(OSError):
        client.connection.sendall(b'x' * (1 << 20))
    assert qemu._file.readline() == b''
    client.close()
    qemu.close()
