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

"""The secrets that tests use, and the places where none may be found.

The harness and the fakes record every secret when they make it or hand it
out. After each test all that was logged, stored and answered meanwhile is
searched for all secrets of the session so far. Notifications are in the log,
which is their driver in tests; the audit is in the database.
"""

import base64
import contextlib
import io
import json
import logging

import sqlalchemy as sa

#: Shorter ones, and those of fewer different bytes, are found by chance.
_SHORTEST = 12
_FEWEST = 6
_PREFIX = 8


class Leak(AssertionError):
    """A secret is where it must not be."""


def forms(secret):
    """How bytes may look in a text or a column.

    :returns: generator of bytes: raw, hexadecimal, base64 in its three
        alignments and two alphabets, escaped by JSON and by Python, reversed
    """
    yield secret
    for data in (secret, secret[::-1]):
        yield data.hex().encode()
        yield data.hex().upper().encode()
    for shift, first in enumerate((0, 2, 3)):
        encoded = base64.b64encode(bytes(shift) + secret)
        whole = encoded[first:(shift + len(secret)) * 8 // 6]
        yield whole
        yield whole.replace(b'+', b'-').replace(b'/', b'_')
    yield repr(secret)[2:-1].encode()
    with contextlib.suppress(UnicodeDecodeError):
        yield json.dumps(secret.decode())[1:-1].encode()
    yield json.dumps(secret.decode('latin-1'))[1:-1].encode()
    yield str(list(secret))[1:-1].encode()


class Ledger:
    """Secrets by name, and the search for them."""

    def __init__(self):
        self._secrets = set()
        self._forms = {}

    def __len__(self):
        return len(self._secrets)

    def record(self, name, secret):
        """Remember a secret; one that cannot be told from chance is not."""
        if isinstance(secret, str):
            secret = secret.encode()
        if (secret in self._secrets or len(secret) < _SHORTEST
                or len(set(secret)) < _FEWEST):
            return
        self._secrets.add(secret)
        for form in forms(secret):
            self._forms.setdefault(form[:_PREFIX], set()).add((form, name))

    def look(self, place, data):
        """Search bytes or text for every secret.

        :raises Leak: with the secret's name, and not the secret
        """
        if isinstance(data, str):
            data = data.encode('utf-8', 'surrogatepass')
        known = self._forms
        for at in range(len(data) - _PREFIX + 1):
            if data[at:at + _PREFIX] in known:
                for form, name in known[data[at:at + _PREFIX]]:
                    if data.startswith(form, at):
                        raise Leak(f'{place} holds {name}')


LEDGER = Ledger()


def stored(engine):
    """All that is in a database, as bytes.

    :param engine: sqlalchemy's.
    """
    found, tables = [], sa.MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        for table in tables.sorted_tables:
            for row in connection.execute(sa.select(table)):
                found += [value if isinstance(value, bytes)
                          else str(value).encode() for value in row]
    return b'\n'.join(found)


@contextlib.contextmanager
def everything_logged():
    """The text of all that is logged meanwhile, at DEBUG, by anyone."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter('%(name)s %(message)s'))
    logger = logging.getLogger()
    levels = {logger: logger.level}
    for name in list(logger.manager.loggerDict):
        found = logging.getLogger(name)
        levels[found] = found.level
        found.setLevel(logging.NOTSET)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield stream.getvalue
    finally:
        logger.removeHandler(handler)
        for found, level in levels.items():
            found.setLevel(level)
