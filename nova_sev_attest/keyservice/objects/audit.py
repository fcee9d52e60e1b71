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

"""Rows of the audit. What they hash and sign is audit/chain.py's.

A project's head is locked from append() to the end of the transaction, so
that its sequence has no gaps. Call it last: what else the transaction locks
is locked by then, and several projects are locked in the order of their ids.
"""

import functools

from oslo_utils import timeutils
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite

from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.keyservice.db import models

_HEAD = models.AuditHead
_CHECKPOINT = models.AuditCheckpoint
_RECORD = models.AuditRecord
_POINT_COLUMNS = ('project_id', 'sequence', 'at', 'hash', 'key_id',
                  'signature')
_RECORD_COLUMNS = ('project_id', 'sequence', 'at', 'event', 'subject',
                   'actor', 'request_id', 'details', 'hash')


def _columns(model, names):
    # Hashes as the driver gives them: one that is no bytes any more is for
    # the verifier to report, not for SQLAlchemy to stumble over.
    return [sa.type_coerce(model.hash, sa.types.NullType()).label('hash')
            if name == 'hash' else getattr(model, name) for name in names]


def _made(cls, row):
    columns = dict(row._mapping)
    if isinstance(columns['hash'], memoryview):
        columns['hash'] = bytes(columns['hash'])
    return cls(**columns)


@functools.cache
def _points(model, lock):
    query = sa.select(*_columns(model, _POINT_COLUMNS)).where(
        model.project_id == sa.bindparam('wanted'))
    return query.with_for_update() if lock else query


def _find_point(session, model, project_id, lock=False):
    row = session.execute(_points(model, lock),
                          {'wanted': project_id}).one_or_none()
    return row and _made(chain.Point, row)


def find_head(session, project_id):
    """The head of a project's chain as a Point, or None."""
    return _find_point(session, _HEAD, project_id)


def find_checkpoint(session, project_id):
    """The checkpoint that a project's chain goes on from, or None."""
    return _find_point(session, _CHECKPOINT, project_id)


def next_project(session, after=''):
    """The project of the audit that follows one in order, or None."""
    # One statement, so that the order is the database's alone.
    found = sa.union_all(*(
        sa.select(sa.func.min(model.project_id).label('project_id'))
        .where(model.project_id > after)
        for model in (_RECORD, _HEAD, _CHECKPOINT))).subquery()
    return session.scalar(sa.select(sa.func.min(found.c.project_id)))


def last_sequence(session, project_id):
    """The highest sequence number of a project's records, or None."""
    return session.scalar(sa.select(sa.func.max(_RECORD.sequence)).where(
        _RECORD.project_id == project_id))


def records(session, project_id, after=0, limit=1000, subject=None):
    """Records of a project that follow a sequence number, in order.

    :param subject: only those about it; None: all
    :returns: list of Record
    """
    query = sa.select(*_columns(_RECORD, _RECORD_COLUMNS)).where(
        _RECORD.project_id == project_id, _RECORD.sequence > after)
    if subject is not None:
        query = query.where(_RECORD.subject == subject)
    rows = session.execute(query.order_by(_RECORD.sequence).limit(limit))
    return [_made(chain.Record, row) for row in rows]


def _dialect(session):
    return session.get_bind().dialect.name


def _make_head(session, project_id):
    """Make sure that a project has a head, and lock it.

    With a plain INSERT, two first records of a project at the same moment
    would be a deadlock in MariaDB.
    """
    values = {'project_id': project_id, 'sequence': 0, 'at': '',
              'hash': chain.GENESIS}
    dialect = _dialect(session)
    if dialect in ('mysql', 'mariadb'):
        insert = mysql.insert(_HEAD).values(values)
        insert = insert.on_duplicate_key_update(
            project_id=insert.inserted.project_id)
    else:
        module = postgresql if dialect == 'postgresql' else sqlite
        insert = module.insert(_HEAD).values(values)
        insert = insert.on_conflict_do_nothing()
    session.execute(insert)


def lock_head(session, project_id, known=False):
    """A project's head, locked until the transaction ends.

    :param known: whether the project is known to have one
    :returns: Point; its sequence is 0 when there is no record
    """
    session.flush()
    if _dialect(session) == 'sqlite':
        # Has no locks of rows; of two transactions that read first and write
        # then, one fails at once in place of waiting.
        session.execute(
            sa.update(_HEAD).where(_HEAD.project_id == project_id)
            .values(sequence=_HEAD.sequence)
            .execution_options(synchronize_session=False))
    if not known and find_head(session, project_id) is None:
        _make_head(session, project_id)
    head = _find_point(session, _HEAD, project_id, lock=True)
    if head is None:
        _make_head(session, project_id)
        head = _find_point(session, _HEAD, project_id, lock=True)
    return head


