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

"""The key service's functional tests on the lab's MariaDB."""

import os
import subprocess
import sys

import pymysql
import pytest

from devstack.lab import credentials
from devstack.lab import layout as lab_layout

_DATABASE = 'attestation_tests'


@pytest.fixture
def database_url(layout):
    """URL of an empty database, dropped afterwards."""
    password = credentials.load(layout)['database']
    port = layout.port('mariadb')
    with pymysql.connect(host='127.0.0.1', port=port, user='lab',
                         password=password, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE OR REPLACE DATABASE {_DATABASE}')
            yield (f'mysql+pymysql://lab:{password}@127.0.0.1:{port}/'
                   f'{_DATABASE}?charset=utf8mb4')
            cursor.execute(f'DROP DATABASE {_DATABASE}')


def test_keyservice_on_mariadb(database_url):
    """What runs on SQLite in the functional tier runs on MariaDB, too."""
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-k', 'mysql',
         'tests/functional/keyservice'],
        cwd=lab_layout.CHECKOUT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=600,
        env=os.environ | {'NOVA_SEV_ATTEST_TEST_MYSQL': database_url})
    assert done.returncode == 0, done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert 'passed' in last and 'skipped' not in last, done.stdout
