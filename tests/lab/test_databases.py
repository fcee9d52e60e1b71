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

"""The key service's functional tests on the databases of production.

The lab's MariaDB, and a PostgreSQL of their own; what is run here is where
databases differ: transactions at the same time, migrations, whole launches.
"""

import os
import subprocess
import sys

import pytest

from devstack.lab import credentials
from devstack.lab import database_servers
from devstack.lab import layout as lab_layout

_FOLDER = 'tests/functional/keyservice'
_FILES = ('test_concurrency.py', 'test_migrations.py', 'test_launches.py')


@pytest.fixture
def mariadb(layout):
    """URL of the lab's MariaDB."""
    password = credentials.load(layout)['database']
    return (f'mysql+pymysql://lab:{password}'
            f'@127.0.0.1:{layout.port("mariadb")}/mysql?charset=utf8mb4')


@pytest.fixture
def postgresql(layout):
    """URL of a PostgreSQL."""
    with database_servers.serve('postgresql') as server:
        yield server.url


def run(kind, variable, url):
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-n', '2', '-k', kind,
         *(f'{_FOLDER}/{name}' for name in _FILES)],
        cwd=lab_layout.CHECKOUT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=900,
        env=os.environ | {variable: url})
    assert done.returncode == 0, done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert 'passed' in last and 'skipped' not in last, done.stdout


def test_mariadb(mariadb):
    run('mysql', 'NOVA_SEV_ATTEST_TEST_MYSQL', mariadb)


def test_postgresql(postgresql):
    run('postgresql', 'NOVA_SEV_ATTEST_TEST_POSTGRESQL', postgresql)