def _store_head(session, head):
    session.execute(
        sa.update(_HEAD).where(_HEAD.project_id == head.project_id)
        .values(sequence=head.sequence, at=head.at, hash=head.hash,
                key_id=head.key_id, signature=head.signature)
        .execution_options(synchronize_session=False))


def append(session, project_id, entries, sign, known=False):
    """Add records to a project's chain.

    :param entries: mappings of event, subject, actor, request_id and
        details, the last as canonical JSON text
    :param sign: function that gives a Point its signature
    :param known: as lock_head() has it
    :returns: (list of Record, the new head as a Point)
    """
    last = lock_head(session, project_id, known)
    # Not before the lock: on one node, times follow one another as the
    # records do.
    at = timeutils.utcnow().strftime(chain.TIME_FORMAT)
    added = []
    for number, entry in enumerate(entries, 1):
        record = chain.Record(project_id=project_id, at=at,
                              sequence=last.sequence + number, **entry)
        added.append(record.chained(added[-1].hash if added else last.hash))
    session.execute(sa.insert(_RECORD), [
        {name: getattr(record, name) for name in _RECORD_COLUMNS}
        for record in added])
    head = sign(chain.Point.of(added[-1]))
    _store_head(session, head)
    return added, head


def sign_points(session, project_id, sign):
    """Sign a project's head and checkpoint anew.

    :returns: the head as a Point, or None when the project has none
    """
    if find_head(session, project_id) is None:
        return None
    head = sign(lock_head(session, project_id))
    _store_head(session, head)
    checkpoint = find_checkpoint(session, project_id)
    if checkpoint is not None:
        _store_checkpoint(session, sign(checkpoint))
    return head


def _store_checkpoint(session, point):
    columns = {name: getattr(point, name) for name in _POINT_COLUMNS}
    if not session.execute(
            sa.update(_CHECKPOINT)
            .where(_CHECKPOINT.project_id == point.project_id)
            .values(columns)
            .execution_options(synchronize_session=False)).rowcount:
        session.execute(sa.insert(_CHECKPOINT).values(columns))


def purge(session, project_id, before, limit, sign):
    """Delete the oldest records of a project, and leave a checkpoint.

    Only what is whole is deleted: each record is held to its hash first. The
    caller records audit.purged with the checkpoint in the same transaction;
    a checkpoint that the chain does not name is not believed.

    :param before: text as Record.at; records from before it
    :param limit: how many at most
    :param sign: function that gives a Point its signature
    :returns: (the checkpoint as a Point or None, how many were deleted)
    :raises ChainError: the chain is broken; nothing was deleted
    """
    head = lock_head(session, project_id)
    start = find_checkpoint(session, project_id)
    previous = chain.GENESIS if start is None else start.hash
    expected = 1 if start is None else start.sequence + 1
    gone = []
    for record in records(session, project_id, 0, limit):
        if record.sequence != expected:
            raise chain.ChainError(
                f'record {record.sequence} stands where {expected} should')
        if record.digest(previous) != record.hash:
            raise chain.ChainError(
                f'record {record.sequence} does not have its hash')
        if record.at >= before:
            break
        gone.append(record)
        previous, expected = record.hash, expected + 1
    if not gone:
        return None, 0
    if head.sequence < gone[-1].sequence:
        raise chain.ChainError(
            f'record {gone[-1].sequence} stands after the head, which is at '
            f'{head.sequence}')
    session.execute(
        sa.delete(_RECORD).where(
            _RECORD.project_id == project_id,
            _RECORD.sequence <= gone[-1].sequence)
        .execution_options(synchronize_session=False))
    checkpoint = sign(chain.Point.of(gone[-1]))
    _store_checkpoint(session, checkpoint)
    return checkpoint, len(gone)


def of_subject(session, project_id, subject, limit):
    """The first records of a project about a launch, a policy, ...

    :returns: list of Record, in order
    """
    rows = session.execute(
        sa.select(*_columns(_RECORD, _RECORD_COLUMNS))
        .where(_RECORD.project_id == project_id, _RECORD.subject == subject)
        .order_by(_RECORD.sequence).limit(limit))
    return [_made(chain.Record, row) for row in rows]


def count_of_subject(session, project_id, subject, event):
    """How many records a project has of an event of a launch, a policy, ..."""
    return session.scalar(
        sa.select(sa.func.count()).select_from(_RECORD).where(
            _RECORD.project_id == project_id, _RECORD.subject == subject,
            _RECORD.event == event))
