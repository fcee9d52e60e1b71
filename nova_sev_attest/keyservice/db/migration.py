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

"""Schema migrations by alembic."""

import importlib.resources

from alembic import command
from alembic import config as alembic_config
from alembic import migration
from alembic import script


def _config(connection=None):
    config = alembic_config.Config()
    config.set_main_option(
        'script_location',
        str(importlib.resources.files(
            'nova_sev_attest.keyservice.db').joinpath('migrations')))
    config.attributes['connection'] = connection
    return config


def head():
    """The revision that this release works with."""
    return script.ScriptDirectory.from_config(_config()).get_current_head()


def current(engine):
    """The revision of a database, None when it is empty."""
    with engine.connect() as connection:
        context = migration.MigrationContext.configure(connection)
        return context.get_current_revision()


def upgrade(engine, revision='head'):
    """Bring a database to a revision; does nothing when it is there."""
    with engine.begin() as connection:
        command.upgrade(_config(connection), revision)
