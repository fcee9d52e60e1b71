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

"""Files that owners' commands read and write; ``-`` is the standard input."""

import base64
import binascii
import contextlib
import hashlib
import os
import pathlib
import sys
import tempfile

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import session

#: Largest text file that is read, such as a measurement in base64.
_MAX_TEXT = 64 * 1024
_CHUNK = 1 << 20
#: More than any kernel or initrd; they are hashed piece by piece.
_MAX_HASHED = 4 << 30

PRIVATE, PUBLIC = 0o600, 0o644


class Unusable(Exception):
    """An input that cannot be used; the text says why."""


class Reader:
    """Reads the files of one command, the standard input at most once."""

    def __init__(self, stdin=None):
        self._stdin = stdin
        self._stdin_read = False

    @contextlib.contextmanager
    def _open(self, path):
        if path != '-':
            with open(path, 'rb') as stream:
                yield stream
            return
        if self._stdin_read:
            raise Unusable(
                'the standard input (-) can be given for one file only')
        self._stdin_read = True
        yield sys.stdin.buffer if self._stdin is None else self._stdin

    def read(self, path, limit, what):
        """All of a file of at most ``limit`` bytes."""
        with self._open(path) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise Unusable(
                f'{path} has more than the {limit} bytes that {what} can '
                f'have')
        return data

    def firmware(self, path):
        """A Firmware."""
        with self._open(path) as stream:
            try:
                return firmware.Firmware.read(stream)
            except errors.FirmwareMalformed as exc:
                raise Unusable(f'{path}: {exc}') from exc

    def sha256(self, path, what):
        """SHA-256 of a file of any size, in hexadecimal."""
        hasher, size = hashlib.sha256(), 0
        with self._open(path) as stream:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if size > _MAX_HASHED:
                    raise Unusable(
                        f'{path} has more than the {_MAX_HASHED} bytes that '
                        f'{what} can have')
                hasher.update(chunk)
        return hasher.hexdigest()

    def key(self, path, what):
        """A TEK or TIK: a file of its 16 bytes, as sevctl writes it."""
        data = self.read(path, session.KEY_SIZE + 1, what)
        if len(data) != session.KEY_SIZE:
            raise Unusable(
                f'{path} is no {what}: expected {session.KEY_SIZE} bytes, as '
                f'they are')
        return data

    def binary(self, path, size, what):
        """A file of so many bytes, or of their base64."""
        data = self.read(path, _MAX_TEXT, what)
        if len(data) == size:
            return data
        return decode(data, size, f'{path} is no {what}')

    def packet(self, path, limit):
        """A packed secret: a multiple of 16 bytes, or their base64.

        :param limit: most bytes that it may have
        """
        data = self.read(path, _MAX_TEXT, 'a packed secret')
        try:
            data = base64.b64decode(b''.join(data.split()), validate=True)
        except binascii.Error:
            pass  # as it is, then
        if not data or len(data) % 16 or len(data) > limit:
            raise Unusable(
                f'{path} is no packed secret: expected a multiple of 16 '
                f'bytes, at most {limit}, in base64 or as they are; got '
                f'{len(data)}')
        return data


def decode(text, size, what):
    """Decode base64 of so many bytes, white space allowed.

    :param what: how the message begins if it is not.
    """
    try:
        if isinstance(text, str):
            text = text.encode('ascii')
        data = base64.b64decode(b''.join(text.split()), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Unusable(
            f'{what}: expected {size} bytes in base64') from None
    if len(data) != size:
        raise Unusable(
            f'{what}: expected {size} bytes, got {len(data)}')
    return data


def encode(data):
    """base64 in one line, without an end of line, as sevctl writes it."""
    return base64.b64encode(data)


def write_new(files):
    """Write files that must not exist yet, all or none.

    Each one appears whole and with its mode; keys are made once, so that an
    older file is never replaced.

    :param files: mapping of path to (content, mode).
    :raises Unusable: one exists.
    :raises OSError: none was written.
    """
    mask = os.umask(0o077)
    os.umask(mask)
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as temporary:
        ready = []
        for path, (data, mode) in files.items():
            path = pathlib.Path(path)
            handle, name = _temporary(path)
            temporary.callback(os.unlink, name)
            with os.fdopen(handle, 'wb') as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
                os.fchmod(stream.fileno(), mode & ~mask)
            ready.append((name, path))
        for name, path in ready:
            try:
                os.link(name, path)
            except FileExistsError:
                raise Unusable(
                    f'{path} exists and is left as it is; choose another '
                    f'name or remove it') from None
            undo.callback(os.unlink, path)
        undo.pop_all()


def _temporary(path):
    """A new file of mode 0600 beside a path; returns (descriptor, name)."""
    try:
        return tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
    except OSError as exc:
        # It is the path that the user knows.
        exc.filename = str(path)
        raise


def session_paths(name, directory='.'):
    """The paths of a session, under the names that sevctl gives them.

    :returns: dict of 'godh', 'session', 'tek' and 'tik' to pathlib.Path.
    """
    folder = pathlib.Path(directory)
    return {'godh': folder / f'{name}_godh.b64',
            'session': folder / f'{name}_session.b64',
            'tek': folder / f'{name}_tek.bin',
            'tik': folder / f'{name}_tik.bin'}


GODH_SIZE = certificates.SEV_CERTIFICATE_SIZE
