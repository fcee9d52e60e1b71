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

A key file is named ``<number>-<random>.key`` and holds 32 bytes in
hexadecimal. The highest number seals, every key opens: to rotate, create a
key on every node, and remove the old one when the launches made under it have
expired.
"""

import os
import re
import secrets
import stat

from cryptography import exceptions as crypto_exceptions
from cryptography.hazmat.primitives.ciphers import aead

KEY_SIZE = 32
NONCE_SIZE = 12

_NAME = re.compile(r'(?P<id>(?P<number>[0-9]{4,9})-[0-9a-f]{8})\.key')
_HEX_KEY = re.compile(rb'[0-9a-f]{64}\n?')
_LABEL = b'nova-sev-attest transport keys 1'


class SealingError(Exception):
    """A key repository or a sealed blob cannot be used."""


class NoSealingKey(SealingError):
    """The repository has no key."""


def _read_key(path):
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
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


def associated_data(launch_id, server_id, project_id):
    """Bytes that bind a sealed blob to its launch.

    Each part is preceded by its length in bytes as u16 big-endian, so that no
    two triples give the same bytes.
    """
    parts = [_LABEL]
    parts += [text.encode('utf-8')
              for text in (launch_id, server_id, project_id)]
    return b''.join(len(part).to_bytes(2, 'big') + part for part in parts)


class KeyRepository:
    """Directory of sealing keys."""

    def __init__(self, path):
        self.path = path

    def ids(self):
        """Key ids, lowest number first; empty when there is no directory."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise SealingError(
                f'sealing key repository {self.path} cannot be read: '
                f'{exc.strerror}') from exc
        matches = [match for match in map(_NAME.fullmatch, names) if match]
        matches.sort(key=lambda match: (int(match['number']), match['id']))
        return [match['id'] for match in matches]

    def create(self):
        """Make a new key, which seals from now on.

        :returns: the new key's id
        """
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        ids = self.ids()
        number = int(ids[-1].partition('-')[0]) + 1 if ids else 1
        key_id = f'{number:04d}-{secrets.token_hex(4)}'
        path = os.path.join(self.path, key_id + '.key')
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, 'w') as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(secrets.token_hex(KEY_SIZE) + '\n')
            stream.flush()
            os.fsync(stream.fileno())
        return key_id

    def primary_id(self):
        """Id of the key that seals.

        :raises NoSealingKey: when there is none; one is never made silently
        """
        ids = self.ids()
        if not ids:
            raise NoSealingKey(
                f'no sealing key in {self.path}: run "nova-sev-attest-manage '
                f'sealing-key create" as the user of the key service')
        return ids[-1]

    def _cipher(self, key_id):
        if not _NAME.fullmatch(key_id + '.key'):
            raise SealingError(f'not the id of a sealing key: {key_id!r}')
        path = os.path.join(self.path, key_id + '.key')
        return aead.AESGCM(_read_key(path))

    def check(self):
        """Read the key that seals.

        :raises SealingError: when it is missing or unusable
        """
        self._cipher(self.primary_id())

    def seal(self, plaintext, bound_to):
        """Seal bytes under the newest key and a fresh nonce.

        :param bound_to: what associated_data() gives
        :returns: (key id, nonce of 12 bytes followed by ciphertext and tag)
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
