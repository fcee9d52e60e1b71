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

"""The audit on real databases: written, tampered with, verified, purged."""

import concurrent.futures
import io
import json
import re
import threading
import time

from oslo_db import exception as db_exc
import pytest
import sqlalchemy as sa

from nova_sev_attest.cmd import audit as cmd_audit
from nova_sev_attest.cmd import manage
from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.keyservice.audit import keys as audit_keys
from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.db import migration
from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice import journal
from nova_sev_attest.keyservice.objects import audit
from tests.functional.keyservice import databases

RECORDS = models.AuditRecord.__table__
HEADS = models.AuditHead.__table__
CHECKPOINTS = models.AuditCheckpoint.__table__


class Audit:
    """An audit, those who write to it, and who tampers with it."""

    def __init__(self, url, directory):
        self.keys = audit_keys.AuditKeys(str(directory / 'audit-keys'))
        self.config_file = directory / 'nova-sev-attest.conf'
        self.config_file.write_text(
            f'[database]\nconnection = {url}\n'
            f'[audit]\nkey_repository = {self.keys.path}\n')
        self.conf = conf_keyservice.load(
            config_files=[str(self.config_file)])
        self.database = db_api.Database(self.conf)
        self.journal = journal.Journal(self.database, self.keys)

    def write(self, count=1, project='p', at=None):
        """Add records, a transaction each.

        :param at: time of the records, so that they can be old
        """
        for number in range(count):
            self.write_once(project, f'launch-{number}')
        if at is not None:
            self.age(project, at)

    @db_api.retried
    def write_once(self, project, subject):
        with self.journal.writer() as entry:
            entry.record('launch.running', project, subject=subject,
                         actor='host-1', server_id='s')

    def age(self, project, at):
        """Chain all records of a project anew, as if written at a time."""
        with self.database.writer() as session:
            previous = chain.GENESIS
            found = [record for record in audit.records(
                session, project, 0, 10 ** 6)]
            for record in found:
                record = chain.Record(**{
                    name: getattr(record, name) for name in (
                        'project_id', 'sequence', 'event', 'subject',
                        'actor', 'request_id', 'details')}, at=at).chained(
                            previous)
                session.execute(
                    sa.update(RECORDS).where(
                        RECORDS.c.project_id == project,
                        RECORDS.c.sequence == record.sequence)
                    .values(at=at, hash=record.hash))
                previous = record.hash
            self._set_head(session, self.keys.sign(chain.Point.of(record)))

    @staticmethod
    def _set_head(session, head):
        session.execute(
            sa.update(HEADS).where(HEADS.c.project_id == head.project_id)
            .values(sequence=head.sequence, at=head.at, hash=head.hash,
                    key_id=head.key_id, signature=head.signature))

    def head(self, project='p'):
        with self.database.reader() as session:
            return audit.find_head(session, project)

    def records(self, project='p'):
        with self.database.reader() as session:
            return audit.records(session, project, 0, 10 ** 6)

    def tamper(self, *statements):
        with self.database.engine.begin() as connection:
            for statement in statements:
                connection.execute(statement)

    def run(self, capsys, *command):
        """Run a command; returns (status, output, errors)."""
        capsys.readouterr()
        status = manage.main(['--config-file', str(self.config_file),
                              *command])
        output = capsys.readouterr()
        return status, output.out, output.err


@pytest.fixture(scope='module', params=databases.configured())
def _database(request, tmp_path_factory):
    with databases.new(request.param, tmp_path_factory) as url:
        made = Audit(url, tmp_path_factory.mktemp('migrating'))
        migration.upgrade(made.database.engine)
        made.database.dispose()
        yield url


@pytest.fixture
def unsigned(_database, tmp_path):
    """An audit of a service that has no key."""
    made = Audit(_database, tmp_path)
    made.tamper(*(sa.delete(table)
                  for table in (RECORDS, HEADS, CHECKPOINTS)))
    yield made
    made.database.dispose()


@pytest.fixture
def audited(unsigned):
    unsigned.keys.create()
    return unsigned


@pytest.fixture
def run(unsigned, capsys):
    """Runs nova-sev-attest-manage; returns (status, output, errors)."""
    return lambda *command: unsigned.run(capsys, *command)


