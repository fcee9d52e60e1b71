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

"""Remember the platforms that launches were begun on

Only adds: the release before this one works on the result.

Revision ID: 0006
Revises: 0005
"""

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

revision = '0006'
down_revision = '0005'

SHA256 = sa.LargeBinary(32).with_variant(mysql.BINARY(32), 'mysql', 'mariadb')
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql', 'mariadb')


def upgrade():
    op.create_table(
        'platforms',
        sa.Column('id', sa.String(36), primary_key=True),
        sa.Column('platform_id', sa.String(36), nullable=False),
        sa.Column('project_id', sa.String(64)),
        sa.Column('host', sa.String(255), nullable=False),
        sa.Column('root', sa.String(64)),
        sa.Column('emulated', sa.Boolean()),
        sa.Column('api_major', sa.Integer()),
        sa.Column('api_minor', sa.Integer()),
        sa.Column('build', sa.Integer()),
        sa.Column('cek', SHA256),
        sa.Column('chip', sa.String(128)),
        sa.Column('first_seen_at', TIME, nullable=False),
        sa.Column('last_seen_at', TIME, nullable=False),
        sa.Column('last_verified_at', TIME),
        sa.Column('last_attested_at', TIME),
        sa.Column('last_verdict', sa.String(16), nullable=False),
        sa.Column('last_reason_code', sa.String(64)),
        sa.Column('last_reason_detail', sa.Text()),
        sa.Index('platforms_project_id_last_seen_at_idx',
                 'project_id', 'last_seen_at'),
        sa.Index('platforms_platform_id_idx', 'platform_id'),
        mysql_engine='InnoDB', mysql_charset='utf8mb4',
        mysql_collate='utf8mb4_bin')
