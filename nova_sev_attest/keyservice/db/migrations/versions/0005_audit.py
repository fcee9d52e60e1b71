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

"""Audit records, hash-chained per project, their heads and checkpoints

Only adds: the release before this one works on the result.

Revision ID: 0005
Revises: 0004
"""

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

revision = '0005'
down_revision = '0004'

SHA256 = sa.LargeBinary(32).with_variant(mysql.BINARY(32), 'mysql', 'mariadb')
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), 'mysql', 'mariadb')
TABLE = {
    'mysql_engine': 'InnoDB',
    'mysql_charset': 'utf8mb4',
    'mysql_collate': 'utf8mb4_bin',
}


def upgrade():
    op.create_table(
        'audit_records',
        sa.Column('project_id', sa.String(64), primary_key=True),
        sa.Column('sequence', sa.BigInteger(), primary_key=True,
                  autoincrement=False),
        sa.Column('at', sa.String(27), nullable=False),
        sa.Column('event', sa.String(64), nullable=False),
        sa.Column('subject', sa.String(255), nullable=False),
        sa.Column('actor', sa.String(255)),
        sa.Column('request_id', sa.String(255)),
        sa.Column('details', LONG_TEXT, nullable=False),
        sa.Column('hash', SHA256, nullable=False),
        sa.Index('audit_records_subject_idx', 'subject'),
        **TABLE)
    for name in ('audit_heads', 'audit_checkpoints'):
        op.create_table(
            name,
            sa.Column('project_id', sa.String(64), primary_key=True),
            sa.Column('sequence', sa.BigInteger(), nullable=False),
            sa.Column('at', sa.String(27), nullable=False),
            sa.Column('hash', SHA256, nullable=False),
            sa.Column('key_id', sa.String(32)),
            sa.Column('signature', sa.String(86)),
            **TABLE)