@pytest.fixture
def verify(run):
    """Runs "audit verify"; returns (status, output)."""
    def verify(*arguments):
        status, output, errors = run('audit', 'verify', *arguments)
        assert not errors
        return status, output
    return verify


def at(sequence, project='p'):
    return sa.and_(RECORDS.c.project_id == project,
                   RECORDS.c.sequence == sequence)


def update(number, **values):
    return sa.update(RECORDS).where(at(number)).values(**values)


def swap(one, other):
    """Statements that let two records change places."""
    return (update(one, sequence=10 ** 9), update(other, sequence=one),
            update(10 ** 9, sequence=other))


def test_what_the_journal_writes_is_whole(audited, verify):
    audited.write(5)
    audited.write(3, project='q')
    assert verify() == (0, (
        'whole   project p: records 1 to 5; 0 kept heads are in it.\n'
        'whole   project q: records 1 to 3; 0 kept heads are in it.\n'))
    assert verify('--project', 'q')[1].count('whole') == 1


def test_several_records_of_one_transaction(audited, verify):
    heads = []
    audited.journal._listeners += (
        lambda event, record, head: heads.append(head),)
    with audited.journal.writer() as entry:
        for project in ('q', 'p', 'q'):
            entry.record('policy.deleted', project, subject='policy')
    assert [head and (head.project_id, head.sequence)
            for head in heads] == [('p', 1), None, ('q', 2)]
    status, output = verify()
    assert status == 0 and 'project q: records 1 to 2' in output


def test_what_is_rolled_back_leaves_nothing(audited, verify):
    audited.write(2)
    with pytest.raises(RuntimeError):
        with audited.journal.writer() as entry:
            entry.record('policy.deleted', 'p', subject='policy')
            raise RuntimeError
    assert audited.head().sequence == 2
    assert verify()[0] == 0


def test_no_audit_yet(audited, verify):
    assert verify() == (0, 'There is no audit yet.\n')


@pytest.mark.parametrize('column, value', [
    ('at', '2020-01-01T00:00:00.000000Z'), ('event', 'launch.denied'),
    ('subject', 'launch-x'), ('actor', 'somebody'), ('actor', None),
    ('request_id', 'req-1'), ('details', '{"server_id":"t"}'),
    ('details', '{"server_id": "s"}'), ('details', '{'),
    ('hash', b'\x01' * 32)])
@pytest.mark.parametrize('sequence', [1, 3, 5])
def test_a_changed_record(audited, verify, sequence, column, value):
    audited.write(5)
    audited.tamper(update(sequence, **{column: value}))
    status, output = verify()
    assert status == 1
    assert f'BROKEN  project p: record {sequence}' in output


def test_a_changed_record_whose_hash_was_made_anew(audited, verify):
    audited.write(5)
    records = audited.records()
    changed = chain.Record(**{
        name: getattr(records[2], name) for name in (
            'project_id', 'sequence', 'at', 'event', 'actor', 'request_id',
            'details')}, subject='launch-x').chained(records[1].hash)
    audited.tamper(update(3, subject='launch-x', hash=changed.hash))
    status, output = verify()
    assert status == 1 and 'record 4 does not have the hash' in output


@pytest.mark.parametrize('sequences, found', [
    ([1], 'record 1 is missing'), ([3], 'record 3 is missing'),
    ([2, 3], 'records 2 to 3 are missing'),
    ([1, 2, 3], 'records 1 to 3 are missing'),
    ([5], 'the head is at 5, but the records end at 4'),
    ([1, 2, 3, 4, 5], 'the head is at 5, but the records end at 0')])
def test_a_removed_record(audited, verify, sequences, found):
    audited.write(5)
    audited.tamper(*(sa.delete(RECORDS).where(at(sequence))
                     for sequence in sequences))
    status, output = verify()
    assert status == 1 and found in output


def test_a_removed_record_whose_gap_was_closed(audited, verify):
    audited.write(5)
    audited.tamper(sa.delete(RECORDS).where(at(3)), update(4, sequence=3),
                   update(5, sequence=4))
    status, output = verify()
    assert status == 1 and 'record 3 does not have the hash' in output


