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

"""The phases of devstack's plugin, run by bash as stack.sh runs them."""

import configparser
import http.server
import os
import pathlib
import shlex
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
DEVSTACK = CHECKOUT / 'devstack'
SCRIPT = '''\
set -e
source "$1/lab/functions.sh"
source "$1/settings"
source "$1/plugin.sh" "$2" "$3"
printf 'after\\tplugin.sh\\n' >>"$STANDIN_CALLS"
'''
CONTROLLER = 'key,n-api,n-cpu,barbican,attestation-rpc'


class Stack:
    """A machine on which devstack would run, in a folder."""

    def __init__(self, folder, services, **variables):
        self.folder = folder
        self.calls_file = folder / 'calls'
        self.nova_conf = folder / 'nova.conf'
        self.nova_conf.write_text(
            '[DEFAULT]\ncompute_driver = libvirt.LibvirtDriver\n'
            '[libvirt]\nvirt_type = kvm\n')
        self.conf = folder / 'etc' / 'nova-sev-attest.conf'
        self.environment = {
            'PATH': os.environ['PATH'],
            'HOME': str(folder),
            'STANDIN_CALLS': str(self.calls_file),
            'ENABLED_SERVICES': services,
            'PYTHON': sys.executable,
            'DEST': str(folder / 'dest'),
            'DATA_DIR': str(folder / 'data'),
            'DATABASE_URL': f'sqlite:///{folder}/%s.sqlite',
            'SERVICE_PASSWORD': 'service-password',
            'TRANSPORT_URL': 'rabbit://stackrabbit:word@127.0.0.1/',
            'NOVA_CONF': str(self.nova_conf),
            'NOVA_CPU_CONF': str(folder / 'nova-cpu.conf'),
            'NOVA_STATE_PATH': str(folder / 'data' / 'nova'),
            'ATTESTATION_DIR': str(CHECKOUT),
            'ATTESTATION_CONF_DIR': str(folder / 'etc'),
            'ATTESTATION_RUN_DIR': str(folder / 'run'),
            'ATTESTATION_DROP_IN': str(folder / 'units' / 'sev.conf'),
            'ATTESTATION_HOST_NAME': 'host-1',
            'ATTESTATION_FETCH_ROOTS': 'False',
        } | variables

    def run(self, mode, phase=''):
        """Run a phase; returns (status, output, list of calls)."""
        self.calls_file.write_text('')
        done = subprocess.run(
            ['bash', '-c', SCRIPT, 'stack.sh', DEVSTACK, mode, phase],
            env=self.environment, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
        return done.returncode, done.stdout, [
            line.split('\t')
            for line in self.calls_file.read_text().splitlines()]

    def phase(self, mode, phase=''):
        """Run a phase that must go well; returns the calls."""
        status, output, calls = self.run(mode, phase)
        assert status == 0, output
        assert calls.pop() == ['after', 'plugin.sh']
        return calls


def read(path):
    parser = configparser.RawConfigParser(strict=True, default_section='')
    assert parser.read(path) == [str(path)]
    return parser


def named(calls, function):
    return [call[1:] for call in calls if call[0] == function]


@pytest.fixture
def controller(tmp_path):
    """One node for all, with SEV of its own."""
    return Stack(tmp_path, CONTROLLER)


@pytest.fixture
def emulated(tmp_path):
    """One node for all, whose emulated platform "has started"."""
    (tmp_path / 'run' / 'sev').mkdir(parents=True)
    (tmp_path / 'run' / 'sev' / 'platform.sock').touch()
    return Stack(tmp_path, CONTROLLER, ATTESTATION_PLATFORM='emulated')


def test_install_is_not_in_place(controller):
    calls = controller.phase('stack', 'install')
    assert named(calls, 'setup_install') == [
        [str(CHECKOUT), 'keyservice,postgresql']]
    assert named(calls, 'pip_install') == [['pyuwsgi']]
    assert not (controller.folder / 'data').exists()


def test_a_compute_node_gets_no_key_service(tmp_path):
    stack = Stack(tmp_path, 'n-cpu')
    stack.environment['ENABLED_SERVICES'] = 'n-cpu'
    # local.conf of a compute node says disable_service attestation-api,
    # which stack.sh carries out after the settings.
    global_script = SCRIPT.replace(
        'source "$1/plugin.sh"',
        'ENABLED_SERVICES=n-cpu; source "$1/plugin.sh"')
    for phase in ('install', 'post-config', 'extra'):
        subprocess.run(
            ['bash', '-c', global_script, 'stack.sh', DEVSTACK, 'stack',
             phase], env=stack.environment, check=True, timeout=60)
    calls = [line.split('\t')
             for line in stack.calls_file.read_text().splitlines()]
    assert named(calls, 'setup_install') == [[str(CHECKOUT), '']]
    assert not stack.conf.exists()
    assert read(stack.nova_conf)['DEFAULT']['compute_driver'] == (
        'sev_attest.LibvirtDriver')
    assert named(calls, 'get_or_create_user') == [
        ['nova-sev-attest-host-1', 'service-password', 'Default']]
    assert not named(calls, 'get_or_create_endpoint')
    assert not named(calls, 'run_process')


def test_configuration_of_the_driver(controller):
    controller.phase('stack', 'post-config')
    conf = read(controller.nova_conf)
    assert conf['DEFAULT']['compute_driver'] == 'sev_attest.LibvirtDriver'
    assert conf['libvirt']['virt_type'] == 'kvm'
    assert dict(conf['sev_attest']) == {
        'mode': 'required', 'transport': 'http', 'auth_type': 'password',
        'auth_url': 'http://127.0.0.1/identity',
        'username': 'nova-sev-attest-host-1',
        'password': 'service-password', 'project_name': 'service',
        'user_domain_name': 'Default', 'project_domain_name': 'Default',
        'region_name': 'RegionOne'}
    assert not (controller.folder / 'units').exists()


def test_configuration_of_the_key_service(controller):
    controller.phase('stack', 'post-config')
    assert controller.conf.stat().st_mode & 0o777 == 0o600
    conf = read(controller.conf)
    assert conf['database']['connection'].endswith('/attestation.sqlite')
    assert conf['DEFAULT']['transport_url'] == (
        'rabbit://stackrabbit:word@127.0.0.1/')
    for section in ('keystone_authtoken', 'nova', 'barbican'):
        assert conf[section]['username'] == 'attestation'
        assert conf[section]['password'] == 'service-password'
    folder = controller.folder / 'etc'
    assert dict(conf['trust']) == {'amd_certificates': str(folder / 'amd')}
    # Made for real, by nova-sev-attest-manage.
    assert (controller.folder / 'attestation.sqlite').stat().st_size
    assert len(list((folder / 'sealing-keys').iterdir())) == 2
    assert list((folder / 'audit-keys').iterdir())


def test_notifications(tmp_path):
    stack = Stack(tmp_path, 'key,attestation-api')
    stack.phase('stack', 'post-config')
    assert 'oslo_messaging_notifications' not in read(stack.conf)
    stack.environment['ATTESTATION_NOTIFICATIONS'] = 'True'
    stack.phase('stack', 'post-config')
    assert dict(read(stack.conf)['oslo_messaging_notifications']) == {
        'driver': 'messagingv2',
        'transport_url': 'rabbit://stackrabbit:word@127.0.0.1/'}


def test_roots_that_cannot_be_had_stop_devstack(controller):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args):
            """Quiet."""

    asked = []
    server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    controller.environment |= {
        'ATTESTATION_FETCH_ROOTS': 'True',
        'ATTESTATION_ROOTS_URL': f'http://127.0.0.1:{server.server_port}'}
    try:
        status, output, _calls = controller.run('stack', 'post-config')
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert status == 1
    assert asked[0] == '/ask_ark_naples.cert'
    assert 'nova-sev-attest-manage: ' in output


