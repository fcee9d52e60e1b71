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

"""The first schema

Revision ID: 0001
Revises:
"""

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

revision = '0001'
down_revision = None

# As in the models when this migration was written; never follows them.
UUID = sa.String(36)
STRING_64 = sa.String(64)
SHA256 = sa.LargeBinary(32).with_variant(mysql.BINARY(32), 'mysql', 'mariadb')
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql', 'mariadb')
BLOB = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), 'mysql', 'mariadb')
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), 'mysql', 'mariadb')
TABLE = {'mysql_engine': 'InnoDB', 'mysql_charset': 'utf8mb4',
         'mysql_collate': 'utf8mb4_bin'}


def upgrade():
    op.create_table(
        'firmwares',
        sa.Column('id', UUID, nullable=False),
        sa.Column('project_id', STRING_64, nullable=False),
        sa.Column('sha256', STRING_64, nullable=False),
        sa.Column('size', sa.Integer(), nullable=False),
        sa.Column('secret_base', sa.BigInteger(), nullable=False),
        sa.Column('secret_size', sa.BigInteger(), nullable=False),
        sa.Column('hash_base', sa.BigInteger()),
        sa.Column('hash_size', sa.BigInteger()),
        sa.Column('created_at', TIME, nullable=False),
        sa.PrimaryKeyConstraint('id'),
        sa.UniqueConstraint('project_id', 'sha256',
                            name='uniq_firmwares0project_id0sha256'),
        **TABLE)
    op.create_table(
        'launches',
        sa.Column('id', UUID, nullable=False),
        sa.Column('server_id', UUID, nullable=False),
        sa.Column('project_id', STRING_64, nullable=False),
        sa.Column('host', sa.String(255), nullable=False),
        sa.Column('technology', sa.String(32), nullable=False),
        sa.Column('policy_id', UUID, nullable=False),
        sa.Column('policy_revision', sa.Integer(), nullable=False),
        sa.Column('status', sa.String(16), nullable=False),
        sa.Column('open_for', UUID),
        sa.Column('created_at', TIME, nullable=False),
        sa.Column('updated_at', TIME, nullable=False),
        sa.Column('expires_at', TIME, nullable=False),
        sa.Column('token_hash', SHA256, nullable=False),
        sa.Column('request_fingerprint', SHA256, nullable=False),
        sa.Column('platform_root', STRING_64, nullable=False),
        sa.Column('platform_emulated', sa.Boolean(), nullable=False),
        sa.Column('platform_api_major', sa.Integer(), nullable=False),
        sa.Column('platform_api_minor', sa.Integer(), nullable=False),
        sa.Column('platform_cek', SHA256, nullable=False),
        sa.Column('policy_word', sa.BigInteger(), nullable=False),
        sa.Column('dh_cert', BLOB, nullable=False),
        sa.Column('session', BLOB, nullable=False),
        sa.Column('sealed_keys', BLOB),
        sa.Column('sealing_key_id', sa.String(32)),
        sa.Column('evidence_fingerprint', SHA256),
        sa.Column('release_header', BLOB),
        sa.Column('release_data', BLOB),
        sa.Column('release_gpa', sa.BigInteger()),
        sa.Column('verdict', LONG_TEXT),
        sa.Column('reason_code', STRING_64),
        sa.Column('reason_detail', sa.Text()),
        sa.Column('reason_owner', LONG_TEXT),
        sa.PrimaryKeyConstraint('id'),
        sa.UniqueConstraint('open_for', name='uniq_launches0open_for'),
        **TABLE)
    op.create_index('launches_project_id_created_at_idx', 'launches',
                    ['project_id', 'created_at'])
    op.create_index('launches_server_id_idx', 'launches', ['server_id'])
    op.create_index('launches_status_expires_at_idx', 'launches',
                    ['status', 'expires_at'])
    op.create_table(
        'policies',
        sa.Column('id', UUID, nullable=False),
        sa.Column('project_id', STRING_64, nullable=False),
        sa.Column('name', sa.String(255), nullable=False),
        sa.Column('revision', sa.Integer(), nullable=False),
        sa.Column('default_of', STRING_64),
        sa.Column('created_at', TIME, nullable=False),
        sa.Column('updated_at', TIME, nullable=False),
        sa.PrimaryKeyConstraint('id'),
        sa.UniqueConstraint('default_of', name='uniq_policies0default_of'),
        sa.UniqueConstraint('project_id', 'name',
                            name='uniq_policies0project_id0name'),
        **TABLE)
    op.create_table(
        'firmware_parts',
        sa.Column('firmware_id', UUID, nullable=False),
        sa.Column('number', sa.Integer(), autoincrement=False, nullable=False),
        sa.Column('data', BLOB, nullable=False),
        sa.ForeignKeyConstraint(['firmware_id'], ['firmwares.id'],
                                ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('firmware_id', 'number'),
        **TABLE)
    op.create_table(
        'policy_firmwares',
        sa.Column('policy_id', UUID, nullable=False),
        sa.Column('firmware_id', UUID, nullable=False),
        sa.ForeignKeyConstraint(['firmware_id'], ['firmwares.id']),
        sa.ForeignKeyConstraint(['policy_id'], ['policies.id'],
                                ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('policy_id', 'firmware_id'),
        **TABLE)
    op.create_index('policy_firmwares_firmware_id_idx', 'policy_firmwares',
                    ['firmware_id'])
    op.create_table(
        'policy_revisions',
        sa.Column('policy_id', UUID, nullable=False),
        sa.Column('revision', sa.Integer(), autoincrement=False,
                  nullable=False),
        sa.Column('body', LONG_TEXT, nullable=False),
        sa.Column('created_at', TIME, nullable=False),
        sa.ForeignKeyConstraint(['policy_id'], ['policies.id'],
                                ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('policy_id', 'revision'),
        **TABLE)
    op.create_table(
        'policy_secrets',
        sa.Column('policy_id', UUID, nullable=False),
        sa.Column('guid', UUID, nullable=False),
        sa.Column('secret_id', UUID, nullable=False),
        sa.ForeignKeyConstraint(['policy_id'], ['policies.id'],
                                ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('policy_id', 'guid'),
        **TABLE)
    op.create_index('policy_secrets_secret_id_idx', 'policy_secrets',
                    ['secret_id'])