@pytest.mark.parametrize('one, other', [(1, 2), (2, 4), (4, 5)])
def test_reordered_records(audited, verify, one, other):
    audited.write(5)
    audited.tamper(*swap(one, other))
    status, output = verify()
    assert status == 1 and f'record {one} does not have the hash' in output


def row(audited, sequence, previous):
    """A record that an intruder makes, with a hash that fits."""
    record = chain.Record(
        'p', sequence, '2026-11-24T03:43:00.000000Z', 'launch.running',
        'launch-x', None, None, '{}').chained(previous)
    return sa.insert(RECORDS).values(**{
        column.name: getattr(record, column.name)
        for column in RECORDS.columns})


def test_an_inserted_record(audited, verify):
    audited.write(5)
    records = audited.records()
    audited.tamper(update(5, sequence=6), update(4, sequence=5),
                   row(audited, 4, records[2].hash))
    status, output = verify()
    assert status == 1 and 'record 5 does not have the hash' in output


@pytest.mark.parametrize('sequence', [0, -1, -2 ** 62])
def test_a_record_inserted_before_the_first(audited, verify, sequence):
    audited.write(5)
    audited.tamper(
        sa.insert(RECORDS).values(
            project_id='p', sequence=sequence, at=audited.head().at,
            event='e', subject='s', details='{}', hash=chain.GENESIS))
    status, output = verify()
    assert status == 1
    assert f'record {sequence} stands before 1' in output


def test_a_record_inserted_after_the_head(audited, verify):
    audited.write(5)
    audited.tamper(row(audited, 6, audited.head().hash))
    status, output = verify()
    assert status == 1 and 'record 6 stands after the head' in output


def test_a_missing_head(audited, verify):
    audited.write(5)
    audited.tamper(sa.delete(HEADS))
    status, output = verify()
    assert status == 1 and 'the head is missing' in output


@pytest.mark.parametrize('values, found', [
    ({'sequence': 4}, 'is not one by key'),
    ({'hash': b'\x01' * 32}, 'is not one by key'),
    ({'at': '2020-01-01T00:00:00.000000Z'}, 'is not one by key'),
    ({'signature': 'A' * 86}, 'is not one by key'),
    ({'signature': None}, 'malformed'),
    ({'key_id': None}, 'malformed'),
    ({'key_id': None, 'signature': None}, 'it is not signed'),
    ({'key_id': '0009-00000000'}, 'no public key 0009-00000000')])
def test_a_wrong_or_missing_signature(audited, verify, values, found):
    audited.write(5)
    audited.tamper(sa.update(HEADS).values(**values))
    status, output = verify()
    assert status == 1 and 'project p: the head at ' in output
    assert found in output


def truncate(audited, last):
    """Cut the chain off with a head that was signed in its time."""
    head = audited.head()
    audited.write(5)
    assert head.sequence == last
    audited.tamper(
        sa.delete(RECORDS).where(RECORDS.c.sequence > last),
        sa.update(HEADS).values(
            sequence=head.sequence, at=head.at, hash=head.hash,
            key_id=head.key_id, signature=head.signature))


def test_a_truncated_tail(audited, verify, tmp_path):
    audited.write(5)
    before = audited.head()
    audited.write(1)
    truncate(audited, 6)
    # By itself the chain is as it was then.
    assert verify()[0] == 0
    assert verify('--head', str(before)) == (
        0, 'whole   project p: records 1 to 6; 1 kept heads are in it.\n')
    after = audited.keys.sign(chain.Point(
        'p', 11, before.at, b'\x01' * 32))
    status, output = verify('--head', str(before), '--head', str(after))
    assert status == 1
    assert 'there was a record 11, which is missing: it was signed' in output


def test_a_truncated_tail_against_what_the_log_has(audited, verify, caplog,
                                                   tmp_path):
    audited.write(5)
    with caplog.at_level('INFO', journal.__name__):
        truncate(audited, 5)
    log = tmp_path / 'service.log'
    log.write_text(caplog.text)
    status, output = verify('--head-file', str(log))
    assert status == 1
    assert 'there was a record 10, which is missing' in output