def test_again_keeps_the_keys(controller):
    controller.phase('stack', 'post-config')
    folders = [controller.folder / 'etc' / name
               for name in ('sealing-keys', 'audit-keys')]
    before = [sorted(folder.iterdir()) for folder in folders]
    controller.phase('stack', 'post-config')
    assert [sorted(folder.iterdir()) for folder in folders] == before


def test_accounts_and_endpoint(controller):
    calls = controller.phase('stack', 'post-config')
    assert sorted(named(calls, 'get_or_create_user')) == [
        ['attestation', 'service-password', 'Default'],
        ['nova-sev-attest-host-1', 'service-password', 'Default']]
    assert sorted(call[:3] for call in
                  named(calls, 'get_or_add_user_project_role')) == [
        ['admin', 'attestation', 'service'],
        ['service', 'attestation', 'service'],
        ['service', 'nova-sev-attest-host-1', 'service']]
    url = 'http://127.0.0.1:8960'
    assert named(calls, 'get_or_create_service') == [
        ['nova-sev-attest', 'attestation', 'Launch attestation']]
    assert named(calls, 'get_or_create_endpoint') == [
        ['nova-sev-attest', 'RegionOne', url, url, url]]


def test_the_emulated_platform(emulated):
    calls = emulated.phase('stack', 'post-config')
    conf = read(emulated.nova_conf)
    assert conf['libvirt']['virt_type'] == 'qemu'
    assert conf['libvirt']['connection_uri'] == (
        f'qemu+unix:///system?socket={emulated.folder}/run/libvirt/'
        f'libvirt-sock')
    root = emulated.folder / 'data/nova-sev-attest/platform/ask_ark.cert'
    assert read(emulated.conf)['trust']['extra_anchors'] == (
        f'emulated={root}')
    started = named(calls, 'run_process')
    assert [call[0] for call in started] == [
        'attestation-platform', 'attestation-libvirt']
    for name, command, group, user in started:
        assert (group, user) == ('', 'root')
        tool = shlex.split(command)[1:]
        # Its own options are accepted: it gets as far as the missing root.
        done = subprocess.run(
            [sys.executable, *tool], capture_output=True, text=True,
            timeout=60)
        assert 'usage:' not in done.stderr, done.stderr
    unit = (emulated.folder / 'units' / 'sev.conf').read_text()
    assert unit.splitlines()[:2] == ['[Service]', 'ExecStart=']
    assert f'--config-file {emulated.folder}/nova-cpu.conf' in unit


