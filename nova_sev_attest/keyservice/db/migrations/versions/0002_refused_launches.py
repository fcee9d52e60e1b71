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

"""Keep launches that were refused before they had a policy or a session

Revision ID: 0002
Revises: 0001
"""

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

revision = '0002'
down_revision = '0001'

SHA256 = sa.LargeBinary(32).with_variant(mysql.BINARY(32), 'mysql', 'mariadb')
BLOB = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), 'mysql', 'mariadb')

COLUMNS = {
    'policy_id': sa.String(36),
    'policy_revision': sa.Integer(),
    'platform_root': sa.String(64),
    'platform_emulated': sa.Boolean(),
    'platform_api_major': sa.Integer(),
    'platform_api_minor': sa.Integer(),
    'platform_cek': SHA256,
    'policy_word': sa.BigInteger(),
    'dh_cert': BLOB,
    'session': BLOB,
}


def upgrade():
    with op.batch_alter_table('launches') as batch:
        for name, kind in COLUMNS.items():
            batch.alter_column(name, existing_type=kind, nullable=True)