def test_a_whole_rewrite(audited, verify, run, tmp_path):
    """By somebody who can write to the database and sign, even."""
    audited.write(5)
    kept = tmp_path / 'heads.jsonl'
    kept.write_text(run('audit', 'heads')[1])
    assert verify('--head-file', str(kept))[0] == 0
    audited.tamper(update(3, subject='launch-x'))
    audited.age('p', '2020-01-01T00:00:00.000000Z')
    assert verify()[0] == 0
    status, output = verify('--head-file', str(kept))
    assert status == 1
    assert 'record 5 had another hash: it was signed by key' in output
    # More of the new history does not help.
    audited.write(7)
    assert verify()[0] == 0
    assert verify('--head-file', str(kept))[0] == 1


def test_a_rewrite_by_who_cannot_sign(audited, verify):
    audited.write(5)
    head = audited.head()
    audited.tamper(update(3, subject='launch-x'))
    audited.age('p', '2020-01-01T00:00:00.000000Z')
    audited.tamper(sa.update(HEADS).values(key_id=head.key_id,
                                           signature=head.signature))
    status, output = verify()
    assert status == 1 and 'is not one by key' in output


def test_a_project_that_is_gone_as_a_whole(audited, verify):
    audited.write(5)
    head = audited.head()
    audited.write(1, project='q')
    audited.tamper(*(sa.delete(table).where(table.c.project_id == 'p')
                     for table in (RECORDS, HEADS)))
    assert verify()[0] == 0
    status, output = verify('--head', str(head))
    assert status == 1
    assert 'project p: the head is missing' in output
    assert 'there was a record 5, which is missing' in output
    assert 'whole   project q' in output


def test_a_kept_head_that_nobody_signed(audited, verify, run):
    audited.write(5)
    forged = chain.Point('p', 3, audited.head().at, b'\x01' * 32)
    status, output = verify('--head', str(forged))
    assert status == 1
    assert 'either the head is not the service\'s (it is not signed)' in output


def test_public_keys_from_elsewhere(audited, verify, run, tmp_path):
    audited.write(5)
    key_id, = audited.keys.public_ids()
    copy = tmp_path / f'{key_id}.pub'
    copy.write_bytes((tmp_path / 'audit-keys' / copy.name).read_bytes())
    # Who owns the repository could have put another key there.
    (tmp_path / 'audit-keys').rename(tmp_path / 'gone')
    assert verify()[0] == 1
    assert verify('--public-key', str(copy))[0] == 0


def test_what_cannot_be_verified(audited, run, tmp_path):
    audited.write(1)
    empty = tmp_path / 'empty'
    empty.write_text('no heads here\n')
    bad = tmp_path / 'bad'
    bad.write_text(str(audited.head()).replace(':p:', ':%70:'))
    for arguments, found in (
            (['--head', 'audit-head:1:p'], 'not a head'),
            (['--head-file', str(empty)], 'no head in'),
            (['--head-file', str(bad)], 'not a head as it is written'),
            (['--head-file', str(tmp_path / 'nowhere')], 'No such file'),
            (['--public-key', str(empty)], 'is named')):
        status, output, errors = run('audit', 'verify', *arguments)
        assert (status, output) == (2, '') and found in errors
    (tmp_path / 'audit-keys').chmod(0o755)
    status, _output, errors = run('audit', 'verify')
    assert status == 2 and 'mode 0700' in errors


def test_a_database_that_cannot_be_used(audited, capsys, tmp_path):
    audited.config_file.write_text(
        f'[database]\nconnection = sqlite:///{tmp_path}/empty.sqlite\n'
        f'[audit]\nkey_repository = {audited.keys.path}\n')
    status, output, errors = audited.run(capsys, 'audit', 'verify')
    assert (status, output) == (2, '') and 'database: no such table' in errors


def test_heads_from_standard_input(audited, verify, run, monkeypatch):
    audited.write(5)
    exported = run('audit', 'heads')[1]
    assert json.loads(exported) == {
        'project_id': 'p', 'sequence': 5, 'at': audited.head().at,
        'hash': audited.head().hash.hex(), 'key_id': audited.head().key_id,
        'head': str(audited.head())}
    monkeypatch.setattr('sys.stdin', io.StringIO(exported))
    assert '1 kept heads' in verify('--head-file', '-')[1]


