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

"""nova-sev-attest-manage audit: the record of what the service decided."""

import contextlib
import datetime
import functools
import json
import sys

from oslo_db import exception as db_exc
from oslo_utils import timeutils
from sqlalchemy import exc as sa_exc

from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.keyservice.audit import kept
from nova_sev_attest.keyservice.audit import keys as audit_keys
from nova_sev_attest.keyservice.audit import verifying
from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.objects import audit
from nova_sev_attest.keyservice import service as keyservice

_ACTOR = 'nova-sev-attest-manage'
_BATCH = 1000

WHOLE, BROKEN, UNKNOWN = 0, 1, 2


def _fail(text):
    print(f'nova-sev-attest-manage: {text}', file=sys.stderr)


def _told_apart(function):
    """UNKNOWN where verifying was not possible, so that BROKEN says more."""
    @functools.wraps(function)
    def wrapped(conf, args):
        try:
            return function(conf, args)
        except (audit_keys.AuditKeyError, chain.ChainError, OSError,
                UnicodeDecodeError) as exc:
            _fail(exc)
        except (db_exc.DBError, sa_exc.SQLAlchemyError) as exc:
            cause = getattr(exc, 'inner_exception', exc)
            _fail(f'database: {getattr(cause, "orig", cause)}')
        return UNKNOWN
    return wrapped


def _publics(conf, paths=None):
    if paths:
        return audit_keys.read_publics(paths)
    return audit_keys.AuditKeys(conf.audit.key_repository).publics()


@_told_apart
def verify(conf, args):
    """Hold the audit to its hashes, signatures and kept heads."""
    status = WHOLE
    with contextlib.ExitStack() as stack:
        heads = stack.enter_context(kept.KeptHeads())
        if not _read_heads(heads, args):
            return UNKNOWN
        database = db_api.Database(conf)
        verifier = verifying.Verifier(
            database, _publics(conf, args.public_key), heads)
        count = 0
        for project_id in ([args.project] if args.project
                           else verifier.projects()):
            count += 1
            try:
                _tell(verifier.verify(project_id))
            except verifying.AuditBroken as exc:
                status = BROKEN
                for finding in exc.findings:
                    print(f'BROKEN  project {project_id}: {finding}')
    if not count:
        print('There is no audit yet.')
    return status


def _read_heads(heads, args):
    """Read all kept heads; returns whether each place had some."""
    for text in args.head:
        match = chain.POINT.fullmatch(text)
        if match is None:
            _fail(f'not a head, audit-head:1:PROJECT:SEQUENCE:HASH:AT:KEY:'
                  f'SIGNATURE: {text}')
            return False
        heads.add(chain.Point.from_match(match))
    for path in args.head_file:
        with (contextlib.nullcontext(sys.stdin) if path == '-'
              else open(path, errors='replace')) as stream:
            if not heads.read(stream):
                _fail(f'there is no head in {path}')
                return False
    return True


def _tell(found):
    text = f'whole   project {found.project_id}: '
    if found.checkpoint:
        text += f'purged up to record {found.checkpoint}; '
    text += (f'records {found.checkpoint + 1} to {found.head}; '
             f'{found.kept} kept heads are in it')
    if found.older:
        text += f', {found.older} are from before it'
    print(text + '.')


def add_verify_arguments(parser):
    _add_project(parser)
    parser.add_argument(
        '--head', action='append', default=[], metavar='HEAD',
        help='a head that was kept outside the database, as the log and the '
             'notifications have it; may be given several times')
    parser.add_argument(
        '--head-file', action='append', default=[], metavar='FILE',
        help='a file with such heads, of whatever form (a log, what "audit '
             'heads" wrote); "-": standard input; may be given several times')
    parser.add_argument(
        '--public-key', action='append', metavar='FILE',
        help='a public key, <key id>.pub, in the place of those in [audit] '
             'key_repository; may be given several times')


def heads(conf, args):
    """Write the heads of all projects, a JSON object a line."""
    database = db_api.Database(conf)
    for project_id in ([args.project] if args.project
                       else verifying.Verifier(database, {}).projects()):
        with database.reader() as session:
            head = audit.find_head(session, project_id)
        if head is not None:
            print(json.dumps({
                'project_id': head.project_id, 'sequence': head.sequence,
                'at': head.at, 'hash': head.hash.hex(),
                'key_id': head.key_id, 'head': str(head)}))
    return 0


