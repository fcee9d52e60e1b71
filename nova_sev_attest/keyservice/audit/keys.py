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

"""The keys that sign the heads of the audit.

Ed25519, not an HMAC: who holds the public key can check every head that was
kept outside the database, and can make none. A key lives in a directory
outside the database (mode 0700) as ``<number>-<random>.key`` (PKCS #8 in PEM,
mode 0600); its public half lies beside it as ``.pub`` (SubjectPublicKeyInfo
in PEM). The highest number signs; every public key verifies, so they stay
when the private key of an older one is destroyed.
"""

import dataclasses
import os
import pathlib
import re
import secrets
import stat

from cryptography import exceptions as crypto_exceptions
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives import serialization

from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.trust import files

_MAX_FILE = 4096
_NAME = re.compile(
    r'(?P<id>(?P<number>[0-9]{4,9})-[0-9a-f]{8})\.(?P<kind>key|pub)')


class AuditKeyError(Exception):
    """A key of the audit or its directory cannot be used."""


def _read(path, private):
    # Not to wait for the other end of a pipe.
    flags = (os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
             | os.O_NONBLOCK)
    try:
        descriptor = os.open(path, flags)
    except OSError as exc:
        raise AuditKeyError(
            f'audit key {path} cannot be read: {exc.strerror}') from exc
    with os.fdopen(descriptor, 'rb') as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise AuditKeyError(f'audit key {path} is no regular file')
        if private and stat.S_IMODE(mode) & 0o077:
            raise AuditKeyError(
                f'audit key {path} must be one that only its owner may read '
                f'(mode 0600), its mode is {stat.S_IMODE(mode):04o}')
        return stream.read(_MAX_FILE)


def read_public(path):
    """The public key of a .pub file.

    :raises AuditKeyError: it cannot be read, or is no Ed25519 key
    """
    try:
        key = serialization.load_pem_public_key(_read(path, False))
    except (ValueError, crypto_exceptions.UnsupportedAlgorithm) as exc:
        raise AuditKeyError(f'{path} is no public key in PEM') from exc
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise AuditKeyError(f'{path} is no Ed25519 key')
    return key


def read_publics(paths):
    """Public keys of files that keep the names they were made with.

    :returns: {key id: Ed25519PublicKey}
    """
    keys = {}
    for path in map(pathlib.Path, paths):
        match = _NAME.fullmatch(path.name)
        if match is None or match['kind'] != 'pub':
            raise AuditKeyError(
                f'{path}: the file of a public key of the audit is named '
                f'<key id>.pub, as "audit-key create" made it')
        keys[match['id']] = read_public(path)
    return keys


def verify(point, publics):
    """Hold a point to its signature.

    :param publics: {key id: Ed25519PublicKey}
    :raises ChainError: it has none, or none that one of the keys made
    """
    point.check()
    if point.key_id is None:
        raise chain.ChainError('it is not signed')
    key = publics.get(point.key_id)
    if key is None:
        raise chain.ChainError(
            f'there is no public key {point.key_id} to verify it with')
    try:
        key.verify(point.signature_bytes, point.message())
    except crypto_exceptions.InvalidSignature:
        raise chain.ChainError(
            f'its signature is not one by key {point.key_id}') from None


class AuditKeys:
    """Directory of the audit's keys."""

    def __init__(self, path):
        self.path = path
        self._cached = None

    def _ids(self, kind):
        try:
            mode = os.stat(self.path).st_mode
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise AuditKeyError(
                f'audit key repository {self.path} cannot be read: '
                f'{exc.strerror}') from exc
        # Who can put a public key there can have any head accepted.
        if stat.S_IMODE(mode) & 0o077:
            raise AuditKeyError(
                f'audit key repository {self.path} must be a directory that '
                f'only its owner may use (mode 0700), its mode is '
                f'{stat.S_IMODE(mode):04o}')
        found = [match for match in map(_NAME.fullmatch, names)
                 if match and match['kind'] == kind]
        found.sort(key=lambda match: (int(match['number']), match['id']))
        return [match['id'] for match in found]

    def private_ids(self):
        """Ids of the keys that can sign; the last one does."""
        return self._ids('key')

    def public_ids(self):
        """Ids of the keys that verify, oldest first."""
        return self._ids('pub')

    def create(self):
        """Make a new key, which signs from now on.

        :returns: its id
        """
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        ids = self.public_ids() + self.private_ids()
        number = max((int(key_id.partition('-')[0]) for key_id in ids),
                     default=0) + 1
        key_id = f'{number:04d}-{secrets.token_hex(4)}'
        key = ed25519.Ed25519PrivateKey.generate()
        path = pathlib.Path(self.path, key_id)
        # First the public one: what signs can always be verified.
        files.write(path.with_suffix('.pub'), key.public_key().public_bytes(
            serialization.Encoding.PEM,
            serialization.PublicFormat.SubjectPublicKeyInfo))
        files.write(path.with_suffix('.key'), key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()), 0o600)
        return key_id

    def retire(self, key_id):
        """Destroy the private half of a key that another one follows.

        :raises AuditKeyError: there is none, or it is the one that signs
        """
        ids = self.private_ids()
        if key_id not in ids:
            raise AuditKeyError(f'there is no private key {key_id} in '
                                f'{self.path}')
        if key_id == ids[-1]:
            raise AuditKeyError(f'{key_id} is the key that signs; make '
                                f'another one first')
        os.unlink(os.path.join(self.path, key_id + '.key'))

    def publics(self):
        """All public keys: {key id: Ed25519PublicKey}."""
        return read_publics(os.path.join(self.path, key_id + '.pub')
                            for key_id in self.public_ids())

    def signer(self):
        """What signs: (key id, Ed25519PrivateKey), or None without a key.

        :raises AuditKeyError: there is one that cannot be used
        """
        ids = self.private_ids()
        if not ids:
            return None
        if self._cached is None or self._cached[0] != ids[-1]:
            self._cached = ids[-1], self._load(ids[-1])
        return self._cached

    def _load(self, key_id):
        path = os.path.join(self.path, key_id + '.key')
        data = _read(path, True)
        try:
            key = serialization.load_pem_private_key(data, None)
        except (ValueError, TypeError,
                crypto_exceptions.UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            # Nothing of the file goes into a message.
            raise AuditKeyError(f'audit key {path} is no Ed25519 key in PEM')
        return key

    def sign(self, point):
        """A point with the signature of the newest key.

        :returns: the Point as it is when there is no key
        :raises AuditKeyError: there is one that cannot be used
        """
        signer = self.signer()
        if signer is None:
            return point
        key_id, key = signer
        point = dataclasses.replace(point, key_id=key_id)
        return dataclasses.replace(
            point, signature=chain.encode_signature(
                key.sign(point.message())))
