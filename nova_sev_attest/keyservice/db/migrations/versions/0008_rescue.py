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

"""Tell rescues from boots, and let policies give secrets to rescues

Only adds: the release before this one works on the result. It takes every
launch for a boot, and cannot open the keys of a rescue.

Revision ID: 0008
Revises: 0007
"""

from alembic import op
import sqlalchemy as sa

revision = '0008'
down_revision = '0007'

UUID = sa.String(36)


def upgrade():
    op.add_column('launches', sa.Column('purpose', sa.String(16)))
    op.create_table(
        'policy_rescue_secrets',
        sa.Column('policy_id', UUID,
                  sa.ForeignKey('policies.id', ondelete='CASCADE'),
                  primary_key=True),
        sa.Column('guid', UUID, primary_key=True),
        sa.Column('secret_id', UUID, nullable=False),
        mysql_engine='InnoDB', mysql_charset='utf8mb4',
        mysql_collate='utf8mb4_bin')
    op.create_index('policy_rescue_secrets_secret_id_idx',
                    'policy_rescue_secrets', ['secret_id'])
