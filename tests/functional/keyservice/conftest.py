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

import logging

from oslo_context import fixture as context_fixture
import pytest
import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from tests.functional.keyservice import databases
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness


@pytest.fixture(autouse=True)
def _log_of_its_own():
    """Undo what a command that a test runs does to the process's log.

    oslo.log leaves a handler that writes to the standard error of its time,
    which pytest closes with the test; the next test's output would have the
    complaints about that.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _context_of_its_own():
    """Have no test see the request of another, which a thread remembers."""
    with context_fixture.ClearRequestContext():
        yield


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


@pytest.fixture(scope='session', params=databases.configured())
def _keyservice(request, _cloud, tmp_path_factory):
    with databases.new(request.param, tmp_path_factory) as url:
        service = harness.KeyService(
            _cloud, tmp_path_factory.mktemp('service'), url)
        yield service
        service.stop()


@pytest.fixture
def keyservice(_keyservice, cloud):
    """A key service with an empty database.

    One process serves all tests; a start for each would take most of their
    time. Runs on each kind of database that there is a server of.
    """
    with _keyservice.service.database.writer() as session:
        for table in reversed(models.Base.metadata.sorted_tables):
            session.execute(sa.delete(table))
    yield _keyservice
    _keyservice.look()


@pytest.fixture(params=databases.KINDS)
def database_url(request, tmp_path_factory):
    """An empty database of each kind that the service supports."""
    if request.param not in databases.configured():
        pytest.skip(f'{databases.variable(request.param)} names no server '
                    f'to test with')
    with databases.new(request.param, tmp_path_factory) as url:
        yield url


@pytest.fixture
def either(cloud, tmp_path, database_url):
    """A key service on each kind of database."""
    service = harness.KeyService(cloud, tmp_path, database_url)
    yield service
    service.stop()
