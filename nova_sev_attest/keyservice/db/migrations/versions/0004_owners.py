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

"""Let owners verify or approve launches, and limit and revoke policies

Only adds: the release before this one works on the result.

Revision ID: 0004
Revises: 0003
"""

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

revision = '0004'
down_revision = '0003'

SHA256 = sa.LargeBinary(32).with_variant(mysql.BINARY(32), 'mysql', 'mariadb')
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql', 'mariadb')
BLOB = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), 'mysql', 'mariadb')
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), 'mysql', 'mariadb')

LAUNCHES = {
    'verifier': sa.String(16),
    'approval': sa.String(16),
    'platform_pdh': BLOB,
    'platform_cert_chain': BLOB,
    'platform_signed_cek': BLOB,
    'evidence': LONG_TEXT,
    'claims': LONG_TEXT,
    'release_fingerprint': SHA256,
    'decided_by': sa.String(64),
    'decided_at': TIME,
}
INDEXES = {
    'launches_created_at_idx': ['created_at'],
    'launches_project_id_status_created_at_idx': [
        'project_id', 'status', 'created_at'],
    'launches_policy_id_status_idx': ['policy_id', 'status'],
    'launches_evidence_fingerprint_idx': ['evidence_fingerprint'],
}


def upgrade():
    op.add_column('policies', sa.Column('revoked_at', TIME))
    op.add_column('policies', sa.Column(
        'release_count', sa.Integer(), nullable=False, server_default='0'))
    for name, kind in LAUNCHES.items():
        op.add_column('launches', sa.Column(name, kind))
    for name, columns in INDEXES.items():
        op.create_index(name, 'launches', columns)
