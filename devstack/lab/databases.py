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

"""The databases of the services, and a cached copy of them still empty.

Making the tables takes the services' own migrations most of a minute; a
dump of the result, kept for as long as the versions stay the same, is read
back in a few seconds.
"""

import concurrent.futures
import hashlib
from importlib import metadata
import os
import subprocess

import pymysql

from devstack.lab import chroot
from devstack.lab import credentials
from devstack.lab import errors
from devstack.lab import plugin
from devstack.lab import services

# In the dump. The key service's own database is migrated at each start: it
# is quick, and its migrations change while one works on them.
_NAMES = ('keystone', 'placement', 'glance', 'neutron', 'barbican',
          'nova_api', 'nova', 'nova_cell0')
_DISTRIBUTIONS = ('keystone', 'openstack-placement', 'glance', 'neutron',
                  'barbican', 'nova')
# Raised when what is done to the new databases below changes.
_RECIPE = 1
_SECONDS = 600


def make_files(layout):
    """Make MariaDB's own files unless they are there."""
    folder = layout.data / 'mariadb'
    if (folder / 'mysql').is_dir():
        return
    _run('mariadb-install-db', _in_root(
        layout, 'mariadb-install-db', '--no-defaults', '--user=root',
        f'--datadir={folder}', '--skip-test-db', '--skip-name-resolve',
        '--auth-root-authentication-method=socket'))


def bring_up_to_date(layout, say):
    """Give every service its tables.

    A lab that has them for these versions is left alone. A new one gets
    them from the cached dump, or from the migrations, of which a dump is
    then made.
    """
    key = _key()
    stamp = layout.data / 'databases.stamp'
    if stamp.exists() and stamp.read_text() == key:
        return
    dump = layout.cache / f'databases-{key}.sql'
    is_new = not stamp.exists()
    if is_new and dump.exists():
        say('restoring the databases')
        _restore(layout, dump)
    else:
        say('migrating the databases (about a minute)')
        _migrate(layout)
        if is_new:
            _dump(layout, dump)
    stamp.write_text(key)


def migrate_attestation(layout):
    """Give the key service its tables, and the keys that it needs."""
    _create(layout, ['attestation'])
    plugin.initialise(layout)


def _key():
    parts = [f'{name}=={metadata.version(name)}' for name in _DISTRIBUTIONS]
    text = '\n'.join([*parts, *_NAMES, str(_RECIPE)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _create(layout, names):
    with pymysql.connect(
            host='127.0.0.1', port=layout.port('mariadb'), user='lab',
            password=credentials.load(layout)['database']) as connection:
        with connection.cursor() as cursor:
            for name in names:
                cursor.execute(f'CREATE DATABASE IF NOT EXISTS `{name}`')


def _migrate(layout):
    _create(layout, _NAMES)
    nova = ('nova-manage', '--config-file', layout.etc / 'nova/nova.conf',
            '--config-file', layout.etc / 'nova/nova-db.conf')
    # The cells take their addresses and passwords from nova's own
    # configuration, so that the dump holds neither.
    here = '{scheme}://{username}:{password}@{hostname}:{port}/'
    chains = [
        [(*nova, 'api_db', 'sync'),
         (*nova, 'cell_v2', 'map_cell0', '--database_connection',
          f'{here}nova_cell0?{{query}}'),
         (*nova, 'db', 'sync'),
         (*nova, 'cell_v2', 'create_cell', '--name', 'cell1',
          '--database_connection', f'{here}{{path}}?{{query}}',
          '--transport-url', here)],
        [('neutron-db-manage', '--config-file',
          layout.etc / 'neutron/neutron.conf', 'upgrade', 'heads')],
        [('glance-manage', '--config-file',
          layout.etc / 'glance/glance-api.conf', 'db_sync')],
        [('keystone-manage', '--config-file',
          layout.etc / 'keystone/keystone.conf', 'db_sync')],
        [('barbican-manage', 'db', 'upgrade')],
        [('placement-manage', '--config-file',
          layout.etc / 'placement/placement.conf', 'db', 'sync')],
    ]

    def run(chain):
        for program, *arguments in chain:
            run_manage(layout, program, *arguments)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, chains))


def _dump(layout, path):
    fresh = path.with_suffix('.new')
    with fresh.open('wb') as out:
        _run('mariadb-dump', _client(
            layout, 'mariadb-dump', '--single-transaction',
            '--add-drop-database', '--databases', *_NAMES), stdout=out)
    fresh.replace(path)


def _restore(layout, path):
    with path.open('rb') as dump:
        _run('mariadb', _client(layout, 'mariadb'), stdin=dump)


def _client(layout, program, *arguments):
    return _in_root(
        layout, program,
        f'--defaults-file={layout.etc}/mariadb/mariadb.cnf', *arguments)


def _in_root(layout, *command):
    return chroot.command_line(layout.services_root, command,
                               binds=services.database_binds(layout))


def run_manage(layout, program, *arguments, environment=None):
    """Run one of the services' own administration commands.

    :raises StepFailed: with the end of what it said, when it fails.
    """
    _run(program, [layout.bin(program), *arguments],
         environment={'HOME': str(layout.etc / 'home'),
                      **(environment or {})})


def _run(name, command, *, environment=None, stdin=subprocess.DEVNULL,
         stdout=subprocess.PIPE):
    try:
        done = subprocess.run(
            [str(part) for part in command], stdin=stdin, stdout=stdout,
            stderr=subprocess.PIPE, timeout=_SECONDS,
            env={**os.environ, **(environment or {})})
    except subprocess.TimeoutExpired:
        raise errors.StepFailed(f'{name} did not end in {_SECONDS} seconds')
    if done.returncode:
        said = ((done.stdout or b'') + done.stderr).decode(errors='replace')
        last = '\n'.join(said.splitlines()[-20:])
        raise errors.StepFailed(
            f'{name} ended with {done.returncode}:\n{last}')
