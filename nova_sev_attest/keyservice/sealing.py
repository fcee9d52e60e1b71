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

"""Sealing of the transport keys of open launches.

TEK and TIK of a launch wait in the database between the session and the
evidence. They are sealed with AES-256-GCM under a key that lies in a
directory outside the database; the associated data bind the sealed blob to
one launch of one server of one project, so that a row copied over another
does not open.

A key file holds 32 bytes in hexadecimal. Its name says what the key is for:

=========================  =================================================
``<id>.key``, newest       the primary key: seals and opens
``<id>.key``, the others   old keys: open
``<id>.staged``            the next primary key: opens already, so that it
                           can reach every node before one seals with it
=========================  =================================================

An id is ``<number>-<random>``; the highest number is the newest. A ``.key``
file's time of modification is when the key began to seal. Every call reads
the directory and the key anew: what an operator changes holds from the next
launch on.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import os
import re
import secrets
import stat
import time

from cryptography import exceptions as crypto_exceptions
from cryptography.hazmat.primitives.ciphers import aead

KEY_SIZE = 32
NONCE_SIZE = 12

OLD = 'old'
PRIMARY = 'primary'
STAGED = 'staged'

_NAME = re.compile(
    r'(?P<id>(?P<number>[0-9]{4,9})-[0-9a-f]{8})\.(?P<kind>key|staged)')
_ID = re.compile(r'[0-9]{4,9}-[0-9a-f]{8}')
_HEX_KEY = re.compile(rb'[0-9a-f]{64}\n?')
_LABEL = b'nova-sev-attest transport keys 1'
_LOCK_SECONDS = 10.0


class SealingError(Exception):
    """A key repository or a sealed blob cannot be used."""


class NoSealingKey(SealingError):
    """The repository has no key that seals."""


class _NoSuchKey(SealingError):
    """There is no key file of that name."""


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of a repository, without its bytes.

    :ivar state: OLD, PRIMARY or STAGED
    :ivar since: when it began to seal, UTC; for a staged key when it was made
    """

    id: str
    state: str
    since: datetime.datetime


def _read_key(path):
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError as exc:
        raise _NoSuchKey(f'sealing key {path} cannot be read: '
                         f'{exc.strerror}') from exc
    except OSError as exc:
        raise SealingError(f'sealing key {path} cannot be read: '
                           f'{exc.strerror}') from exc
    with os.fdopen(descriptor, 'rb') as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if not stat.S_ISREG(mode) or stat.S_IMODE(mode) & 0o077:
            raise SealingError(
                f'sealing key {path} must be a regular file that only its '
                f'owner may read (mode 0600), its mode is '
                f'{stat.S_IMODE(mode):04o}')
        content = stream.read(2 * KEY_SIZE + 2)
    if not _HEX_KEY.fullmatch(content):
        raise SealingError(f'sealing key {path} does not hold {KEY_SIZE} '
                           f'bytes in lower-case hexadecimal')
    return bytes.fromhex(content.decode('ascii'))


def associated_data(launch_id, server_id, project_id, *more):
    """Bytes that bind a sealed blob to its launch.

    Each part is preceded by its length in bytes as u16 big-endian, so that no
    two lists of parts give the same bytes.

    :param more: further texts that it is bound to
    """
    parts = [_LABEL]
    parts += [text.encode('utf-8')
              for text in (launch_id, server_id, project_id, *more)]
    return b''.join(len(part).to_bytes(2, 'big') + part for part in parts)