OLD = '2020-01-01T00:00:00.000000Z'


@pytest.fixture
def purged(audited, run, monkeypatch):
    """An audit of which seven records were purged, in two batches."""
    monkeypatch.setattr(cmd_audit, '_BATCH', 4)
    audited.write(7, at=OLD)
    audited.kept = audited.head()
    audited.write(2)
    assert run('audit', 'purge', '--before', '2020-02-01')[:2] == (
        0, 'Project p: 7 records were deleted.\n')
    return audited


def test_purge_leaves_a_signed_checkpoint(purged, verify, run):
    assert [(record.sequence, record.event)
            for record in purged.records()] == [
        (8, 'launch.running'), (9, 'launch.running'), (10, 'audit.purged'),
        (11, 'audit.purged')]
    assert [json.loads(record.details)['count']
            for record in purged.records()[2:]] == [4, 3]
    with purged.database.reader() as session:
        checkpoint = audit.find_checkpoint(session, 'p')
    assert json.loads(purged.records()[-1].details)['checkpoint'] == str(
        checkpoint)
    assert (checkpoint.sequence, checkpoint.hash) == (
        7, purged.kept.hash)
    purged.write(2)
    older = purged.keys.sign(chain.Point('p', 3, OLD, b'\x01' * 32))
    assert verify('--head', str(purged.kept), '--head', str(older)) == (0, (
        'whole   project p: purged up to record 7; records 8 to 13; 1 kept '
        'heads are in it, 1 are from before it.\n'))
    # Again, with the checkpoint to go on from, and the records of the purge.
    with purged.database.writer() as session:
        audit.purge(session, 'p', '9999-12-31T00:00:00.000000Z', 100,
                    purged.journal.sign)


def test_purge_again(purged, verify, run, monkeypatch):
    assert run('audit', 'purge', '--before', '2020-02-01')[1] == (
        'Project p: 0 records were deleted.\n')
    monkeypatch.setattr(cmd_audit, '_time', lambda text: text)
    last = purged.records()[-1].at
    purged.write(1)
    status, output, _errors = run('audit', 'purge', '--before', last)
    assert status == 0 and re.search(r' [1-9] records', output)
    assert verify()[0] == 0


def test_purge_of_the_future(audited, run):
    audited.write(1)
    status, _output, errors = run('audit', 'purge', '--before', '9999-01-01')
    assert status == 1 and 'future' in errors
    with pytest.raises(SystemExit):
        run('audit', 'purge', '--before', 'yesterday')


@pytest.mark.parametrize('values, found', [
    ({'hash': b'\x01' * 32}, 'the checkpoint at 7: its signature'),
    ({'sequence': 6}, 'the checkpoint at 6: its signature'),
    ({'key_id': None, 'signature': None},
     'the checkpoint at 7: it is not signed')])
def test_a_changed_checkpoint(purged, verify, values, found):
    purged.tamper(sa.update(CHECKPOINTS).values(**values))
    status, output = verify()
    assert status == 1 and found in output


def test_a_missing_checkpoint(purged, verify):
    purged.tamper(sa.delete(CHECKPOINTS))
    status, output = verify()
    assert status == 1 and 'records 1 to 7 are missing' in output


def test_a_record_inserted_before_the_checkpoint(purged, verify):
    purged.tamper(row(purged, 7, chain.GENESIS))
    status, output = verify()
    assert status == 1 and 'record 7 stands before 8' in output


def test_an_old_head_is_no_checkpoint(audited, verify):
    """Signed by the service, and found in any log."""
    audited.write(4)
    old = audited.head()
    audited.write(3)
    audited.tamper(
        sa.delete(RECORDS).where(RECORDS.c.sequence <= 4),
        sa.insert(CHECKPOINTS).values(**{
            column.name: getattr(old, column.name)
            for column in CHECKPOINTS.columns}))
    status, output = verify()
    assert status == 1
    assert 'no record says that the chain was purged up to' in output


