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

"""Holding chains of audit records to what vouches for them.

A chain is whole when

1. each record has the hash that it must have after the one before it, with no
   number missing, from the first record or the checkpoint on;
2. it ends where its head says, and the head is signed;
3. its checkpoint, where it was purged, is signed, and a record of the chain
   says that it was purged up to there: any signed head could be passed off as
   a checkpoint otherwise;
4. every head that was kept outside the database is a place in it.

Without 4. nobody can tell a chain that was cut off, or written anew by who has
the signing key, from one that is whole.

The service may go on writing meanwhile. What it adds after the verification
of a project began is not looked at, so kept heads are read before.
"""

import dataclasses
import json

from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.keyservice.audit import keys
from nova_sev_attest.keyservice.objects import audit

_BATCH = 1000
# A purge that goes on at the same time moves the chain's beginning.
_ATTEMPTS = 5
_BEFORE_ALL = 1 - 2 ** 63


class AuditBroken(Exception):
    """A project's chain is not whole.

    :ivar findings: list of sentences
    """

    def __init__(self, project_id, findings):
        super().__init__(f'project {project_id}: {"; ".join(findings)}')
        self.project_id = project_id
        self.findings = findings


@dataclasses.dataclass(frozen=True)
class Verified:
    """A chain that is whole.

    :ivar checkpoint: sequence that the chain was purged up to; 0: never
    :ivar head: sequence of its last record
    :ivar kept: how many kept heads are places in it
    :ivar older: how many kept heads lie before the checkpoint, and cannot
        be compared any more
    """

    project_id: str
    checkpoint: int
    head: int
    kept: int
    older: int


class Verifier:
    """Verifies chains, a batch of records at a time.

    :param database: Database
    :param publics: {key id: Ed25519PublicKey}
    :param kept: KeptHeads, or None
    :param unsigned: whether a head or checkpoint may lack a signature; it
        may never have a wrong one
    """

    def __init__(self, database, publics, kept=None, unsigned=False):
        self._db = database
        self._publics = publics
        self._kept = kept
        self._unsigned = unsigned

    def projects(self):
        """Ids of the projects that have an audit, or had one."""
        project_id = ''
        while project_id is not None:
            with self._db.reader() as session:
                project_id = audit.next_project(session, project_id)
            if project_id is not None:
                yield project_id
        for project_id in self._kept.projects() if self._kept else ():
            with self._db.reader() as session:
                there = (audit.find_head(session, project_id)
                         or audit.find_checkpoint(session, project_id)
                         or audit.last_sequence(session, project_id))
            if not there:
                yield project_id

    def verify(self, project_id):
        """Hold one project's chain to all that vouches for it.

        :returns: Verified
        :raises AuditBroken: it is not whole
        """
        for _ in range(_ATTEMPTS):
            walk = _Walk(self._db, self._publics, project_id,
                         self._kept.of(project_id) if self._kept else (),
                         self._unsigned)
            walk.run()
            with self._db.reader() as session:
                checkpoint = audit.find_checkpoint(session, project_id)
            if not walk.findings or checkpoint == walk.checkpoint:
                break
        if walk.findings:
            raise AuditBroken(project_id, walk.findings)
        return Verified(
            project_id, checkpoint=walk.start, head=walk.head.sequence,
            kept=walk.compared, older=walk.older)


class _Broken(Exception):
    """Records are not linked; those that follow prove nothing."""


