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

"""What a project's chain of audit records hashes, and what its heads sign.

A record's canonical form is a JSON object (RFC 8785, the JSON Canonicalization
Scheme: keys sorted, no spaces, UTF-8, only the escapes that must be) with
exactly these members::

    actor       text or null: who made it
    at          text, UTC: 2026-11-24T03:43:00.000000Z
    details     object: text, integers, booleans, null, and arrays and
                objects of those, seven deep at most; no fractions
    event       text: launch.released
    project_id  text
    request_id  text or null
    sequence    integer: 1 in a project's first record, one more in each that
                follows, without gaps
    subject     text: id of the launch, policy, ...

    hash of record n = SHA-256(RECORD_LABEL || hash of record n-1 || form)

Hashes are 32 bytes; before the first record stand 32 bytes of zeros.

A Point is a place in a chain: its head, or the checkpoint from which a purged
chain goes on. Its text is one word of printable ASCII, so that it is found
again in whatever file it was written to::

    audit-head:1:PROJECT:SEQUENCE:HASH:AT:KEY:SIGNATURE

PROJECT is percent-encoded, SEQUENCE decimal, HASH in lower-case hexadecimal,
AT that record's time as 20261124T034300.000000Z, KEY the id of the key that
signed and SIGNATURE its Ed25519 signature (RFC 8032), in base64url without
padding, over POINT_LABEL and the text up to and without the last colon. KEY
and SIGNATURE are a hyphen each where there was no key.
"""

import base64
import binascii
import dataclasses
import hashlib
import json
import re
import urllib.parse

RECORD_LABEL = b'nova-sev-attest audit record 1\x00'
POINT_LABEL = b'nova-sev-attest audit head 1\x00'
#: In the place of the record before the first.
GENESIS = bytes(hashlib.sha256().digest_size)

#: Of Record.at, in UTC.
TIME_FORMAT = '%Y-%m-%dT%H:%M:%S.%fZ'

_MAX_INTEGER = 2 ** 53 - 1
# Of arrays and objects in one another.
_MAX_DEPTH = 8
_TIME = re.compile(
    r'[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z')
# Also what finds the texts of points in a file.
POINT = re.compile(
    r'audit-head:1:(?P<project>[A-Za-z0-9_.~%-]{1,192}):'
    r'(?P<sequence>[1-9][0-9]{0,17}):(?P<hash>[0-9a-f]{64}):'
    r'(?P<at>[0-9]{8}T[0-9]{6}\.[0-9]{6}Z):'
    r'(?:(?P<key>[0-9]{4,9}-[0-9a-f]{8}):(?P<signature>[A-Za-z0-9_-]{86})'
    r'|-:-)(?![A-Za-z0-9_-])')


class ChainError(Exception):
    """A record or a point is not what this module defines."""


def _check_value(value, where, depth=_MAX_DEPTH):
    if not depth:
        raise ChainError(f'{where}: more than {_MAX_DEPTH} arrays and objects '
                         f'in one another')
    if isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str) or not name.isascii():
                raise ChainError(f'{where}: {name!r} is no name in ASCII')
            _check_value(member, f'{where}.{name}', depth - 1)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _check_value(item, f'{where}[{number}]', depth - 1)
    elif isinstance(value, int):
        if abs(value) > _MAX_INTEGER:
            raise ChainError(f'{where}: an integer beyond 2^53 has no '
                             f'canonical form')
    elif not isinstance(value, (str, type(None))):
        raise ChainError(f'{where}: no canonical form for a '
                         f'{type(value).__name__}')


