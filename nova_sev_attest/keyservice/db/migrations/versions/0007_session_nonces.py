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

"""Let no two launches have sessions of one nonce

Only adds: the release before this one works on the result. Its launches have
NULL there.

Revision ID: 0007
Revises: 0006
"""

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

revision = '0007'
down_revision = '0006'

NONCE = sa.LargeBinary(16).with_variant(mysql.BINARY(16), 'mysql', 'mariadb')


def upgrade():
    op.add_column('launches', sa.Column('session_nonce', NONCE))
    op.create_index('launches_session_nonce_idx', 'launches',
                    ['session_nonce'], unique=True)
