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

"""The schema that migrations make is the one that the code works with."""

import datetime

from alembic import autogenerate
from alembic import migration as alembic_migration
import sqlalchemy as sa

from nova_sev_attest.cmd import manage
from nova_sev_attest.keyservice.db import migration
from nova_sev_attest.keyservice.db import models


def test_migrations_make_the_models(database_url):
    engine = sa.create_engine(database_url)
    assert migration.current(engine) is None
    migration.upgrade(engine)
    assert migration.current(engine) == migration.head()
    migration.upgrade(engine)
    with engine.connect() as connection:
        context = alembic_migration.MigrationContext.configure(
            connection, opts={'compare_type': True})
        assert autogenerate.compare_metadata(
            context, models.Base.metadata) == []
    engine.dispose()


def test_manage_command(database_url, tmp_path, capsys):
    config = tmp_path / 'nova-sev-attest.conf'
    config.write_text(f'[database]\nconnection = {database_url}\n')

    def run(*command):
        status = manage.main(['--config-file', str(config), *command])
        return status, capsys.readouterr()

    status, output = run('db', 'check')
    assert status == 1 and 'db sync' in output.out
    status, output = run('launch', 'expire')
    assert status == 1 and 'database' in output.err
    assert run('db', 'sync')[0] == 0
    assert run('db', 'sync')[0] == 0
    assert run('db', 'check')[0] == 0
    status, output = run('launch', 'expire')
    assert status == 0 and output.out == '0 launches expired.\n'
    status, output = run('launch', 'purge', '--days', '30')
    assert status == 0 and 'of 0 launches' in output.out


def test_upgrade_keeps_launches(database_url):
    """From the first schema, with a row, to the newest."""
    engine = sa.create_engine(database_url)
    migration.upgrade(engine, '0001')
    table = sa.Table('launches', sa.MetaData(), autoload_with=engine)
    values = {column.name: b'x' * 32
              if column.type.python_type is bytes else 'x'
              for column in table.columns if not column.nullable}
    values |= {name: datetime.datetime(2030, 1, 1) for name in (
        'created_at', 'updated_at', 'expires_at')}
    values |= dict.fromkeys((
        'policy_revision', 'platform_api_major', 'platform_api_minor',
        'policy_word'), 1) | {'platform_emulated': True}
    with engine.begin() as connection:
        connection.execute(table.insert().values(values))
    migration.upgrade(engine)
    with engine.connect() as connection:
        found = connection.execute(sa.select(table)).mappings().one()
    assert {name: found[name] for name in values} == values
    engine.dispose()
