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

"""supervisord, the first process of the lab's namespace."""

import configparser
import contextlib
import http.client
import io
import pathlib
import shlex
import time
import xmlrpc.client

from supervisor import xmlrpc as supervisor_xmlrpc

from devstack.lab import credentials
from devstack.lab import errors
from devstack.lab import namespace

# Faults of supervisord's API that only say that nothing had to be done.
_ALREADY_STARTED = 60
_NOT_RUNNING = 70
_PROGRAM = pathlib.Path(__file__).with_name('supervise.py')
_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'


def write_configuration(layout, services):
    """Write supervisord's configuration: it starts nothing by itself."""
    config = configparser.RawConfigParser()
    config['unix_http_server'] = {
        'file': layout.supervisor_socket, 'chmod': '0700'}
    config['rpcinterface:supervisor'] = {
        'supervisor.rpcinterface_factory':
            'supervisor.rpcinterface:make_main_rpcinterface'}
    config['supervisord'] = {
        'nodaemon': 'true',
        'user': 'root',
        'logfile': layout.log / 'supervisord.log',
        'logfile_maxbytes': 0,
        'pidfile': layout.run_dir / 'supervisord.pid',
        'minfds': 4096,
    }
    for service in services:
        config[f'program:{service.name}'] = {
            'command': shlex.join(map(str, service.command)),
            'environment': ','.join(
                f'{name}="{value}"'
                for name, value in service.environment.items()),
            'directory': layout.lab_dir,
            'autostart': 'false',
            # A lab shows that something ended; it does not hide it.
            'autorestart': 'false',
            'startsecs': 0,
            'startretries': 0,
            'stopsignal': 'TERM',
            'stopwaitsecs': service.stop_seconds,
            'stopasgroup': str(service.stops_as_group).lower(),
            'killasgroup': 'true',
            'redirect_stderr': 'true',
            'stdout_logfile': layout.log / f'{service.name}.log',
            'stdout_logfile_maxbytes': 0,
        }
    text = io.StringIO()
    config.write(text)
    # supervisord expands %(names)s.
    credentials.write_private(
        _configuration(layout), text.getvalue().replace('%', '%%'))


def start(layout):
    """Start supervisord in a new namespace and wait until it answers."""
    layout.supervisor_socket.unlink(missing_ok=True)
    process = namespace.start(
        layout,
        [layout.bin('python'), '-P', _PROGRAM, '-c', _configuration(layout)],
        {'PATH': f'{layout.venv}/bin:{_PATH}', 'LANG': 'C.UTF-8',
         'HOME': str(layout.etc / 'home'),
         # Threads otherwise keep an arena each: half of the memory.
         'MALLOC_ARENA_MAX': '2'})
    deadline = time.monotonic() + 20
    while not answers(layout):
        if process.poll() is not None or time.monotonic() > deadline:
            log = layout.log / 'namespace.log'
            raise errors.StepFailed(
                f'supervisord did not start; the end of {log}:\n'
                f'{tail(log)}')
        time.sleep(0.05)


def answers(layout):
    """Whether supervisord is there."""
    try:
        _call(layout, 'getState')
    except (OSError, http.client.HTTPException):
        return False
    return True


def start_service(layout, name):
    """Start a service; nothing happens when it runs already."""
    with _allowing(_ALREADY_STARTED):
        _call(layout, 'startProcess', name, False)


def stop_service(layout, name):
    """Stop a service, by SIGKILL after its stop time; it may be stopped."""
    with _allowing(_NOT_RUNNING):
        _call(layout, 'stopProcess', name, True)


def states(layout):
    """What supervisord knows of each service, by name.

    Among it ``statename`` and ``pid``, which is the one inside the namespace.
    """
    return {info['name']: info
            for info in _call(layout, 'getAllProcessInfo')}


def reload(layout):
    """Take over services that are new or changed in the configuration.

    What runs already and was changed keeps running as it is.
    """
    added, _changed, _removed = _call(layout, 'reloadConfig')[0]
    for name in added:
        _call(layout, 'addProcessGroup', name)


def tail(path, lines=25):
    """The last lines of a log."""
    try:
        text = path.read_text(errors='replace')
    except FileNotFoundError:
        return '(there is no such file)'
    return '\n'.join(text.splitlines()[-lines:])


def _configuration(layout):
    return layout.etc / 'supervisord.conf'


def _call(layout, method, *arguments):
    transport = supervisor_xmlrpc.SupervisorTransport(
        serverurl=f'unix://{layout.supervisor_socket}')
    with xmlrpc.client.ServerProxy('http://127.0.0.1', transport) as proxy:
        return getattr(proxy.supervisor, method)(*arguments)


@contextlib.contextmanager
def _allowing(code):
    try:
        yield
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != code:
            raise errors.StepFailed(f'supervisord: {fault.faultString}')
