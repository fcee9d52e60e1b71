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

"""nova-sev-attest-manage: what an operator does on the key service's host."""

import argparse
import datetime
import pathlib
import sys

from oslo_db import exception as db_exc
from oslo_log import log as logging
from oslo_utils import timeutils
from sqlalchemy import exc as sa_exc

from nova_sev_attest.cmd import audit
from nova_sev_attest.cmd import audit_key
from nova_sev_attest.cmd import database
from nova_sev_attest.cmd import sealing_key
from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.keyservice.audit import keys as audit_keys
from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.engine import expiring
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.keyservice import sealing
from nova_sev_attest.keyservice import service as keyservice
from nova_sev_attest.launch import errors as launch_errors
from nova_sev_attest.trust import files
from nova_sev_attest.trust import kds
from nova_sev_attest.trust import roots


# Launches that one transaction deletes.
_BATCH = 1000


def _launch_expire(conf, args):
    database = db_api.Database(conf)
    expirer = expiring.Expiring(database,
                                keyservice.make_journal(conf, database))
    count = 0
    while found := expirer.sweep():
        count += found
    print(f'{count} launches expired.')
    return 0


def _launch_purge(conf, args):
    before = timeutils.utcnow() - datetime.timedelta(days=args.days)
    journal = keyservice.make_journal(conf, db_api.Database(conf))
    total = 0
    while count := _purge_launches(journal, before):
        total += count
    print(f'The records of {total} launches were deleted.')
    return 0


@db_api.retried
def _purge_launches(journal, before):
    """Delete one batch; returns how many."""
    with journal.writer() as entry:
        purged = launches.purge(entry.session, before, _BATCH)
        for project_id, count in purged.items():
            entry.record('launch.purged', project_id, subject=project_id,
                         actor='nova-sev-attest-manage', count=count)
    return purged.total()


def _roots_fetch(conf, args):
    if conf.trust.amd_certificates is None:
        print('nova-sev-attest-manage: set [trust] amd_certificates to the '
              'folder for AMD\'s certificates first.', file=sys.stderr)
        return 1
    server = kds.HttpServer(
        args.url, proxy=conf.trust.key_server_proxy,
        ca_file=conf.trust.key_server_ca_file,
        timeout=conf.trust.key_server_timeout,
        deadline=conf.trust.key_server_deadline)
    folder = pathlib.Path(conf.trust.amd_certificates)
    for generation in args.generations or roots.GENERATIONS:
        data = roots.completed(kds.fetch_ask_ark(server, generation), folder)
        anchor = roots.pinned_anchor(generation, data, args.url)
        path = folder / f'ask_ark_{generation}.cert'
        files.write(path, data)
        print(f'{path}: the pinned certificates of {anchor.name}.')
    return 0


def _days(text):
    days = int(text)
    if not 0 <= days <= 36500:
        raise ValueError(text)
    return days


def _generation(text):
    if text not in roots.GENERATIONS:
        raise ValueError(text)
    return text


def _add_fetch_arguments(parser):
    parser.add_argument(
        '--url', default=kds.ROOT_SERVER,
        help='where the files are; default: %(default)s')
    parser.add_argument(
        'generations', nargs='*', type=_generation, metavar='GENERATION',
        help=f'{", ".join(roots.GENERATIONS)}; default: all')


def _add_purge_arguments(parser):
    parser.add_argument(
        '--days', type=_days, required=True,
        help='only those that last changed so long ago')


# Group -> (what it is about, {action: (help, function, what adds its
# arguments where it has some)}).
_COMMANDS = {
    'audit': ('The record of what the service decided', {
        'verify': ('Find records that were changed, removed, inserted or '
                   'reordered, and what was cut off or written anew since '
                   'heads were kept elsewhere. Status 0: the audit is whole, '
                   '1: it is not, 2: that could not be found out.',
                   audit.verify, audit.add_verify_arguments),
        'heads': ('Write the heads, to be kept elsewhere, as JSON lines.',
                  audit.heads, audit.add_heads_arguments),
        'show': ('Write records as JSON lines.', audit.show,
                 audit.add_show_arguments),
        'sign': ('Sign heads with the key that signs now, where the chain '
                 'is whole.', audit.sign, audit.add_sign_arguments),
        'purge': ('Delete old records of chains that are whole, and leave '
                  'signed checkpoints.', audit.purge,
                  audit.add_purge_arguments),
    }),
    'audit-key': ('Keys that sign the heads of the audit', {
        'create': ('Make a key, which signs from now on.', audit_key.create),
        'list': ('List the keys: which signs, which only verify.',
                 audit_key.show),
        'retire': ('Delete the private half of a key that another one '
                   'follows.', audit_key.retire,
                   audit_key.add_retire_arguments),
    }),
    'db': ('The database', {
        'sync': ('Create the tables or bring them up to date.',
                 database.sync, database.add_sync_arguments),
        'check': ('Tell whether the tables are up to date.', database.check),
    }),
    'sealing-key': ('Keys that seal the transport keys of open launches', {
        'create': ('Make the first key, and a staged one that will seal '
                   'next.', sealing_key.create),
        'rotate': ('Let the staged key seal from now on, and stage a new '
                   'one.', sealing_key.rotate),
        'list': ('List the keys: which seals, which only open.',
                 sealing_key.show),
        'purge': ('Delete old keys; refuses those that a launch may still '
                  'need.', sealing_key.purge,
                  sealing_key.add_purge_arguments),
    }),
    'amd-root': ('AMD\'s ASK and ARK certificates', {
        'fetch': ('Get them from AMD into [trust] amd_certificates; what '
                  'misses its pin is refused.', _roots_fetch,
                  _add_fetch_arguments),
    }),
    'launch': ('Launches', {
        'expire': ('Close open launches whose time is over and destroy '
                   'their keys; the service does so itself at each request.',
                   _launch_expire),
        'purge': ('Delete the records of launches that are over.',
                  _launch_purge, _add_purge_arguments),
    }),
}


def _parser():
    parser = argparse.ArgumentParser(
        prog='nova-sev-attest-manage', description=__doc__.partition(': ')[2])
    parser.add_argument(
        '--config-file', action='append', metavar='PATH',
        help='configuration file; may be given several times')
    groups = parser.add_subparsers(required=True, metavar='GROUP')
    for name, (text, commands) in _COMMANDS.items():
        group = groups.add_parser(name, help=text)
        actions = group.add_subparsers(required=True, metavar='ACTION')
        for action, (text, function, *arguments) in commands.items():
            found = actions.add_parser(action, help=text, description=text)
            found.set_defaults(function=function)
            for add in arguments:
                add(found)
    return parser


def main(argv=None):
    """Run a command; returns the exit status."""
    args = _parser().parse_args(argv)
    conf = conf_keyservice.load(config_files=args.config_file)
    # Standard output is for what was asked for.
    conf.set_default('use_stderr', True)
    logging.setup(conf, conf_keyservice.PROJECT)
    try:
        return args.function(conf, args)
    except (sealing.SealingError, audit_keys.AuditKeyError,
            chain.ChainError, launch_errors.LaunchError, OSError) as exc:
        print(f'nova-sev-attest-manage: {exc}', file=sys.stderr)
    except (db_exc.DBError, sa_exc.DBAPIError) as exc:
        cause = getattr(exc, 'inner_exception', exc)
        print(f'nova-sev-attest-manage: database: '
              f'{getattr(cause, "orig", cause)}', file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main())
