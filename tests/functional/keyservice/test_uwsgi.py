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

"""The service under uWSGI with the sample configuration, as in production."""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests

from tests.functional.keyservice import harness
from tests.functional.keyservice import test_wsgi

SAMPLE = test_wsgi.ROOT / 'etc/nova-sev-attest/uwsgi.ini'
WORKERS = 2


class Server:
    """uWSGI with two workers over a key service's configuration."""

    def __init__(self, config_file):
        self.port = test_wsgi.free_port()
        self.url = f'http://127.0.0.1:{self.port}'
        self.process = subprocess.Popen(
            [pathlib.Path(sys.executable).with_name('uwsgi'),
             '--ini', SAMPLE],
            cwd=test_wsgi.ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=os.environ | {
                'NOVA_SEV_ATTEST_CONFIG_FILE': str(config_file),
                'NOVA_SEV_ATTEST_LISTEN': f'127.0.0.1:{self.port}',
                'NOVA_SEV_ATTEST_WORKERS': str(WORKERS),
                'NOVA_SEV_ATTEST_THREADS': '4'})
        self._said = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._said.append(line)

    @property
    def output(self):
        return ''.join(self._said)

    def wait_until_ready(self):
        """Wait for all workers: one that loads hears of no stop."""
        for _ in range(1200):
            with contextlib.suppress(requests.RequestException):
                answer = requests.get(self.url + '/healthcheck', timeout=5)
                assert answer.status_code == 200
                if self._all_have_loaded():
                    return
            assert self.process.poll() is None, self.output
            time.sleep(0.1)
        raise AssertionError(self.output)

    def _all_have_loaded(self):
        started = self.output.count('pawned uWSGI worker ')
        return started >= WORKERS and (
            self.output.count(' ready in ') >= started)

    def wait_until_said(self, text):
        """Wait for its log, which it writes after it has answered."""
        for _ in range(200):
            if text in self.output:
                return
            time.sleep(0.1)
        raise AssertionError(f'{text!r} is not in {self.output}')

    def workers(self):
        """Process ids of the workers."""
        pid = self.process.pid
        children = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
        return [int(child) for child in children.read_text().split()]

    def end(self):
        """Wait for the end; returns the exit status."""
        try:
            return self.process.wait(50)
        except subprocess.TimeoutExpired:
            raise AssertionError(f'it did not end: {self.output}') from None
        finally:
            self.process.kill()
            self.process.wait(10)
            self._reader.join(10)


@pytest.fixture
def server(keyservice):
    found = Server(keyservice.config_file)
    try:
        found.wait_until_ready()
        yield found
    finally:
        if found.process.poll() is None:
            # A worker may have been replaced.
            found.wait_until_ready()
        found.process.terminate()
        found.end()


def through(server, host):
    """A compute host's client that asks this server."""
    host.api = harness.Api(server.url, host.api.token)
    return host


def test_whole_launch(server, keyservice):
    keyservice.policy()
    host = through(server, harness.Host(keyservice))
    host.launch()
    evidence = host.measure()
    answer = host.send(evidence)
    assert answer.status_code == 200
    assert harness.PASSPHRASE in host.inject(
        answer.json()['release'], evidence).values()
    server.wait_until_said(f'"PUT {host.path}/evidence HTTP/1.1" 200')
    assert host.token not in server.output
    assert host.api.token not in server.output


def test_stops_after_the_requests_in_flight(server, keyservice):
    keyservice.policy()
    host = through(server, harness.Host(keyservice))
    asked, go_on = threading.Event(), threading.Event()
    nova = keyservice.cloud.nova

    def slow(handler):
        asked.set()
        go_on.wait(20)
        nova.misbehave = None
        nova.respond(handler, handler.path.partition('?')[0], {}, b'')

    nova.misbehave = slow
    with concurrent.futures.ThreadPoolExecutor() as executor:
        launch = executor.submit(host.create)
        try:
            assert asked.wait(20)
            server.process.send_signal(signal.SIGTERM)
            # It does not end while the request is there.
            with pytest.raises(subprocess.TimeoutExpired):
                server.process.wait(1)
        finally:
            go_on.set()
        assert launch.result().status_code == 201
    assert server.end() == 0, server.output
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(('127.0.0.1', server.port), timeout=5)
    # What got its answer is stored.
    assert host.show()['status'] == 'session_issued'


def test_who_waits_for_an_owner_is_answered_before_it_stops(server,
                                                            keyservice):
    keyservice.policy(approval='owner')
    host = through(server, harness.Host(keyservice))
    host.launch()
    evidence = host.measure()
    with concurrent.futures.ThreadPoolExecutor() as executor:
        waiting = executor.submit(
            host.api.put, host.path + '/evidence',
            headers=host.headers | {'Prefer': 'wait=5'},
            json={'evidence': evidence})
        for _ in range(200):
            if host.show()['waiting_for'] == 'approval':
                break
            time.sleep(0.05)
        assert not waiting.done()
        server.process.send_signal(signal.SIGTERM)
        answer = waiting.result()
    assert answer.status_code == 202
    assert server.end() == 0, server.output
    # And repeated at a node that runs.
    host.api = keyservice.compute()
    assert host.send(evidence).status_code == 202


def test_a_killed_worker_is_replaced(server, keyservice):
    policy = keyservice.policy()
    api = harness.Api(server.url, keyservice.member().token)
    before = server.workers()
    assert len(before) == WORKERS
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    for _ in range(600):
        with contextlib.suppress(requests.ConnectionError):
            found, = api.get('/v1/policies').json()['policies']
            break
        time.sleep(0.1)
    assert found['id'] == policy['id']
    assert not set(before) & set(server.workers())


def test_a_fault_in_the_configuration_ends_it(keyservice, tmp_path):
    config_file = tmp_path / 'bad.conf'
    config_file.write_text(keyservice.config_file.read_text()
                           + '[secret_store]\ndriver = unheard-of\n')
    server = Server(config_file)
    assert server.end() > 0
    assert 'unheard-of' in server.output


_LOOK = '''
import os, threading
from nova_sev_attest.keyservice import wsgi
assert callable(wsgi.application)
print('threads:', threading.active_count())
for number in os.listdir('/proc/self/fd'):
    try:
        found = os.readlink(f'/proc/self/fd/{number}')
    except FileNotFoundError:
        continue
    if found.startswith('socket:') or '.sqlite' in found:
        print('open:', found)
'''


def test_loading_leaves_nothing_that_a_fork_would_share(keyservice):
    """For servers that load the application and then fork."""
    done = subprocess.run(
        [sys.executable, '-c', _LOOK], cwd=test_wsgi.ROOT, timeout=60,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env=os.environ | {'NOVA_SEV_ATTEST_CONFIG_FILE': str(
            keyservice.config_file)})
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines()
            if line.startswith(('threads:', 'open:'))] == ['threads: 1']
