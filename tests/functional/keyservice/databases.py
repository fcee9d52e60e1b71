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

"""Databases for the tests, on the servers that the environment names.

NOVA_SEV_ATTEST_TEST_MYSQL and NOVA_SEV_ATTEST_TEST_POSTGRESQL are URLs, as
SQLAlchemy takes them, of servers whose user may create databases. Each test
or process gets a database of its own there, which is dropped at the end.
"""

import contextlib
import os
import uuid

import sqlalchemy as sa

_VARIABLES = {
    'mysql': 'NOVA_SEV_ATTEST_TEST_MYSQL',
    'postgresql': 'NOVA_SEV_ATTEST_TEST_POSTGRESQL',
}
KINDS = ('sqlite', *_VARIABLES)


def variable(kind):
    """Name of the environment variable with the URL of a server."""
    return _VARIABLES[kind]


def configured():
    """The kinds of database that there is a server of."""
    return [kind for kind in KINDS
            if kind == 'sqlite' or os.environ.get(_VARIABLES[kind])]


@contextlib.contextmanager
def new(kind, tmp_path_factory):
    """URL of an empty database."""
    if kind == 'sqlite':
        yield f'sqlite:///{tmp_path_factory.mktemp("database")}/db.sqlite'
        return
    server = sa.make_url(os.environ[_VARIABLES[kind]])
    name = f'attestation_test_{uuid.uuid4().hex[:12]}'
    with _administering(server) as connection:
        connection.execute(sa.text(f'CREATE DATABASE {name}'))
    try:
        yield server.set(database=name).render_as_string(
            hide_password=False)
    finally:
        # Connections that a test left open would keep PostgreSQL's.
        force = ' WITH (FORCE)' if kind == 'postgresql' else ''
        with _administering(server) as connection:
            connection.execute(sa.text(f'DROP DATABASE {name}{force}'))


@contextlib.contextmanager
def _administering(server):
    # No transaction: PostgreSQL makes no database in one.
    engine = sa.create_engine(server, isolation_level='AUTOCOMMIT')
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
