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

"""The database's clock, the only one that deadlines are held to.

The clocks of the service's nodes may differ; that of the database is one for
all of them.
"""

import sqlalchemy as sa
from sqlalchemy.ext import compiler
from sqlalchemy.sql import expression

from nova_sev_attest.keyservice.db import models


class now(expression.FunctionElement):
    """The time in UTC, for statements; as exact as the columns are."""

    type = models.Time
    inherit_cache = True


@compiler.compiles(now, 'sqlite')
def _sqlite(element, compiler, **options):
    # Text in the form of SQLAlchemy's columns, which has microseconds.
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


@compiler.compiles(now, 'mysql')
@compiler.compiles(now, 'mariadb')
def _mysql(element, compiler, **options):
    return 'UTC_TIMESTAMP(6)'


@compiler.compiles(now, 'postgresql')
def _postgresql(element, compiler, **options):
    # Not the beginning of the transaction, which may have waited since.
    return "(clock_timestamp() AT TIME ZONE 'utc')"


def read(session):
    """The time, a naive datetime in UTC."""
    return session.scalar(sa.select(now()))
