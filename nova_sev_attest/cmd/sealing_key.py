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

"""nova-sev-attest-manage sealing-key: the keys of launches in flight."""

import datetime
import sys

from oslo_utils import timeutils

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.keyservice import sealing

_WHAT = {
    sealing.PRIMARY: 'seals and opens',
    sealing.OLD: 'opens',
    sealing.STAGED: 'opens; will seal after the next "rotate"',
}


def _repository(conf):
    return sealing.KeyRepository(conf.sealing.key_repository)


def create(conf, args):
    """Make a primary and a staged key where they are missing."""
    repository = _repository(conf)
    made = repository.create()
    states = {key.id: key.state for key in repository.keys()}
    for key_id in made:
        print(f'Sealing key {key_id} made: {_WHAT[states[key_id]]}.')
    if made:
        print(f'Copy {repository.path} to every node of the service.')
    else:
        print('There is a primary key and a staged one; nothing to make.')
    return 0


def rotate(conf, args):
    """Let the staged key seal, and stage the next one."""
    repository = _repository(conf)
    primary, staged = repository.rotate()
    print(f'Sealing key {primary} seals from now on; {staged} is staged. '
          f'Copy {repository.path} to every node of the service, and rotate '
          f'nowhere until that is done.')
    return 0


def show(conf, args):
    """List the keys."""
    for key in _repository(conf).keys():
        began = 'made' if key.state == sealing.STAGED else 'seals since'
        print(f'{key.id}  {key.state:7}  {began} '
              f'{key.since:%Y-%m-%d %H:%M:%S} UTC; {_WHAT[key.state]}')
    return 0


def purge(conf, args):
    """Delete old keys that no launch needs or can come to need."""
    repository = _repository(conf)
    keys = repository.keys()
    reasons = _reasons_to_keep(conf, keys)
    chosen = args.key or [key.id for key in keys
                          if key.state == sealing.OLD]
    unknown = sorted(set(chosen) - set(reasons))
    if unknown:
        print(f'nova-sev-attest-manage: there is no sealing key '
              f'{unknown[0]} in {repository.path}', file=sys.stderr)
        return 1
    kept = [key_id for key_id in chosen if reasons[key_id]]
    for key_id in kept:
        print(f'Sealing key {key_id} is kept: {reasons[key_id]}.',
              file=sys.stderr if args.key else sys.stdout)
    if args.key and kept:
        return 1
    for key_id in chosen:
        if key_id not in kept:
            repository.delete(key_id)
            print(f'Sealing key {key_id} deleted. Delete it on the other '
                  f'nodes of the service, too.')
    return 0


def add_purge_arguments(parser):
    parser.add_argument(
        'key', nargs='*', metavar='KEY',
        help='ids of the keys to delete; default: all that may be')


def _reasons_to_keep(conf, keys):
    """{key id: why it cannot be deleted, or None}."""
    needed = set()
    if any(key.state == sealing.OLD for key in keys):
        with db_api.Database(conf).reader() as session:
            needed = launches.sealing_keys_in_use(session)
    life = datetime.timedelta(
        seconds=conf_keyservice.longest_launch(conf))
    now = timeutils.utcnow()
    reasons = {}
    for position, key in enumerate(keys):
        # An old key is followed by the one that took its place.
        following = keys[min(position + 1, len(keys) - 1)]
        if key.state != sealing.OLD:
            reasons[key.id] = f'it is the {key.state} key'
        elif key.id in needed:
            reasons[key.id] = ('an open launch is sealed under it; it will '
                               'be over when it ends or expires')
        elif now - following.since < life:
            reasons[key.id] = (
                f'it was primary until {following.since:%Y-%m-%d %H:%M:%S} '
                f'UTC, less than the {life.total_seconds():g} s ago that a '
                f'launch can last')
        else:
            reasons[key.id] = None
    return reasons
