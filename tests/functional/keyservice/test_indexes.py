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

"""No statement about launches reads the whole table, when it is large."""

import contextlib

import pytest
import sqlalchemy as sa

from benchmarks.keyservice import stored
from nova_sev_attest.keyservice.db import models
from tests.functional.keyservice import databases
from tests.functional.keyservice import harness

ROWS = 20000


@pytest.fixture
def database_url(tmp_path_factory):
    """Of the databases of production; SQLite explains itself otherwise."""
    kinds = [kind for kind in databases.configured() if kind != 'sqlite']
    if not kinds:
        pytest.skip('no server of a database is named to test with')
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(databases.new(kind, tmp_path_factory))
               for kind in kinds]


@contextlib.contextmanager
def explained():
    """{statement: plan as text} of what is executed about launches."""
    plans = {}

    def listen(connection, cursor, statement, parameters, context, many):
        words = statement.split()
        if (words[0] in ('SELECT', 'UPDATE', 'DELETE')
                and 'launches' in words and not many):
            cursor.execute('EXPLAIN ' + statement, parameters)
            plans[statement] = '\n'.join(map(str, cursor.fetchall()))

    sa.event.listen(sa.Engine, 'before_cursor_execute', listen)
    try:
        yield plans
    finally:
        sa.event.remove(sa.Engine, 'before_cursor_execute', listen)


def reads_everything(plan):
    # MariaDB's columns: id, select_type, table, type, ...
    return 'Seq Scan on launches' in plan or "'launches', 'ALL'" in plan


def test_a_full_read_is_noticed(cloud, tmp_path, database_url):
    for url in database_url:
        engine = sa.create_engine(url)
        models.Base.metadata.create_all(engine)
        with explained() as plans, engine.connect() as connection:
            connection.execute(sa.select(models.Launch.host).where(
                models.Launch.host == 'nowhere'))
        assert [reads_everything(plan) for plan in plans.values()] == [True]
        engine.dispose()


def test_launches_are_found_by_indexes(cloud, tmp_path, database_url):
    for number, url in enumerate(database_url):
        folder = tmp_path / str(number)
        folder.mkdir()
        service = harness.KeyService(cloud, folder, url)
        try:
            service.policy(project='project-00')
            boot(service)
            stored.fill(url, ROWS)
            with explained() as plans:
                boot(service)
                keep_keys(service)
                withdraw(service)
                look(service)
        finally:
            service.stop()
        assert len(plans) > 10
        assert {statement: plan for statement, plan in plans.items()
                if reads_everything(plan)} == {}


def boot(service):
    host = harness.Host(service, project='project-00')
    host.launch()
    assert host.send(host.measure()).status_code == 200
    assert host.outcome('running').status_code == 200


def keep_keys(service):
    """A launch whose owner verifies, and one whose owner is too late."""
    owner_driven = service.policy(
        project='project-00', name='keys', verifier='owner', secrets=[],
        is_default=False)
    for host in [harness.Host(service, 'project-00', owner_driven['id'])
                 for _ in range(2)]:
        assert host.create().status_code == 202
        owner = harness.Owner(host, 'project-00')
        session = owner.make_session()
        assert owner.put('session', session).status_code == 200
        host.start(host.create())
        evidence = host.measure()
        assert host.send(evidence).status_code == 202
        assert host.send(host.measure()).status_code == 409
    assert owner.put('secret', owner.pack()).status_code == 200
    assert host.send(evidence).status_code == 200
    assert len(owner.events()) == 6
    assert service.engine.sweep() == 0


def withdraw(service):
    """Launches of a policy that is revoked."""
    policy = service.policy(project='project-00', name='gone', secrets=[],
                            is_default=False)
    host = harness.Host(service, 'project-00', policy['id'])
    host.launch()
    owner = service.member('project-00')
    assert owner.put(
        f'/v1/policies/{policy["id"]}/revocation').status_code == 200
    assert host.show('project-00')['status'] == 'denied'


def look(service):
    """Every way to list launches, as owner and as operator."""
    owner = service.member('project-00')
    for api in (owner, service.operator()):
        first = api.get('/v1/launches?limit=2').json()['launches']
        for query in ('limit=2&marker=' + first[-1]['id'],
                      'limit=2&status=running', 'limit=2&status=denied',
                      'server_id=' + first[0]['server_id']):
            assert api.get('/v1/launches?' + query).status_code == 200
        assert api.get('/v1/launches/' + first[0]['id']).status_code == 200