class _Walk:
    """One way through a project's chain.

    :ivar findings: list of sentences
    """

    def __init__(self, database, publics, project_id, kept, unsigned):
        self._db = database
        self._publics = publics
        self._project_id = project_id
        self._unsigned = unsigned
        self._kept = iter(kept)
        self._awaited = next(self._kept, None)
        self.findings = []
        self.compared = self.older = 0
        with database.reader() as session:
            # In this order: what purges writes the head last.
            self.checkpoint = audit.find_checkpoint(session, project_id)
            self.head = audit.find_head(session, project_id)
        self.start = self.checkpoint.sequence if self.checkpoint else 0

    def run(self):
        for name, point in (('checkpoint', self.checkpoint),
                            ('head', self.head)):
            if point is not None:
                self._check_signature(name, point)
        if self.head is None:
            self.findings.append('the head is missing')
            self._find_cut_off()
            return
        try:
            self._follow()
        except _Broken as exc:
            self.findings.append(str(exc))
            return
        self._find_cut_off()
        self._find_beyond()

    def _check_signature(self, name, point):
        if self._unsigned and point.key_id is point.signature is None:
            return
        try:
            keys.verify(point, self._publics)
        except chain.ChainError as exc:
            self.findings.append(f'the {name} at {point.sequence}: {exc}')

    def _follow(self):
        """From the beginning to the head, record by record."""
        last, previous = self.start, chain.GENESIS
        named = self.checkpoint is None
        if self.checkpoint is not None:
            previous = self.checkpoint.hash
            self._compare(self.start, previous)
        for record in self._records():
            self._check_link(record, last, previous)
            last, previous = record.sequence, record.hash
            self._compare(last, previous)
            named = named or self._names_checkpoint(record)
        if last != self.head.sequence:
            raise _Broken(f'the head is at {self.head.sequence}, but the '
                          f'records end at {last}')
        if previous != self.head.hash:
            raise _Broken(f'the head does not have the hash of record {last}')
        if not named:
            raise _Broken(
                f'no record says that the chain was purged up to its '
                f'checkpoint at {self.start}: what was before was deleted by '
                f'other means')

    def _records(self):
        """Records up to the head as it was, in order."""
        after = _BEFORE_ALL
        while True:
            with self._db.reader() as session:
                batch = audit.records(session, self._project_id, after,
                                      _BATCH)
            for record in batch:
                if record.sequence > self.head.sequence:
                    return
                yield record
            if len(batch) < _BATCH:
                return
            after = batch[-1].sequence

    def _check_link(self, record, last, previous):
        if record.sequence <= last:
            raise _Broken(f'record {record.sequence} stands before '
                          f'{last + 1}, with which the chain begins')
        if record.sequence != last + 1:
            missing = (f'record {last + 1} is'
                       if record.sequence == last + 2 else
                       f'records {last + 1} to {record.sequence - 1} are')
            raise _Broken(f'{missing} missing')
        try:
            expected = record.digest(previous)
        except chain.ChainError as exc:
            raise _Broken(f'record {record.sequence}: {exc}') from exc
        if record.hash != expected:
            raise _Broken(
                f'record {record.sequence} does not have the hash that it '
                f'must have there: it was changed, moved or inserted')

    def _names_checkpoint(self, record):
        """Whether a record says that the chain was purged to there."""
        if record.event != 'audit.purged':
            return False
        match = chain.POINT.fullmatch(
            str(json.loads(record.details).get('checkpoint')))
        return match is not None and (
            int(match['sequence']), bytes.fromhex(match['hash'])) == (
            self.start, self.checkpoint.hash)

    def _compare(self, sequence, found):
        """Hold what stands there to heads that were kept."""
        while self._awaited and self._awaited.sequence <= sequence:
            point = self._awaited
            self._awaited = next(self._kept, None)
            if point.sequence < sequence:
                self.older += 1
            elif point.hash == found:
                self.compared += 1
            else:
                self.findings.append(
                    f'a kept head says that record {sequence} had another '
                    f'hash: {self._provenance(point)}')

    def _find_cut_off(self):
        """Heads that were kept of records that are no more."""
        last = None
        while self._awaited:
            last, self._awaited = self._awaited, next(self._kept, None)
        if last is not None:
            self.findings.append(
                f'a kept head says that there was a record {last.sequence}, '
                f'which is missing: {self._provenance(last)}')

    def _find_beyond(self):
        with self._db.reader() as session:
            # In this order: the service writes both at once.
            last = audit.last_sequence(session, self._project_id)
            head = audit.find_head(session, self._project_id)
        if last is not None and (head is None or last > head.sequence):
            self.findings.append(f'record {last} stands after the head')

    def _provenance(self, point):
        """What a kept head that does not fit is worth."""
        try:
            keys.verify(point, self._publics)
        except chain.ChainError as exc:
            return (f'either the head is not the service\'s ({exc}), or the '
                    f'audit was written anew')
        return (f'it was signed by key {point.key_id}, so the audit was cut '
                f'off, written anew or restored')
