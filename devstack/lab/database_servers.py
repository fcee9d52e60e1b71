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

"""Database servers of their own, for tests and benchmarks of the key service.

PostgreSQL and MariaDB as Debian packages them, unpacked below a cache folder,
on a loopback port, with their data in a folder that goes with them. The lab's
own MariaDB is one of its services and has nothing to do with these.
"""

import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psycopg2
import pymysql

from devstack.lab import chroot
from devstack.lab import debroot
from devstack.lab import errors
from devstack.lab import layout as lab_layout

_ESSENTIAL = ('base-files', 'coreutils', 'dash', 'grep', 'hostname',
              'libc-bin', 'sed', 'util-linux')
_READY_SECONDS = 60
_STOP_SECONDS = 30
_USER = 'attestation'
# Where a server sees its data, whatever folder it is outside.
_DATA = '/srv/data'


class Server:
    """One database server: made, started, stopped, and started again.

    :param roots: folder below which the unpacked tree is kept.
    :param cache: folder of downloaded packages.
    :param durable: whether a commit waits for the disk, as in production.
    :ivar port: of 127.0.0.1; the same after a restart.
    """

    kind = None
    packages = ()
    users = {}
    stop_signal = signal.SIGTERM

    def __init__(self, roots, cache, durable=False, say=print):
        self._root = pathlib.Path(roots) / self.kind
        debroot.build(self._root, [*_ESSENTIAL, *self.packages], cache=cache,
                      users=self.users, say=say)
        self._durable = durable
        self._password = secrets.token_urlsafe(18)
        self._process = None
        self.port = _free_port()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='sev-attest-db-'))
        self._data = self.folder / 'data'
        self._data.mkdir()
        self._make()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.remove()

    @property
    def url(self):
        """URL of the server, for SQLAlchemy; its user may make databases."""
        raise NotImplementedError

    def create_database(self, name):
        """Make a database; returns its URL."""
        raise NotImplementedError

    @property
    def pids(self):
        """Process ids of the server, the parent first."""
        return [self._process.pid, *_children(self._process.pid)]

    def start(self):
        """Start the server and wait until it lets its user in.

        :raises StepFailed: it ends, or takes longer than a minute.
        """
        with (self.folder / 'log').open('ab') as log:
            self._process = subprocess.Popen(
                self._inside(*self._command()), stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + _READY_SECONDS
        while (missing := self._ask()) is not None:
            if (self._process.poll() is not None
                    or time.monotonic() > deadline):
                raise errors.StepFailed(
                    f'{self.kind} is not ready ({missing}); its log:\n'
                    f'{(self.folder / "log").read_text(errors="replace")}')
            time.sleep(0.1)

    def stop(self, signum=None):
        """Stop the server; SIGKILL, where given, is what it gets."""
        if self._process is None:
            return
        children = _children(self._process.pid)
        self._process.send_signal(signum or self.stop_signal)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        self._process = None
        _wait_for_end(children)

    def remove(self):
        """Stop the server and delete its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make(self):
        raise NotImplementedError

    def _command(self):
        raise NotImplementedError

    def _ask(self):
        raise NotImplementedError

    def _inside(self, *command):
        return chroot.command_line(self._root, command,
                                   binds=[f'{self._data}:{_DATA}'])

    def _run(self, *command):
        done = subprocess.run(
            self._inside(*command), capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=_READY_SECONDS)
        if done.returncode:
            raise errors.StepFailed(
                f'{command[0]} failed:\n{done.stdout}{done.stderr}')


class PostgreSql(Server):
    """PostgreSQL, as a user of its own: it refuses to run as root."""

    kind = 'postgresql'
    packages = ('postgresql-17',)
    users = {'postgres': 120}
    # Sessions are ended; the default waits for them.
    stop_signal = signal.SIGINT

    _BIN = '/usr/lib/postgresql/17/bin'

    @property
    def url(self):
        return (f'postgresql+psycopg2://{_USER}:{self._password}'
                f'@127.0.0.1:{self.port}/postgres')

    def create_database(self, name):
        connection = self._connect()
        # No transaction: a database is not made in one.
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE {name}')
        connection.close()
        return self.url.rpartition('/')[0] + '/' + name

    def _connect(self):
        return psycopg2.connect(
            host='127.0.0.1', port=self.port, user=_USER,
            password=self._password, dbname='postgres', connect_timeout=5)

    def _as_user(self, program, *arguments):
        number = str(self.users['postgres'])
        return ('setpriv', f'--reuid={number}', f'--regid={number}',
                '--clear-groups', f'{self._BIN}/{program}', *arguments)

    def _make(self):
        password = self._data / 'password'
        password.write_text(self._password)
        cluster = self._data / 'cluster'
        cluster.mkdir(mode=0o700)
        for path in (self._data, password, cluster):
            os.chown(path, *2 * (self.users['postgres'],))
        password.chmod(0o600)
        self._run(*self._as_user(
            'initdb', '--pgdata', f'{_DATA}/cluster', '--username', _USER,
            '--pwfile', f'{_DATA}/password', '--auth=scram-sha-256',
            '--encoding=UTF8', '--locale-provider=builtin',
            '--locale=C.UTF-8', '--no-sync'))
        password.unlink()

    def _command(self):
        settings = {
            'listen_addresses': '127.0.0.1', 'port': self.port,
            'unix_socket_directories': '', 'max_connections': 200,
            'shared_buffers': '256MB', 'fsync': self._durable,
            'synchronous_commit': self._durable}
        return self._as_user(
            'postgres', '-D', f'{_DATA}/cluster',
            *(part for name, value in settings.items()
              for part in ('-c', f'{name}={_word(value)}')))

    def _ask(self):
        try:
            self._connect().close()
        except psycopg2.Error as error:
            return str(error).strip()
        return None


class MariaDb(Server):
    """MariaDB."""

    kind = 'mariadb'
    packages = ('mariadb-server',)

    @property
    def url(self):
        return (f'mysql+pymysql://{_USER}:{self._password}'
                f'@127.0.0.1:{self.port}/mysql?charset=utf8mb4')

    def create_database(self, name):
        with self._connect() as connection:
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE {name}')
        return self.url.replace('/mysql?', f'/{name}?')

    def _connect(self):
        return pymysql.connect(
            host='127.0.0.1', port=self.port, user=_USER,
            password=self._password, connect_timeout=5, read_timeout=10)

    def _make(self):
        self._run('mariadb-install-db', '--no-defaults', '--user=root',
                  f'--datadir={_DATA}/files', '--skip-test-db',
                  '--skip-name-resolve',
                  '--auth-root-authentication-method=socket')
        user = f"'{_USER}'@'127.0.0.1'"
        init = self._data / 'init.sql'
        init.touch(mode=0o600)
        init.write_text(
            f"CREATE OR REPLACE USER {user} IDENTIFIED BY "
            f"'{self._password}';\n"
            f'GRANT ALL PRIVILEGES ON *.* TO {user};\n')

    def _command(self):
        return (
            'mariadbd', '--no-defaults', '--user=root',
            f'--datadir={_DATA}/files', f'--socket={_DATA}/socket',
            f'--pid-file={_DATA}/pid', f'--init-file={_DATA}/init.sql',
            '--bind-address=127.0.0.1', f'--port={self.port}',
            '--skip-name-resolve', '--skip-log-bin',
            '--character-set-server=utf8mb4', '--max-connections=200',
            '--innodb-buffer-pool-size=256M',
            '--innodb-use-native-aio=0',
            f'--innodb-flush-log-at-trx-commit={1 if self._durable else 2}',
            f'--innodb-flush-method='
            f'{"fsync" if self._durable else "nosync"}')

    def _ask(self):
        try:
            self._connect().close()
        except (pymysql.err.Error, OSError) as error:
            return str(error)
        return None


KINDS = {cls.kind: cls for cls in (PostgreSql, MariaDb)}


def serve(kind, durable=False, say=print):
    """A running server of a kind, unpacked where the lab unpacks its own.

    :param kind: ``postgresql`` or ``mariadb``
    :raises StepFailed: packages cannot be had, or it does not start.
    """
    layout = lab_layout.Layout.from_environment()
    try:
        return KINDS[kind](layout.lab_dir / 'roots', layout.cache, durable,
                           say)
    except debroot.DebRootError as error:
        raise errors.StepFailed(str(error)) from error


def _word(value):
    return ('on' if value else 'off') if isinstance(value, bool) else value


def _free_port():
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


def _children(pid):
    try:
        text = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text()
    except FileNotFoundError:
        return []
    return [int(child) for child in text.split()]


def _wait_for_end(pids):
    """Helpers of a killed server end by themselves, shortly after it."""
    deadline = time.monotonic() + _STOP_SECONDS
    while any(pathlib.Path(f'/proc/{pid}').exists() for pid in pids):
        if time.monotonic() > deadline:
            raise errors.StepFailed(f'processes {pids} do not end')
        time.sleep(0.05)