def test_what_is_broken_is_not_purged(audited, run):
    audited.write(5, at=OLD)
    audited.write(1, project='q')
    audited.tamper(update(3, subject='launch-x'))
    status, output, errors = run('audit', 'purge', '--before', '2020-02-01')
    assert status == 1 and 'nothing is deleted: project p' in errors
    assert output == 'Project q: 0 records were deleted.\n'
    assert len(audited.records()) == 5
    with pytest.raises(chain.ChainError, match='record 3'):
        with audited.database.writer() as session:
            audit.purge(session, 'p', '2020-02-01', 100, audited.journal.sign)
    with pytest.raises(chain.ChainError, match='after the head'):
        with audited.database.writer() as session:
            session.execute(sa.update(HEADS).values(sequence=1))
            audit.purge(session, 'p', '2020-02-01', 2, audited.journal.sign)


def test_without_a_key(unsigned, verify, run):
    unsigned.write(3, at=OLD)
    unsigned.write(1)
    status, output = verify()
    assert status == 1 and 'the head at 4: it is not signed' in output
    status, _output, errors = run('audit', 'purge', '--before', '2020-02-01')
    assert status == 1 and 'it is not signed' in errors
    status, output, _errors = run('audit', 'purge', '--before', '2020-02-01',
                                  '--unsigned')
    assert status == 0 and '3 records' in output
    status, _output, errors = run('audit', 'sign')
    assert status == 1 and 'audit-key create' in errors

    unsigned.keys.create()
    status, output, _errors = run('audit', 'sign')
    assert status == 0 and str(unsigned.head()) in output
    status, output = verify('--head', str(unsigned.head()))
    assert status == 0 and 'purged up to record 3' in output


def test_nothing_that_is_broken_is_signed(unsigned, run):
    unsigned.write(3)
    unsigned.tamper(update(2, subject='launch-x'))
    unsigned.keys.create()
    status, _output, errors = run('audit', 'sign')
    assert status == 1 and 'not signed: project p: record 2' in errors
    assert unsigned.head().signature is None


def test_a_key_that_cannot_be_used_stops_nothing(audited, verify, tmp_path,
                                                 caplog):
    audited.write(1)
    path, = (tmp_path / 'audit-keys').glob('*.key')
    path.chmod(0o644)
    fresh = Audit(audited.conf.database.connection, tmp_path)
    fresh.write(1)
    assert 'An audit head is not signed' in caplog.text
    assert verify()[0] == 1
    path.chmod(0o600)
    fresh.write(1)
    assert verify()[0] == 0
    fresh.database.dispose()


def test_key_commands(unsigned, run, verify):
    assert run('audit-key', 'list') == (0, '', '')
    status, output, _errors = run('audit-key', 'create')
    first, = unsigned.keys.private_ids()
    assert status == 0 and f'Audit key {first} made' in output
    unsigned.write(2)
    assert run('audit-key', 'list')[1] == f'{first}  signs and verifies\n'
    status, _output, errors = run('audit-key', 'retire', first)
    assert status == 1 and 'the key that signs' in errors
    run('audit-key', 'create')
    assert f'{first}  verifies; its private half can be' in run(
        'audit-key', 'list')[1]
    assert run('audit-key', 'retire', first)[0] == 0
    assert f'{first}  verifies\n' in run('audit-key', 'list')[1]
    # The head is still the first key's.
    assert verify()[0] == 0
    unsigned.write(1)
    assert unsigned.head().key_id == unsigned.keys.private_ids()[0] != first
    assert verify()[0] == 0


def test_show(audited, run, monkeypatch):
    monkeypatch.setattr(cmd_audit, '_BATCH', 2)
    audited.write(5)
    status, output, _errors = run('audit', 'show', '--project', 'p')
    shown = [json.loads(line) for line in output.splitlines()]
    assert [found['sequence'] for found in shown] == [1, 2, 3, 4, 5]
    assert shown[0] == {
        'sequence': 1, 'at': audited.records()[0].at,
        'event': 'launch.running', 'subject': 'launch-0', 'actor': 'host-1',
        'request_id': None, 'details': {'server_id': 's'},
        'hash': audited.records()[0].hash.hex()}
    for arguments, expected in (
            (['--subject', 'launch-2'], [3]), (['--after', '3'], [4, 5]),
            (['--limit', '3'], [1, 2, 3])):
        output = run('audit', 'show', '--project', 'p', *arguments)[1]
        assert [json.loads(line)['sequence']
                for line in output.splitlines()] == expected
    audited.tamper(update(4, details='{'))
    status, _output, errors = run('audit', 'show', '--project', 'p')
    assert status == 1 and 'record 4 was damaged' in errors


