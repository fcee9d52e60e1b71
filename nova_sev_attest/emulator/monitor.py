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

"""A proxy on QEMU's monitor that answers for a SEV platform.

It sits between the socket that libvirt connects to and a private one of
QEMU's, passes everything through, also file descriptors, and answers a few
commands itself. It holds sockets only, and ends when QEMU does.
"""

import base64
import contextlib
import json
import os
import selectors
import socket
import sys

from nova_sev_attest.emulator import channel

# Longest command or reply; QEMU's schema is under a megabyte.
_LONGEST_LINE = 64 * 1024 * 1024
_READ_SIZE = 1 << 16
_MOST_DESCRIPTORS = 16
_NOT_MIGRATED = 'Migration is disabled: SEV: Migration is not implemented'


class CommandFailed(Exception):
    """The proxy's answer to a command is an error; the text goes to it."""


class Probe:
    """Answers where libvirt asks an idle QEMU what it can do.

    :param capabilities: the platform's answer to query-sev-capabilities.
    """

    def __init__(self, capabilities):
        self._capabilities = capabilities

    def answer(self, command, arguments):
        """The result of a command, or None to let QEMU answer."""
        if command == 'query-sev-capabilities':
            return self._capabilities
        return None

    def seen(self, event):
        """Take note of an event of QEMU's: none matters."""


class Guest:
    """Answers for a running guest's launch.

    :param platform: the guest's :class:`channel.Channel`.
    :param measurement: base64 of the launch's measurement.
    :param secret_area: the firmware's area for secrets, or None.
    """

    def __init__(self, platform, measurement, secret_area):
        self._platform = platform
        self._measurement = measurement
        self._secret_area = secret_area
        self._commands = {
            'query-sev': self._query,
            'query-sev-launch-measure': self._measure,
            'sev-inject-launch-secret': self._secret,
            'cont': self._run,
            'migrate': self._migrate,
        }

    def answer(self, command, arguments):
        """The result of a command, or None to let QEMU answer.

        :raises CommandFailed: the platform refused, or is gone.
        """
        if command not in self._commands:
            return None
        try:
            return self._commands[command](arguments)
        except channel.PlatformError as error:
            raise CommandFailed(f'SEV: {command}: {error}') from error

    def seen(self, event):
        """Take note of an event of QEMU's."""
        # There are more ways than cont to let a guest run.
        if event == 'RESUME':
            self._platform.call('finish')

    def _query(self, arguments):
        # QEMU 9.1 added the type, and clients choose by it.
        return {'enabled': True, 'sev-type': 'sev', 'handle': 1,
                **self._platform.call('query')}

    def _measure(self, arguments):
        return {'data': self._measurement}

    def _secret(self, arguments):
        address = arguments.get('gpa')
        if address is None:
            if self._secret_area is None or not self._secret_area.base:
                raise CommandFailed(
                    'SEV: the firmware has no area for secrets, and no gpa '
                    'was given')
            address = self._secret_area.base
            size = len(base64.b64decode(arguments['secret']))
            if size > self._secret_area.size:
                raise CommandFailed(
                    f'SEV: a secret of {size} bytes is larger than the '
                    f"firmware's area of {self._secret_area.size}")
        self._platform.call('secret', header=arguments['packet-header'],
                            data=arguments['secret'], address=address)
        return {}

    def _run(self, arguments):
        # Before QEMU hears of it: where the platform refuses, no
        # instruction runs.
        self._platform.call('finish')
        return None

    def _migrate(self, arguments):
        raise CommandFailed(_NOT_MIGRATED)


