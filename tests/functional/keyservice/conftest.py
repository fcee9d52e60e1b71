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

import pytest
import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness


@pytest.fixture(scope='session')
def _cloud():
    cloud = fakes.Cloud()
    yield cloud
    cloud.stop()


@pytest.fixture
def cloud(_cloud):
    """The fakes, as if just started."""
    _cloud.reset()
    return _cloud


@pytest.fixture(scope='session')
def _keyservice(_cloud, tmp_path_factory):
    service = harness.KeyService(_cloud, tmp_path_factory.mktemp('service'))
    yield service
    service.stop()


@pytest.fixture
def keyservice(_keyservice, cloud):
    """A key service with an empty database.

    One process serves all tests; a start for each would take most of their
    time.
    """
    with _keyservice.service.database.writer() as session:
        for table in reversed(models.Base.metadata.sorted_tables):
            session.execute(sa.delete(table))
    return _keyservice


def _empty(url):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        models.Base.metadata.drop_all(connection)
        connection.execute(sa.text('DROP TABLE IF EXISTS alembic_version'))
    engine.dispose()


@pytest.fixture(params=('sqlite', 'mysql'))
def database_url(request, tmp_path):
    """An empty database of each kind that the service supports."""
    if request.param == 'sqlite':
        yield f'sqlite:///{tmp_path}/keyservice.sqlite'
        return
    url = harness.mysql_url()
    if url is None:
        pytest.skip('NOVA_SEV_ATTEST_TEST_MYSQL names no MariaDB to test '
                    'with')
    _empty(url)
    yield url
    _empty(url)


@pytest.fixture
def either(cloud, tmp_path, database_url):
    """A key service on each kind of database."""
    service = harness.KeyService(cloud, tmp_path, database_url)
    yield service
    service.stop()
