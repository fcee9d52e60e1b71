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

"""How QEMU's side and the emulated secure processor talk.

A UNIX stream socket. Each request and each reply is a length (four bytes,
little-endian) and a JSON object; file descriptors (the guest's memory,
measured files) come with the length. A guest's launch belongs to the
connection that started it and ends with it.
"""

import contextlib
import json
import os
import socket
import struct

# A session, a certificate and a secret of the longest size fit well.
REQUEST_LIMIT = 128 * 1024
_REPLY_LIMIT = 64 * 1024 * 1024
_LENGTH = struct.Struct('<I')
_TIMEOUT = 30


class ProtocolError(Exception):
    """The peer sent what is no message."""


class PlatformError(Exception):
    """The platform refused, or is not there; the text says why."""


def send(connection, message, descriptors=()):
    """Send one message and copies of file descriptors."""
    data = json.dumps(message).encode()
    length = _LENGTH.pack(len(data))
    if descriptors:
        socket.send_fds(connection, [length], descriptors)
    else:
        connection.sendall(length)
    connection.sendall(data)


def receive(connection, limit=REQUEST_LIMIT, descriptors=0):
    """Receive one message.

    :param limit: longest message in bytes.
    :param descriptors: number of descriptors taken; more are closed.
    :returns: the object and the list of descriptors (the caller's to
        close), or None when the peer closed the connection.
    :raises ProtocolError: it is not a message; nothing is left open.
    """
    head, taken, _, _ = socket.recv_fds(connection, _LENGTH.size,
                                        descriptors)
    try:
        if not head:
            return None
        head += _exactly(connection, _LENGTH.size - len(head))
        size, = _LENGTH.unpack(head)
        if size > limit:
            raise ProtocolError(f'a message of {size} bytes, longer than '
                                f'{limit}')
        message = json.loads(_exactly(connection, size))
        if not isinstance(message, dict):
            raise ProtocolError('a message that is no object')
    except ValueError as error:
        _close_all(taken)
        raise ProtocolError('a message that is no JSON') from error
    except BaseException:
        _close_all(taken)
        raise
    return message, taken


def _exactly(connection, size):
    data = bytearray()
    while len(data) < size:
        part = connection.recv(min(size - len(data), 1 << 16))
        if not part:
            raise ProtocolError('the peer left in the middle of a message')
        data += part
    return bytes(data)


def _close_all(descriptors):
    for descriptor in descriptors:
        os.close(descriptor)


class Channel:
    """A connection to the platform, and with it one guest's launch.

    :param path: the platform's socket.
    :raises PlatformError: nobody listens there.
    """

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_TIMEOUT)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise PlatformError(
                f'the emulated SEV platform does not answer at {path} '
                f'({error.strerror or error}): is its daemon running?'
            ) from error

    def call(self, command, descriptors=(), **arguments):
        """Run a command of the platform and return its result.

        :raises PlatformError: the platform refused it or is gone.
        """
        try:
            send(self._socket, {'command': command, **arguments},
                 descriptors)
            received = receive(self._socket, _REPLY_LIMIT)
        except (OSError, ProtocolError) as error:
            raise PlatformError(
                f'the emulated SEV platform is gone: {error}') from error
        if received is None:
            raise PlatformError('the emulated SEV platform is gone')
        reply, _ = received
        if 'error' in reply:
            raise PlatformError(reply['error'])
        return reply['result']

    def fileno(self):
        """The connection's descriptor."""
        return self._socket.fileno()

    def close(self):
        """End the launch that belongs to the connection."""
        self._socket.close()


def status(path):
    """All launches the platform at a socket knows of; see the daemon.

    :raises PlatformError: nobody answers there.
    """
    with contextlib.closing(Channel(path)) as channel:
        return channel.call('status')


def hold(path, command, when):
    """Have the platform hold each command of a name; see :mod:`holds`.

    :param when: 'before' or 'after' it is carried out.
    :raises PlatformError: nobody answers there, or we are not root.
    """
    with contextlib.closing(Channel(path)) as channel:
        channel.call('hold', held=command, when=when)


def let_go(path):
    """Have the platform hold nothing any more.

    :raises PlatformError: nobody answers there, or we are not root.
    """
    with contextlib.closing(Channel(path)) as channel:
        channel.call('let_go')
