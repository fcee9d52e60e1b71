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

"""Schema migrations by alembic, in two phases.

A revision expands the schema unless its file says ``contract = True``.
Expanding only adds what the code of the release before does not know and can
leave out, so that both releases work on the result; contracting takes away or
tightens what only the release before needed. The revisions of one release
expand first and contract last.
"""

import importlib.resources

from alembic import command
from alembic import config as alembic_config
from alembic import migration
from alembic import script


class ExpandFirst(Exception):
    """The schema was not expanded yet for the release that contracts it."""


def _config(connection=None):
    config = alembic_config.Config()
    config.set_main_option('script_location', str(_scripts()))
    config.attributes['connection'] = connection
    return config


def _scripts():
    return importlib.resources.files(
        'nova_sev_attest.keyservice.db').joinpath('migrations')


def head():
    """The newest revision of this release."""
    return script.ScriptDirectory.from_config(_config()).get_current_head()


def current(engine):
    """The revision of a database, None when it is empty."""
    with engine.connect() as connection:
        context = migration.MigrationContext.configure(connection)
        return context.get_current_revision()


def pending(engine):
    """What a database lacks.

    :returns: (revisions that expand, revisions that contract), each a list,
        oldest first. What comes after a revision that contracts counts to
        those: it needs them.
    """
    scripts = script.ScriptDirectory.from_config(_config())
    lacking = list(scripts.iterate_revisions('head', current(engine)))
    lacking.reverse()
    for number, found in enumerate(lacking):
        if getattr(found.module, 'contract', False):
            break
    else:
        number = len(lacking)
    names = [found.revision for found in lacking]
    return names[:number], names[number:]


def upgrade(engine, revision='head'):
    """Bring a database to a revision; does nothing when it is there."""
    with engine.begin() as connection:
        command.upgrade(_config(connection), revision)


def expand(engine):
    """Add what this release needs; the one before goes on working."""
    added, _ = pending(engine)
    if added:
        upgrade(engine, added[-1])


def contract(engine):
    """Take away what only the release before needed.

    :raises ExpandFirst: the database is not that far
    """
    lacking, _ = pending(engine)
    if lacking:
        raise ExpandFirst(
            f'revision {lacking[0]} and perhaps others have to be added '
            f'first, by "nova-sev-attest-manage db sync --expand"; then '
            f'every process of the service has to be of this release')
    upgrade(engine)