class Proxy:
    """The proxy of one QEMU.

    :param listener: the socket that libvirt connects to.
    :param connect: returns a new connection to QEMU's own monitor.
    :param answers: a :class:`Probe` or :class:`Guest`.
    :param lifeline: read end of a pipe that only QEMU holds open.
    """

    def __init__(self, listener, connect, answers, lifeline):
        self._listener = listener
        self._connect = connect
        self._answers = answers
        self._lifeline = lifeline
        self._client = self._qemu = None
        self._from_client = _Lines()
        self._from_qemu = _Lines()
        self._selector = selectors.DefaultSelector()

    def run(self):
        """Serve until QEMU is gone; one client at a time, as QEMU does."""
        self._selector.register(self._lifeline, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ,
                                self._accept)
        alive = True
        while alive:
            for key, _ in self._selector.select():
                if key.data is None:
                    alive = False
                elif key.fileobj.fileno() >= 0:
                    key.data()
        # What QEMU said last, a SHUTDOWN event say, is still in its socket.
        while self._qemu is not None:
            self._read_qemu()

    def _accept(self):
        self._client, _ = self._listener.accept()
        self._qemu = self._connect()
        self._from_client, self._from_qemu = _Lines(), _Lines()
        self._selector.unregister(self._listener)
        for connection, reader in ((self._client, self._read_client),
                                   (self._qemu, self._read_qemu)):
            self._selector.register(connection, selectors.EVENT_READ, reader)

    def _disconnect(self):
        for connection in (self._client, self._qemu):
            self._selector.unregister(connection)
            connection.close()
        self._client = self._qemu = None
        self._selector.register(self._listener, selectors.EVENT_READ,
                                self._accept)

    def _read_client(self):
        descriptors = []
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._client, _READ_SIZE, _MOST_DESCRIPTORS)
            if not data:
                self._disconnect()
                return
            for line in self._from_client.take(data):
                if not self._handled(line):
                    _forward(self._qemu, line, descriptors)
        except (OSError, ValueError) as error:
            _say(f'client: {error}')
            self._disconnect()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _read_qemu(self):
        try:
            data = self._qemu.recv(_READ_SIZE)
            if not data:
                self._disconnect()
                return
            for line in self._from_qemu.take(data):
                self._note(line)
                self._client.sendall(line)
        except (OSError, ValueError) as error:
            _say(f'QEMU: {error}')
            self._disconnect()

    def _note(self, line):
        # Few lines are events, and replies can be long.
        if line.startswith((b'{"timestamp"', b'{"event"')):
            try:
                self._answers.seen(json.loads(line).get('event'))
            except Exception as error:
                _say(f'event: {error!r}')

    def _handled(self, line):
        """Answer a command here; False when it is QEMU's to answer."""
        try:
            message = json.loads(line)
            command = message['execute']
            arguments = message.get('arguments') or {}
        except (KeyError, TypeError, ValueError):
            # QEMU has the better words for what is no command.
            return False
        try:
            result = self._answers.answer(command, arguments)
            if result is None:
                return False
            reply = {'return': result}
        except CommandFailed as error:
            reply = _error(error)
        except Exception as error:
            # The guest must not die of one command.
            _say(f'{command}: {error!r}')
            reply = _error(f'SEV: {command}: malformed arguments')
        if 'id' in message:
            reply['id'] = message['id']
        self._client.sendall(json.dumps(reply).encode() + b'\r\n')
        return True


class _Lines:
    """Cuts a stream into lines."""

    def __init__(self):
        self._rest = bytearray()

    def take(self, data):
        self._rest += data
        *lines, self._rest = self._rest.split(b'\n')
        if len(self._rest) > _LONGEST_LINE:
            raise ValueError(f'a line is longer than {_LONGEST_LINE} bytes')
        return [bytes(line) + b'\n' for line in lines]


def _forward(connection, line, descriptors):
    if descriptors:
        sent = socket.send_fds(connection, [line], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        descriptors.clear()
        line = line[sent:]
    connection.sendall(line)


def _error(text):
    return {'error': {'class': 'GenericError', 'desc': str(text)}}


def _say(text):
    # libvirt keeps this in the domain's log; nobody may read it any more.
    with contextlib.suppress(OSError):
        print(f'sev-emulator: monitor: {text}', file=sys.stderr, flush=True)