def canonical(value):
    """A JSON value as text, in the one form that is hashed.

    :raises ChainError: it has none
    """
    _check_value(value, 'details')
    # Names are ASCII, so that this is RFC 8785's order of keys as well.
    text = json.dumps(value, sort_keys=True, separators=(',', ':'),
                      ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ChainError('a text is no valid Unicode') from exc
    return text


@dataclasses.dataclass(frozen=True)
class Record:
    """A record as stored.

    :ivar details: canonical JSON text of an object
    :ivar hash: 32 bytes; None before it was chained
    """

    project_id: str
    sequence: int
    at: str
    event: str
    subject: str
    actor: str | None
    request_id: str | None
    details: str
    hash: bytes | None = None

    def digest(self, previous):
        """The hash that this record has after another one.

        :param previous: hash of the record before; GENESIS for the first
        :raises ChainError: a column is not what a record can have
        """
        if type(self.sequence) is not int or self.sequence < 1:
            raise ChainError('sequence is not a positive integer')
        for name in ('project_id', 'at', 'event', 'subject', 'details'):
            if not isinstance(getattr(self, name), str):
                raise ChainError(f'{name} is no text')
        for name in ('actor', 'request_id'):
            if not isinstance(getattr(self, name), (str, type(None))):
                raise ChainError(f'{name} is neither text nor null')
        if not _TIME.fullmatch(self.at):
            raise ChainError('at is no time')
        try:
            details = json.loads(self.details)
        except (ValueError, RecursionError) as exc:
            raise ChainError('details is no JSON') from exc
        if not isinstance(details, dict) or (
                canonical(details) != self.details):
            raise ChainError('details is no object in canonical form')
        form = canonical({
            'actor': self.actor, 'at': self.at, 'details': details,
            'event': self.event, 'project_id': self.project_id,
            'request_id': self.request_id, 'sequence': self.sequence,
            'subject': self.subject})
        return hashlib.sha256(
            RECORD_LABEL + previous + form.encode()).digest()

    def chained(self, previous):
        """This record with the hash that it has after another one."""
        return dataclasses.replace(self, hash=self.digest(previous))


@dataclasses.dataclass(frozen=True)
class Point:
    """A place in a chain: that of its head or of its checkpoint.

    :ivar hash: 32 bytes, of the record of that sequence
    :ivar signature: 86 characters of base64url, None without a key
    """

    project_id: str
    sequence: int
    at: str
    hash: bytes
    key_id: str | None = None
    signature: str | None = None

    @classmethod
    def of(cls, record):
        """The unsigned point of a chained record."""
        return cls(record.project_id, record.sequence, record.at,
                   record.hash)

    def message(self):
        """The bytes that are signed; key_id is among them."""
        return POINT_LABEL + self._text().encode('ascii')

    def _text(self):
        at = self.at.replace('-', '').replace(':', '')
        return ':'.join((
            'audit-head:1', urllib.parse.quote(self.project_id, safe=''),
            str(self.sequence), self.hash.hex(), at, self.key_id or '-'))

    def __str__(self):
        return f'{self._text()}:{self.signature or "-"}'

    @property
    def signature_bytes(self):
        """The 64 bytes of the signature.

        :raises ChainError: it is not in the form that sign() gives
        """
        try:
            data = base64.urlsafe_b64decode(self.signature + '==')
        except (binascii.Error, TypeError, ValueError) as exc:
            raise ChainError('the signature is no base64url') from exc
        # There are several spellings of the same bytes; one counts.
        if len(data) != 64 or encode_signature(data) != self.signature:
            raise ChainError('the signature is no 64 bytes in base64url')
        return data

    def check(self):
        """Raise ChainError when a column is not what a point can have."""
        if not isinstance(self.hash, bytes) or len(self.hash) != len(GENESIS):
            raise ChainError('hash is not 32 bytes')
        if not isinstance(self.at, str) or not _TIME.fullmatch(self.at):
            raise ChainError('at is no time')
        if type(self.sequence) is not int or self.sequence < 1:
            raise ChainError('sequence is not a positive integer')
        if not isinstance(self.project_id, str):
            raise ChainError('project_id is no text')
        for name in ('key_id', 'signature'):
            if not isinstance(getattr(self, name), (str, type(None))):
                raise ChainError(f'{name} is neither text nor null')
        if not POINT.fullmatch(str(self)):
            raise ChainError('the key id or the signature is malformed')

    @classmethod
    def from_match(cls, match):
        """The point of a match of POINT.

        :raises ChainError: it is not a text that a point has
        """
        found = match.group
        at = found('at')
        point = cls(
            # What is no UTF-8 does not come out as it went in.
            urllib.parse.unquote(found('project')),
            int(found('sequence')),
            f'{at[:4]}-{at[4:6]}-{at[6:11]}:{at[11:13]}:{at[13:]}',
            bytes.fromhex(found('hash')), found('key'), found('signature'))
        if str(point) != match[0]:
            raise ChainError(f'not a head as it is written: {match[0]}')
        return point


def encode_signature(data):
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode('ascii')
