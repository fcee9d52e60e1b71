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

"""Tables of the key service.

All times are UTC without a zone. No column holds a secret in clear: sealed
transport keys are what the sealing module makes, releases are ciphertext for
one guest.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy import orm

Base = orm.declarative_base()

_TABLE = {
    'mysql_engine': 'InnoDB',
    'mysql_charset': 'utf8mb4',
    # Names and command lines are compared exactly.
    'mysql_collate': 'utf8mb4_bin',
}

Uuid = sa.String(36)
ProjectId = sa.String(64)
Sha256 = sa.LargeBinary(32).with_variant(mysql.BINARY(32), 'mysql', 'mariadb')
Nonce = sa.LargeBinary(16).with_variant(mysql.BINARY(16), 'mysql', 'mariadb')
Time = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql', 'mariadb')
Blob = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), 'mysql', 'mariadb')
# 2026-11-24T03:43:00.000000Z
AuditTime = sa.String(27)
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), 'mysql', 'mariadb')


class Firmware(Base):
    """A firmware image of a project; its bytes are in FirmwarePart."""

    __tablename__ = 'firmwares'
    __table_args__ = (
        sa.UniqueConstraint('project_id', 'sha256',
                            name='uniq_firmwares0project_id0sha256'),
        _TABLE)

    id = sa.Column(Uuid, primary_key=True)
    project_id = sa.Column(ProjectId, nullable=False)
    sha256 = sa.Column(sa.String(64), nullable=False)
    size = sa.Column(sa.Integer, nullable=False)
    secret_base = sa.Column(sa.BigInteger, nullable=False)
    secret_size = sa.Column(sa.BigInteger, nullable=False)
    hash_base = sa.Column(sa.BigInteger)
    hash_size = sa.Column(sa.BigInteger)
    created_at = sa.Column(Time, nullable=False)


class FirmwarePart(Base):
    """Up to 1 MiB of a firmware image.

    An image in one piece may not fit the largest packet that a database
    server accepts.
    """

    __tablename__ = 'firmware_parts'
    __table_args__ = (_TABLE,)

    firmware_id = sa.Column(
        Uuid, sa.ForeignKey('firmwares.id', ondelete='CASCADE'),
        primary_key=True)
    number = sa.Column(sa.Integer, primary_key=True, autoincrement=False)
    data = sa.Column(Blob, nullable=False)


class Policy(Base):
    """A policy and the number of its current revision."""

    __tablename__ = 'policies'
    __table_args__ = (
        sa.UniqueConstraint('project_id', 'name',
                            name='uniq_policies0project_id0name'),
        # The project's id where the policy is its default, else NULL.
        sa.UniqueConstraint('default_of', name='uniq_policies0default_of'),
        _TABLE)

    id = sa.Column(Uuid, primary_key=True)
    project_id = sa.Column(ProjectId, nullable=False)
    name = sa.Column(sa.String(255), nullable=False)
    revision = sa.Column(sa.Integer, nullable=False)
    default_of = sa.Column(ProjectId)
    # When the owner revoked it; NULL while launches may begin under it.
    revoked_at = sa.Column(Time)
    # Launches that were released under any of its revisions.
    release_count = sa.Column(sa.Integer, nullable=False, server_default='0')
    created_at = sa.Column(Time, nullable=False)
    updated_at = sa.Column(Time, nullable=False)


class PolicyRevision(Base):
    """What a revision of a policy says, as JSON; never changed."""

    __tablename__ = 'policy_revisions'
    __table_args__ = (_TABLE,)

    policy_id = sa.Column(
        Uuid, sa.ForeignKey('policies.id', ondelete='CASCADE'),
        primary_key=True)
    revision = sa.Column(sa.Integer, primary_key=True, autoincrement=False)
    body = sa.Column(LongText, nullable=False)
    created_at = sa.Column(Time, nullable=False)


class PolicyFirmware(Base):
    """A firmware that the current revision of a policy names."""

    __tablename__ = 'policy_firmwares'
    __table_args__ = (
        sa.Index('policy_firmwares_firmware_id_idx', 'firmware_id'), _TABLE)

    policy_id = sa.Column(
        Uuid, sa.ForeignKey('policies.id', ondelete='CASCADE'),
        primary_key=True)
    firmware_id = sa.Column(
        Uuid, sa.ForeignKey('firmwares.id'), primary_key=True)


class PolicySecret(Base):
    """A secret that the current revision of a policy names."""

    __tablename__ = 'policy_secrets'
    __table_args__ = (
        sa.Index('policy_secrets_secret_id_idx', 'secret_id'), _TABLE)

    policy_id = sa.Column(
        Uuid, sa.ForeignKey('policies.id', ondelete='CASCADE'),
        primary_key=True)
    guid = sa.Column(Uuid, primary_key=True)
    secret_id = sa.Column(Uuid, nullable=False)


class PolicyRescueSecret(Base):
    """A secret that its part for rescues names; like PolicySecret."""

    __tablename__ = 'policy_rescue_secrets'
    __table_args__ = (
        sa.Index('policy_rescue_secrets_secret_id_idx', 'secret_id'), _TABLE)

    policy_id = sa.Column(
        Uuid, sa.ForeignKey('policies.id', ondelete='CASCADE'),
        primary_key=True)
    guid = sa.Column(Uuid, primary_key=True)
    secret_id = sa.Column(Uuid, nullable=False)


class Launch(Base):
    """One launch of one server. Outlives its policy, as a record."""

    __tablename__ = 'launches'
    __table_args__ = (
        # The server's id while the launch is open, else NULL: one open
        # launch for each server.
        sa.UniqueConstraint('open_for', name='uniq_launches0open_for'),
        sa.Index('launches_project_id_created_at_idx',
                 'project_id', 'created_at'),
        sa.Index('launches_server_id_idx', 'server_id'),
        sa.Index('launches_status_expires_at_idx', 'status', 'expires_at'),
        sa.Index('launches_created_at_idx', 'created_at'),
        sa.Index('launches_project_id_status_created_at_idx',
                 'project_id', 'status', 'created_at'),
        sa.Index('launches_policy_id_status_idx', 'policy_id', 'status'),
        sa.Index('launches_evidence_fingerprint_idx',
                 'evidence_fingerprint'),
        sa.Index('launches_session_nonce_idx', 'session_nonce', unique=True),
        _TABLE)

    id = sa.Column(Uuid, primary_key=True)
    server_id = sa.Column(Uuid, nullable=False)
    project_id = sa.Column(ProjectId, nullable=False)
    host = sa.Column(sa.String(255), nullable=False)
    technology = sa.Column(sa.String(32), nullable=False)
    # NULL, which is a boot, in launches from before there were others.
    purpose = sa.Column(sa.String(16))
    # NULL in a launch that was refused before one was found.
    policy_id = sa.Column(Uuid)
    policy_revision = sa.Column(sa.Integer)
    # Of that revision: who verifies, and whether the owner must approve;
    # NULL in launches from before there was a choice.
    verifier = sa.Column(sa.String(16))
    approval = sa.Column(sa.String(16))
    status = sa.Column(sa.String(16), nullable=False)
    open_for = sa.Column(Uuid)
    created_at = sa.Column(Time, nullable=False)
    updated_at = sa.Column(Time, nullable=False)
    expires_at = sa.Column(Time, nullable=False)

    token_hash = sa.Column(Sha256, nullable=False)
    request_fingerprint = sa.Column(Sha256, nullable=False)

    # NULL in a launch that was refused.
    platform_root = sa.Column(sa.String(64))
    platform_emulated = sa.Column(sa.Boolean)
    platform_api_major = sa.Column(sa.Integer)
    platform_api_minor = sa.Column(sa.Integer)
    platform_cek = sa.Column(Sha256)
    platform_chip = sa.Column(sa.String(128))
    # As the host showed them, and the CEK that AMD signed where that is
    # another one.
    platform_pdh = sa.Column(Blob)
    platform_cert_chain = sa.Column(Blob)
    platform_signed_cek = sa.Column(Blob)

    policy_word = sa.Column(sa.BigInteger)
    dh_cert = sa.Column(Blob)
    session = sa.Column(Blob)
    # The session's first 16 bytes, which no other launch may have.
    session_nonce = sa.Column(Nonce)
    # NULL once the keys are destroyed.
    sealed_keys = sa.Column(Blob)
    sealing_key_id = sa.Column(sa.String(32))

    evidence_fingerprint = sa.Column(Sha256)
    # As JSON, as the host sent them.
    evidence = sa.Column(LongText)
    claims = sa.Column(LongText)
    # Of the owner's own packet.
    release_fingerprint = sa.Column(Sha256)
    release_header = sa.Column(Blob)
    release_data = sa.Column(Blob)
    release_gpa = sa.Column(sa.BigInteger)

    verdict = sa.Column(LongText)
    # The owner who released, approved or denied, by user id.
    decided_by = sa.Column(sa.String(64))
    decided_at = sa.Column(Time)
    reason_code = sa.Column(sa.String(64))
    reason_detail = sa.Column(sa.Text)
    # What only the owner may see of the reason, as JSON.
    reason_owner = sa.Column(LongText)


class AuditRecord(Base):
    """One thing that was decided; never changed. See audit/chain.py.

    All columns go into the hash as they are, so that times are text here.
    """

    __tablename__ = 'audit_records'
    __table_args__ = (
        sa.Index('audit_records_subject_idx', 'subject'), _TABLE)

    project_id = sa.Column(ProjectId, primary_key=True)
    sequence = sa.Column(sa.BigInteger, primary_key=True,
                         autoincrement=False)
    at = sa.Column(AuditTime, nullable=False)
    event = sa.Column(sa.String(64), nullable=False)
    subject = sa.Column(sa.String(255), nullable=False)
    actor = sa.Column(sa.String(255))
    request_id = sa.Column(sa.String(255))
    details = sa.Column(LongText, nullable=False)
    hash = sa.Column(Sha256, nullable=False)


class _AuditPoint:
    """A place in a project's chain, signed where there is a key."""

    __table_args__ = (_TABLE,)

    project_id = sa.Column(ProjectId, primary_key=True)
    sequence = sa.Column(sa.BigInteger, nullable=False)
    at = sa.Column(AuditTime, nullable=False)
    hash = sa.Column(Sha256, nullable=False)
    key_id = sa.Column(sa.String(32))
    signature = sa.Column(sa.String(86))