class KeyRepository:
    """Directory of sealing keys.

    :param path: the directory; mode 0700
    """

    def __init__(self, path):
        self.path = path

    def keys(self):
        """The repository's keys, lowest number first.

        :returns: list of Key; empty when there is no directory
        :raises SealingError: the directory cannot be read, or others can
        """
        kinds = self._kinds()
        return [Key(key_id, state, self._since(self._path(
                    key_id, kinds[key_id])))
                for key_id, state in _states(kinds).items()]

    def create(self):
        """Make what is missing: a primary key, and a staged one.

        A key is made as staged, never as primary, where there is a primary
        one: a node that does not have it yet could not open what it seals.

        :returns: list of the ids that were made, primary first
        :raises SealingError: the repository cannot be used
        """
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        made = []
        with self._locked():
            kinds = self._kinds()
            for state, kind in ((PRIMARY, 'key'), (STAGED, 'staged')):
                if state not in _states(kinds).values():
                    key_id = self._next_id(kinds)
                    self._write(key_id, kind)
                    kinds[key_id] = kind
                    made.append(key_id)
        return made

    def rotate(self):
        """Make the staged key the primary one, and stage a new one.

        :returns: (id of the key that seals now, id of the staged one)
        :raises SealingError: there is no staged key, or the repository
            cannot be used
        """
        with self._locked():
            kinds = self._kinds()
            staged = [key_id for key_id, state in _states(kinds).items()
                      if state == STAGED]
            if not staged:
                raise SealingError(
                    f'no staged key in {self.path}: run '
                    f'"nova-sev-attest-manage sealing-key create", copy the '
                    f'repository to every node, and rotate then')
            key_id = staged[-1]
            self._cipher(key_id)
            following = self._next_id(kinds)
            self._write(following, 'staged')
            path = self._path(key_id, 'staged')
            os.utime(path)
            os.rename(path, self._path(key_id, 'key'))
            self._sync()
        return key_id, following

    def delete(self, key_id):
        """Delete an old key; what it sealed never opens again.

        :raises SealingError: there is no old key of that id
        """
        with self._locked():
            states = _states(self._kinds())
            if states.get(key_id) != OLD:
                raise SealingError(
                    f'only old keys can be deleted, and {key_id} is '
                    f'{states.get(key_id, "no key of the repository")}')
            for kind in ('key', 'staged'):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path(key_id, kind))
            self._sync()

    def check(self):
        """Read the key that seals.

        :raises SealingError: when it is missing or unusable
        """
        self._cipher(self.primary_id())

    def primary_id(self):
        """Id of the key that seals.

        :raises NoSealingKey: when there is none; one is never made silently
        """
        found = [key_id for key_id, state in _states(self._kinds()).items()
                 if state == PRIMARY]
        if not found:
            raise self._no_key()
        return found[0]

    def seal(self, plaintext, bound_to):
        """Seal bytes under the primary key and a fresh nonce.

        :param bound_to: what associated_data() gives
        :returns: (key id, nonce of 12 bytes followed by ciphertext and tag)
        :raises SealingError: there is no key that can seal
        """
        key_id = self.primary_id()
        nonce = os.urandom(NONCE_SIZE)
        return key_id, nonce + self._cipher(key_id).encrypt(
            nonce, plaintext, bound_to)

    def open(self, key_id, sealed, bound_to):
        """Open what seal() made.

        :raises SealingError: when the key is gone or the blob does not
            belong to what bound_to says
        """
        cipher = self._cipher(key_id)
        nonce, ciphertext = sealed[:NONCE_SIZE], sealed[NONCE_SIZE:]
        try:
            return cipher.decrypt(nonce, ciphertext, bound_to)
        except (crypto_exceptions.InvalidTag, ValueError) as exc:
            raise SealingError(
                f'sealed keys do not open with key {key_id}: they were '
                f'changed or belong to another launch') from exc

    def _no_key(self):
        return NoSealingKey(
            f'no sealing key in {self.path}: run "nova-sev-attest-manage '
            f'sealing-key create" as the user of the key service')

    def _path(self, key_id, kind):
        return os.path.join(self.path, f'{key_id}.{kind}')

    @staticmethod
    def _since(path):
        try:
            seconds = os.lstat(path).st_mtime
        except FileNotFoundError:
            # Deleted or renamed just now.
            seconds = time.time()
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(
            tzinfo=None)

    def _kinds(self):
        """{key id: 'key' or 'staged'}, lowest number first.

        A repository that was copied without deleting may hold a key under
        both names: then it has become the primary one.
        """
        if not self._check_directory():
            return {}
        try:
            names = os.listdir(self.path)
        except OSError as exc:
            raise SealingError(
                f'sealing key repository {self.path} cannot be read: '
                f'{exc.strerror}') from exc
        found = {}
        for match in filter(None, map(_NAME.fullmatch, names)):
            if found.get(match['id']) != 'key':
                found[match['id']] = match['kind']
        return {key_id: found[key_id] for key_id in sorted(
            found, key=lambda key_id: (_number(key_id), key_id))}

    def _check_directory(self):
        """Whether there is one; its mode must be 0700."""
        try:
            mode = os.stat(self.path).st_mode
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise SealingError(
                f'sealing key repository {self.path} cannot be read: '
                f'{exc.strerror}') from exc
        if not stat.S_ISDIR(mode) or stat.S_IMODE(mode) & 0o077:
            raise SealingError(
                f'sealing key repository {self.path} must be a directory '
                f'that only its owner may use (mode 0700), its mode is '
                f'{stat.S_IMODE(mode):04o}')
        return True

    def _cipher(self, key_id):
        if not _ID.fullmatch(key_id):
            raise SealingError(f'not the id of a sealing key: {key_id!r}')
        self._check_directory()
        try:
            return aead.AESGCM(_read_key(self._path(key_id, 'key')))
        except _NoSuchKey:
            # In this order: a key that is promoted meanwhile is found.
            try:
                return aead.AESGCM(_read_key(self._path(key_id, 'staged')))
            except _NoSuchKey:
                return aead.AESGCM(_read_key(self._path(key_id, 'key')))

    @staticmethod
    def _next_id(kinds):
        number = max(map(_number, kinds), default=0) + 1
        return f'{number:04d}-{secrets.token_hex(4)}'

    def _write(self, key_id, kind):
        """Make a key file that is never seen half written."""
        path = self._path(key_id, kind)
        fresh = path + '.new'
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, 'w') as stream:
                os.fchmod(stream.fileno(), 0o600)
                self._give_to_service(stream.fileno())
                stream.write(secrets.token_hex(KEY_SIZE) + '\n')
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(fresh, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)
            raise
        self._sync()

    def _give_to_service(self, descriptor):
        # root's keys would be of no use to the service, which is not root.
        owner = os.stat(self.path)
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    def _sync(self):
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self):
        """Keep other processes from changing the repository."""
        if not self._check_directory():
            raise self._no_key()
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            give_up_at = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up_at:
                        raise SealingError(
                            f'another process changes {self.path} for more '
                            f'than {_LOCK_SECONDS:g} s') from None
                    time.sleep(0.05)
            yield
        finally:
            os.close(descriptor)


def _states(kinds):
    """{key id: state}, from {key id: kind}, both lowest number first."""
    last = max((position for position, kind in enumerate(kinds.values())
                if kind == 'key'), default=-1)
    return {key_id: (OLD if position < last else
                     PRIMARY if position == last else STAGED)
            for position, key_id in enumerate(kinds)}


def _number(key_id):
    return int(key_id.partition('-')[0])