def test_many_projects_in_any_order(audited, verify, run):
    projects = ['B', 'a', '0', 'c', 'A', 'b', '9f', '\u00e9']
    for project in projects:
        audited.write(1, project=project)
    # One of which only the head is left, whatever the database sorts by.
    audited.tamper(sa.delete(RECORDS).where(RECORDS.c.project_id == 'a'))
    status, output = verify()
    assert status == 1
    assert output.count('\n') == len(projects)
    assert output.count('whole') == len(projects) - 1
    assert len(run('audit', 'heads')[1].splitlines()) == len(projects)


def test_verifying_reads_in_batches(audited, verify, monkeypatch):
    monkeypatch.setattr(
        'nova_sev_attest.keyservice.audit.verifying._BATCH', 3)
    audited.write(10)
    asked = []
    records = audit.records
    monkeypatch.setattr(audit, 'records', lambda *args, **kwargs: asked.append(
        args[2:]) or records(*args, **kwargs))
    assert verify()[0] == 0
    assert [limit for _after, limit in asked] == [3, 3, 3, 3]


WRITERS, TURNS = 4, 8
# SQLite is not fair: who waits needs a chance.
PAUSE = 0.02


def test_writers_at_the_same_time(audited, verify):
    """Of one project, of several in one transaction, from several services.

    The first records of projects are made at the same moment, too.
    """
    others = [Audit(audited.conf.database.connection,
                    audited.config_file.parent) for _ in range(2)]
    barrier = threading.Barrier(WRITERS)

    @db_api.retried
    def write_both(service, number):
        with service.journal.writer() as entry:
            # Something read first, as launches are.
            entry.session.execute(sa.select(HEADS)).all()
            for project in ('shared', 'also')[::1 if number % 2 else -1]:
                entry.record('launch.running', project,
                             subject=f'launch-{number}')

    def work(number):
        service = others[number % len(others)]
        barrier.wait(30)
        for turn in range(TURNS):
            write_both(service, turn)
            time.sleep(PAUSE)
            service.write_once('shared', f'of-{number}')

    with concurrent.futures.ThreadPoolExecutor(WRITERS) as executor:
        for done in [executor.submit(work, number)
                     for number in range(WRITERS)]:
            done.result()
    for service in others:
        service.database.dispose()
    assert audited.head('also').sequence == WRITERS * TURNS
    assert audited.head('shared').sequence == 2 * WRITERS * TURNS
    assert verify()[0] == 0


def test_verifying_while_it_is_written_and_purged(audited, run, monkeypatch):
    monkeypatch.setattr(
        'nova_sev_attest.keyservice.audit.verifying._BATCH', 5)
    audited.write(30, at=OLD)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            audited.write_once('p', 'launch')
            time.sleep(PAUSE)

    @db_api.retried
    def purge():
        with audited.journal.writer() as entry:
            checkpoint, count = audit.purge(
                entry.session, 'p', '2020-02-01', 3, audited.journal.sign)
            if count:
                entry.record('audit.purged', 'p', subject='p', count=count,
                             checkpoint=str(checkpoint))

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        writing = executor.submit(write)
        try:
            for _ in range(8):
                status, output, _errors = run('audit', 'verify')
                assert status == 0, output
                purge()
        finally:
            stop.set()
        writing.result()
    status, output, _errors = run('audit', 'verify')
    assert status == 0 and 'purged up to record 24' in output


def test_an_id_cannot_be_used_twice(audited):
    audited.write(2)
    with pytest.raises(db_exc.DBDuplicateEntry):
        audited.tamper(row(audited, 2, chain.GENESIS))