def test_an_emulated_platform_that_does_not_start_stops_devstack(tmp_path):
    stack = Stack(tmp_path, CONTROLLER, ATTESTATION_PLATFORM='emulated',
                  ATTESTATION_PLATFORM_TIMEOUT='1')
    status, output, _calls = stack.run('stack', 'post-config')
    assert status == 1
    assert 'the emulated platform did not start' in output


def test_an_unknown_platform_is_refused(tmp_path):
    stack = Stack(tmp_path, CONTROLLER, ATTESTATION_PLATFORM='emulatd')
    status, output, _calls = stack.run('stack', 'post-config')
    assert status == 1
    assert "'emulatd', not 'host' or 'emulated'" in output


def test_the_key_service_answers(controller):
    """The commands that systemd would be given start the service."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    controller.environment['ATTESTATION_SERVICE_PORT'] = str(port)
    controller.phase('stack', 'post-config')
    calls = controller.phase('stack', 'extra')
    assert [call[0] for call in named(calls, 'run_process')] == [
        'attestation-api', 'attestation-rpc']
    assert named(calls, 'wait_for_service') == [
        ['60', f'http://127.0.0.1:{port}/healthcheck']]
    _name, command, _group, _user, variables = named(
        calls, 'run_process')[0]
    with subprocess.Popen(
            shlex.split(command), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | dict(
                (part.split('=', 1) for part in variables.split()),
                # An answer says that one has loaded; none hears SIGTERM
                # before (uwsgi.ini).
                NOVA_SEV_ATTEST_WORKERS='1')) as service:
        try:
            assert _answer(f'http://127.0.0.1:{port}/healthcheck') == 200
            service.terminate()
            service.wait(timeout=60)
        finally:
            service.kill()


def _answer(url):
    for _ in range(200):
        try:
            return requests.get(url, timeout=5).status_code
        except requests.RequestException:
            time.sleep(0.1)
    raise AssertionError(f'{url} does not answer')


def test_flavors(controller):
    controller.environment['ENABLED_SERVICES'] = 'n-api'
    calls = controller.phase('stack', 'extra')
    # "flavor show" finds them: they were made by an earlier run.
    assert [call[:3] for call in named(calls, 'openstack')] == [
        ['flavor', 'show', 'm1.sev'], ['flavor', 'show', 'm1.sev-es']]
    controller.environment['ATTESTATION_FLAVORS'] = 'no'
    assert not named(controller.phase('stack', 'extra'), 'openstack')


def test_unstack_stops_in_order(controller):
    assert controller.phase('unstack') == [
        ['stop_process', f'attestation-{name}']
        for name in ('rpc', 'api', 'libvirt', 'platform')]


def test_clean_leaves_nothing(emulated):
    emulated.phase('stack', 'post-config')
    emulated.phase('clean')
    left = {path.name for path in emulated.folder.iterdir()} - {'.cache'}
    assert left == {'attestation.sqlite', 'calls', 'nova.conf'}