def _add_project(parser, required=False):
    parser.add_argument('--project', metavar='ID', required=required,
                        help='only the audit of this project')


add_heads_arguments = _add_project


def show(conf, args):
    """Write records of a project, a JSON object a line."""
    database = db_api.Database(conf)
    after, left = args.after, args.limit
    while left is None or left > 0:
        limit = _BATCH if left is None else min(left, _BATCH)
        with database.reader() as session:
            found = audit.records(session, args.project, after, limit,
                                  subject=args.subject)
        for record in found:
            print(json.dumps(_shown(record)))
        if len(found) < limit:
            break
        after = found[-1].sequence
        left = left and left - len(found)
    return 0


def _shown(record):
    try:
        details, digest = json.loads(record.details), record.hash.hex()
    except (ValueError, RecursionError, AttributeError):
        raise chain.ChainError(
            f'record {record.sequence} was damaged; see "audit '
            f'verify"') from None
    return {'sequence': record.sequence, 'at': record.at,
            'event': record.event, 'subject': record.subject,
            'actor': record.actor, 'request_id': record.request_id,
            'details': details, 'hash': digest}


def add_show_arguments(parser):
    _add_project(parser, required=True)
    parser.add_argument('--subject', metavar='ID',
                        help='only what is about this launch, policy, ...')
    parser.add_argument('--after', type=int, default=0, metavar='SEQUENCE',
                        help='only records with a higher sequence number')
    parser.add_argument('--limit', type=int, metavar='N',
                        help='so many at most')


def sign(conf, args):
    """Sign heads that no key signed yet, where their chain is whole."""
    database = db_api.Database(conf)
    keys = audit_keys.AuditKeys(conf.audit.key_repository)
    if keys.signer() is None:
        _fail(f'there is no key in {keys.path}; make one with "audit-key '
              f'create"')
        return 1
    verifier = verifying.Verifier(database, keys.publics(), unsigned=True)
    status = 0
    for project_id in ([args.project] if args.project
                       else verifier.projects()):
        try:
            verifier.verify(project_id)
        except verifying.AuditBroken as exc:
            _fail(f'not signed: {exc}')
            status = 1
            continue
        head = _sign(database, keys, project_id)
        print(f'Project {project_id}: {head}')
    return status


@db_api.retried
def _sign(database, keys, project_id):
    with database.writer() as session:
        return audit.sign_points(session, project_id, keys.sign)


add_sign_arguments = _add_project


def purge(conf, args):
    """Delete old records, of chains that are whole, and leave checkpoints."""
    if args.before > timeutils.utcnow().strftime(chain.TIME_FORMAT):
        # What is purged is recorded, and would be purged in turn.
        _fail('--before lies in the future')
        return 1
    database = db_api.Database(conf)
    journal = keyservice.make_journal(conf, database)
    verifier = verifying.Verifier(
        database, _publics(conf), unsigned=args.unsigned)
    status = 0
    for project_id in ([args.project] if args.project
                       else list(verifier.projects())):
        try:
            verifier.verify(project_id)
        except verifying.AuditBroken as exc:
            _fail(f'nothing is deleted: {exc}')
            status = 1
            continue
        total = 0
        while count := _purge(journal, project_id, args.before):
            total += count
        print(f'Project {project_id}: {total} records were deleted.')
    return status


@db_api.retried
def _purge(journal, project_id, before):
    """Delete one batch; returns how many."""
    with journal.writer() as entry:
        checkpoint, count = audit.purge(
            entry.session, project_id, before, _BATCH, journal.sign)
        if count:
            entry.record('audit.purged', project_id, subject=project_id,
                         actor=_ACTOR, checkpoint=str(checkpoint),
                         count=count)
    return count


def _time(text):
    """A date or time as a record has it; without a zone it is UTC."""
    found = timeutils.normalize_time(datetime.datetime.fromisoformat(text))
    return found.strftime(chain.TIME_FORMAT)


def add_purge_arguments(parser):
    _add_project(parser)
    parser.add_argument(
        '--before', type=_time, required=True, metavar='TIME',
        help='only records from before this UTC date or time, 2026-11-24 or '
             '2026-11-24T12:00')
    parser.add_argument(
        '--unsigned', action='store_true',
        help='also of a chain whose head no key signed')
