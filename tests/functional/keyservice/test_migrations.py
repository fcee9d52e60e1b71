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
import pathlib
import shutil

from alembic import autogenerate
from alembic import migration as alembic_migration
from alembic import script
import pytest
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


def _value(column, number):
    """Something that a column takes."""
    kind = column.type.python_type
    if kind is datetime.datetime:
        return datetime.datetime(2030, 1, 1)
    if kind is bytes:
        return bytes([number]) * (getattr(column.type, 'length', None) or 32)
    return {int: number, bool: True}.get(kind, str(number))


def _row(table, number, **chosen):
    return {column.name: _value(column, number)
            for column in table.columns} | chosen


def _reflected(engine, revision):
    """The tables that the code of a revision knows."""
    migration.upgrade(engine, revision)
    tables = sa.MetaData()
    tables.reflect(engine)
    tables.remove(tables.tables['alembic_version'])
    return tables


@pytest.mark.parametrize('revision', ['0001', '0003', '0007'])
def test_the_release_before_works_on(database_url, revision):
    """Its statements, with the columns that it knows, on the new schema."""
    engine = sa.create_engine(database_url)
    tables = _reflected(engine, revision)
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            connection.execute(table.insert().values(_row(table, 1)))
    migration.expand(engine)
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            if table.name == 'policies':
                # One default for each project.
                values = _row(table, 2, default_of=None)
            else:
                values = _row(table, 2)
            connection.execute(table.insert().values(values))
            found = connection.execute(sa.select(table)).mappings().all()
            assert {tuple(sorted(row.items(), key=str)) for row in found} == {
                tuple(sorted(row.items(), key=str))
                for row in (_row(table, 1), values)}
        # The statement that closes a launch, and the one that purges it.
        launches = tables.tables['launches']
        mine = launches.c.id == '2'
        assert connection.execute(launches.update().where(
            mine, launches.c.status == '2').values(
                status='released', open_for=None, sealed_keys=None,
                verdict='{}')).rowcount == 1
        assert connection.scalar(
            sa.select(launches.c.status).where(mine)) == 'released'
        assert connection.execute(
            launches.delete().where(mine)).rowcount == 1
        for table in reversed(tables.sorted_tables):
            connection.execute(table.delete())
    engine.dispose()


_CONTRACT = """
from alembic import op
import sqlalchemy as sa

revision = {revision!r}
down_revision = {down!r}
contract = {contract}


def upgrade():
    op.create_table('table_{revision}', sa.Column('id', sa.Integer))
"""


@pytest.fixture
def longer(monkeypatch, tmp_path):
    """Two more releases: 9001 expands and 9002 contracts, 9003 expands."""
    scripts = tmp_path / 'migrations'
    shutil.copytree(migration._scripts(), scripts)
    down = migration.head()
    for revision, contract in (('9001', False), ('9002', True),
                               ('9003', False)):
        (scripts / 'versions' / f'{revision}.py').write_text(
            _CONTRACT.format(revision=revision, down=down,
                             contract=contract))
        down = revision
    monkeypatch.setattr(migration, '_scripts', lambda: scripts)


@pytest.fixture
def manage_db(database_url, tmp_path, capsys):
    """Run a command of the group db; returns its status and output."""
    config = tmp_path / 'nova-sev-attest.conf'
    config.write_text(f'[database]\nconnection = {database_url}\n')

    def run(*command):
        status = manage.main(['--config-file', str(config), 'db', *command])
        return status, ''.join(capsys.readouterr())
    return run


def test_expand_and_contract(longer, manage_db):
    status, said = manage_db('sync', '--contract')
    assert status == 1 and '--expand' in said
    status, said = manage_db('check')
    assert status == 1 and '--expand' in said
    for _ in range(2):
        status, said = manage_db('sync', '--expand')
        assert status == 0 and 'revision 9001' in said
        assert 'db sync --contract' in said
    status, said = manage_db('check')
    assert status == 0 and '--contract" is still to be run' in said
    for _ in range(2):
        status, said = manage_db('sync', '--contract')
        assert status == 0
        assert 'The database is at revision 9003.\n' in said
        assert '--contract' not in said
    status, said = manage_db('check')
    assert status == 0 and 'revision 9003, as this' in said


def test_sync_does_both(longer, manage_db):
    status, said = manage_db('sync')
    assert status == 0
    assert 'The database is at revision 9003.\n' in said


def test_phases_exclude_each_other(manage_db, capsys):
    with pytest.raises(SystemExit):
        manage_db('sync', '--expand', '--contract')
    assert 'not allowed with' in capsys.readouterr().err


def test_expanding_takes_nothing_away():
    """The statements of every revision that is not marked as contracting."""
    scripts = script.ScriptDirectory(str(migration._scripts()))
    for found in scripts.walk_revisions():
        if getattr(found.module, 'contract', False):
            continue
        text = pathlib.Path(found.path).read_text()
        for word in ('drop_', 'nullable=False)', 'rename_', 'op.execute'):
            lines = [line for line in text.splitlines() if word in line]
            # A new table's columns may be anything; a column that is added
            # may only be required where the database fills it in.
            assert not [line for line in lines if word != 'nullable=False)'
                        or ('add_column' in line
                            and 'server_default' not in line)], found.path
