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

"""Everything that a key service under load needs, on loopback.

Started by start(), stopped by its process id at the end; whatever it writes
is in one temporary folder.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from benchmarks.keyservice import broker
from devstack.lab import database_servers
from devstack.lab import layout as lab_layout
from nova_sev_attest.emulator import platform as emulated_platform

_READY_SECONDS = 180
_STOP_SECONDS = 60
_TICKS = os.sysconf('SC_CLK_TCK')
_BIN = pathlib.Path(sys.executable).parent

_CREDENTIAL = """
auth_type = password
auth_url = {cloud}/v3
www_authenticate_uri = {cloud}/v3
username = {user}
password = none
project_name = service
user_domain_name = Default
project_domain_name = Default
"""
_CONFIG = """
[DEFAULT]
use_stderr = true
[database]
connection = {database}
max_pool_size = {threads}
[keystone_authtoken]
{credential}
[nova]
{credential}
[barbican]
{credential}
[sealing]
key_repository = {folder}/sealing-keys
[audit]
key_repository = {folder}/audit-keys
[trust]
extra_anchors = emulated={folder}/platform/ask_ark.cert
[launches]
expiry = {expiry}
host_credentials = shared
[secret_store]
deadline = 10
"""
_BARBICAN = """
[DEFAULT]
host_href = {cloud}
db_auto_create = false
[database]
connection = sqlite:///{folder}/barbican.sqlite
[secretstore]
enabled_secretstore_plugins = store_crypto
[crypto]
enabled_crypto_plugins = simple_crypto
[simple_crypto_plugin]
kek = MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
[keystone_authtoken]
{credential}
"""


class Process:
    """A server on loopback, ready when it answers GET path."""

    def __init__(self, name, folder, command, port, path, environment=None):
        self.name = name
        self.port = port
        self.log = folder / f'{name}.log'
        self._command = [str(part) for part in command]
        self._path = path
        self._environment = os.environ | {
            name: str(value) for name, value in (environment or {}).items()}
        self._process = None
        self.start()

    @property
    def url(self):
        return f'http://127.0.0.1:{self.port}'

    @property
    def pid(self):
        return self._process.pid

    def start(self):
        with self.log.open('ab') as log:
            self._process = subprocess.Popen(
                self._command, cwd=lab_layout.CHECKOUT, stdout=log,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=self._environment)

    def wait_until_ready(self):
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            if (self._process.poll() is not None
                    or time.monotonic() > deadline):
                raise RuntimeError(f'{self.name} is not ready:\n'
                                   + self.log.read_text()[-3000:])
            time.sleep(0.2)

    def _answers(self):
        try:
            urllib.request.urlopen(self.url + self._path, timeout=5).close()
        except urllib.error.HTTPError as answer:
            return answer.code < 500
        except OSError:
            return False
        return True

    def children(self):
        return _children(self.pid)

    def stop(self):
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)


class Surroundings:
    """A key service with all that it talks to.

    :param options: of the command line
    :ivar nodes: Process of each node of the key service
    :ivar database: URL
    :ivar server: the database's Server, None with SQLite
    :ivar broker: Broker of the notifications, None where none are sent
    :ivar platform: the emulated platform of all hosts
    """

    def __init__(self, options, folder, stack):
        self.options = options
        self.folder = folder
        say = options.say
        self.platform = emulated_platform.open_platform(folder / 'platform')
        self.server = None
        if options.database == 'sqlite':
            self.database = f'sqlite:///{folder}/keyservice.sqlite'
        else:
            kind = {'mysql': 'mariadb'}.get(options.database,
                                            options.database)
            say(f'starting {kind}')
            self.server = database_servers.serve(kind, durable=True, say=say)
            stack.callback(self.server.remove)
            self.database = self.server.create_database('attestation')
        cloud_port, barbican_port = free_port(), free_port()
        self.barbican = None
        relay = []
        if options.barbican:
            relay = ['--barbican', f'http://127.0.0.1:{barbican_port}']
        self.cloud = self._started(stack, Process(
            'cloud', folder, [sys.executable, '-m',
                              'benchmarks.keyservice.cloud', '--port',
                              cloud_port, *relay], cloud_port, '/v3'))
        if options.barbican:
            say('starting Barbican')
            self.barbican = self._started(
                stack, self._start_barbican(barbican_port))
        self.broker = None
        if 'rabbitmq' in options.faults:
            say('starting RabbitMQ')
            self.broker = broker.Broker(say)
            stack.callback(self.broker.stop)
        self.config = self._write_config()
        say('making tables and keys')
        self.manage('db', 'sync')
        self.manage('sealing-key', 'create')
        say(f'starting the key service with {options.workers} workers')
        skewed = options.skew and options.nodes > 1
        self.nodes = [
            self._started(stack, self._start_node(
                number, options.skew if skewed and number else 0))
            for number in range(options.nodes)]

    def _started(self, stack, process):
        stack.callback(process.stop)
        process.wait_until_ready()
        return process

    def _start_barbican(self, port):
        home = self.folder / 'home'
        (home / '.barbican').mkdir(parents=True)
        (home / '.barbican' / 'barbican.conf').write_text(_BARBICAN.format(
            cloud=self.cloud.url, folder=self.folder,
            credential=_CREDENTIAL.format(cloud=self.cloud.url,
                                          user='barbican')))
        environment = {'HOME': str(home)}
        self._run(_BIN / 'barbican-manage', 'db', 'upgrade',
                  environment=environment)
        return Process(
            'barbican', self.folder,
            [sys.executable, '-P',
             lab_layout.CHECKOUT / 'devstack/lab/wsgi.py',
             f'paste:{_BIN.parent}/etc/barbican/barbican-api-paste.ini',
             '--port', port], port, '/', environment)

    def _write_config(self):
        path = self.folder / 'nova-sev-attest.conf'
        path.write_text(_CONFIG.format(
            database=self.database, folder=self.folder,
            threads=self.options.threads, expiry=self.options.expiry,
            credential=_CREDENTIAL.format(cloud=self.cloud.url,
                                          user='attestation')
        ) + (self.broker.config if self.broker else '')
            + self.options.config)
        return path

    def _start_node(self, number, skew):
        port = free_port()
        workers = self.options.workers // self.options.nodes
        environment = {
            'NOVA_SEV_ATTEST_CONFIG_FILE': self.config,
            'NOVA_SEV_ATTEST_LISTEN': f'127.0.0.1:{port}',
            'NOVA_SEV_ATTEST_WORKERS': workers,
            'NOVA_SEV_ATTEST_THREADS': self.options.threads,
        }
        more = []
        if skew:
            environment['NOVA_SEV_ATTEST_BENCHMARK_SKEW'] = skew
            more = ['--module', 'benchmarks.keyservice.skewed:application',
                    '--pythonpath', lab_layout.CHECKOUT]
        return Process(
            f'keyservice-{number}', self.folder,
            [_BIN / 'uwsgi', '--ini',
             lab_layout.CHECKOUT / 'etc/nova-sev-attest/uwsgi.ini', *more],
            port, '/healthcheck', environment)

    def manage(self, *arguments):
        """Run nova-sev-attest-manage; returns what it says."""
        return self._run(sys.executable, '-m', 'nova_sev_attest.cmd.manage',
                         '--config-file', self.config, *arguments)

    def _run(self, *command, environment=None):
        done = subprocess.run(
            [str(part) for part in command], cwd=lab_layout.CHECKOUT,
            capture_output=True, text=True, timeout=_READY_SECONDS,
            env=os.environ | (environment or {}))
        if done.returncode:
            raise RuntimeError(f'{command} failed:\n{done.stdout}'
                               f'{done.stderr}')
        return done.stdout

    def cpu_seconds(self):
        """{part: seconds of CPU that its processes have used so far}."""
        parts = {'cloud': [self.cloud.pid],
                 'service': [node.pid for node in self.nodes],
                 'barbican': [self.barbican.pid] if self.barbican else [],
                 'database': self.server.pids[:1] if self.server else []}
        return {'client': time.process_time()} | {
            name: sum(map(_cpu, pids)) for name, pids in parts.items()}


@contextlib.contextmanager
def start(options):
    """Context manager that gives Surroundings."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(
            tempfile.TemporaryDirectory(prefix='sev-attest-load-')))
        if options.logs:
            stack.callback(_keep_logs, folder, pathlib.Path(options.logs))
        yield Surroundings(options, folder, stack)


def _keep_logs(folder, kept):
    kept.mkdir(parents=True, exist_ok=True)
    for path in folder.glob('*.log'):
        shutil.copy(path, kept)


def free_port():
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


def _children(pid):
    path = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
    return [int(child) for child in path.read_text().split()]


def _cpu(pid):
    """Seconds of CPU of a process, those below it and those that ended."""
    try:
        text = pathlib.Path(f'/proc/{pid}/stat').read_text()
        below = _children(pid)
    except FileNotFoundError:
        return 0.0
    fields = text.rpartition(')')[2].split()
    return sum(map(int, fields[11:15])) / _TICKS + sum(map(_cpu, below))