class AuditHead(_AuditPoint, Base):
    """The last record of a project's chain."""

    __tablename__ = 'audit_heads'


class AuditCheckpoint(_AuditPoint, Base):
    """The last record that was purged of a project's chain."""

    __tablename__ = 'audit_checkpoints'


class Platform(Base):
    """What the launches of one project saw of a platform, or those of all.

    A host's certificates that never verified say nothing of what it is;
    there is one row of those for each host.
    """

    __tablename__ = 'platforms'
    __table_args__ = (
        sa.Index('platforms_project_id_last_seen_at_idx',
                 'project_id', 'last_seen_at'),
        sa.Index('platforms_platform_id_idx', 'platform_id'), _TABLE)

    # Made of the next two, so that the database keeps them apart.
    id = sa.Column(Uuid, primary_key=True)
    # Made of the host and the CEK's fingerprint.
    platform_id = sa.Column(Uuid, nullable=False)
    # NULL: the launches of all projects.
    project_id = sa.Column(ProjectId)
    host = sa.Column(sa.String(255), nullable=False)
    # NULL while no certificates of the host verified, and so are the next.
    root = sa.Column(sa.String(64))
    emulated = sa.Column(sa.Boolean)
    api_major = sa.Column(sa.Integer)
    api_minor = sa.Column(sa.Integer)
    build = sa.Column(sa.Integer)
    cek = sa.Column(Sha256)
    chip = sa.Column(sa.String(128))
    first_seen_at = sa.Column(Time, nullable=False)
    last_seen_at = sa.Column(Time, nullable=False)
    last_verified_at = sa.Column(Time)
    last_attested_at = sa.Column(Time)
    last_verdict = sa.Column(sa.String(16), nullable=False)
    last_reason_code = sa.Column(sa.String(64))
    last_reason_detail = sa.Column(sa.Text)
