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

"""Commands of nova-sev-attest-manage about the database."""

import sys

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.db import migration


def add_sync_arguments(parser):
    phase = parser.add_mutually_exclusive_group()
    phase.add_argument(
        '--expand', dest='step', action='store_const',
        const=migration.expand, default=migration.upgrade,
        help='only add what this release needs; processes of the release '
             'before go on working')
    phase.add_argument(
        '--contract', dest='step', action='store_const',
        const=migration.contract,
        help='only take away what the release before needed, when none of '
             'its processes runs any more')


def sync(conf, args):
    engine = db_api.Database(conf).engine
    try:
        args.step(engine)
    except migration.ExpandFirst as exc:
        print(f'nova-sev-attest-manage: {exc}', file=sys.stderr)
        return 1
    print(f'The database is at revision {migration.current(engine)}.')
    _, contracting = migration.pending(engine)
    if contracting:
        print('When no process of the release before runs any more, run '
              '"nova-sev-attest-manage db sync --contract".')
    return 0


def check(conf, args):
    engine = db_api.Database(conf).engine
    found = migration.current(engine)
    expanding, contracting = migration.pending(engine)
    if expanding:
        print(f'The database is at revision {found or "none"}, this release '
              f'needs {expanding[-1]}: run "nova-sev-attest-manage db sync '
              f'--expand".')
        return 1
    if contracting:
        print(f'The database is at revision {found}, which this release '
              f'works with; "nova-sev-attest-manage db sync --contract" is '
              f'still to be run.')
        return 0
    print(f'The database is at revision {found}, as this release needs.')
    return 0
