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

"""Access to the database."""

import contextlib

from oslo_db import api as oslo_db_api
from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import enginefacade
import sqlalchemy as sa


@enginefacade.transaction_context_provider
class _Context:
    """enginefacade keeps a transaction's session on an object of ours."""


def _is_busy(exc):
    # SQLite gives up at once where waiting would deadlock; oslo.db calls
    # that an ordinary error.
    return (isinstance(exc, db_exc.DBError)
            and 'database is locked' in str(exc.inner_exception))


#: Runs a function anew when the database asks for it (deadlock, a busy
#: SQLite). For functions that do nothing but one transaction.
retried = oslo_db_api.wrap_db_retry(
    max_retries=20, retry_interval=0.05, max_retry_interval=1,
    retry_on_deadlock=True, exception_checker=_is_busy, jitter=True)


# Changes nothing.
_TAKE_TURN = sa.text('UPDATE audit_heads SET sequence = 0 WHERE 1 = 0')


class Database:
    """The service's database; connects when first used.

    :param conf: ConfigOpts with the group [database]
    """

    def __init__(self, conf):
        self._manager = enginefacade.transaction_context()
        # thread_checkin is for eventlet: a pause after each transaction.
        self._manager.configure(sqlite_fk=True, thread_checkin=False,
                                **dict(conf.database))

    def reader(self):
        """Context manager that gives the session of a reading transaction."""
        return self._manager.reader.using(_Context())

    @contextlib.contextmanager
    def writer(self):
        """Context manager that gives the session of one transaction."""
        with self._manager.writer.using(_Context()) as session:
            if session.get_bind().dialect.name == 'sqlite':
                # As BEGIN IMMEDIATE: to wait for other writers now. Who has
                # read already cannot wait, and would have to begin anew.
                session.execute(_TAKE_TURN)
            yield session

    @property
    def engine(self):
        return self._manager.writer.get_engine()

    def dispose(self):
        """Close the pooled connections."""
        self._manager.dispose_pool()
