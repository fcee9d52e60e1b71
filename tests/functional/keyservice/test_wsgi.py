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

"""The WSGI module in a process of its own, as an operator runs it."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest
import requests

from tests.functional.keyservice import harness

ROOT = pathlib.Path(__file__).parents[3]


def free_port():
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


def command(config_file, port):
    return dict(
        args=[sys.executable, '-m', 'cheroot', '--bind',
              f'127.0.0.1:{port}',
              'nova_sev_attest.keyservice.wsgi:application'],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {
            'NOVA_SEV_ATTEST_CONFIG_FILE': str(config_file)})


def test_serves(keyservice):
    port = free_port()
    process = subprocess.Popen(**command(keyservice.config_file, port))
    try:
        url = f'http://127.0.0.1:{port}'
        for _ in range(300):
            try:
                answer = requests.get(url + '/healthcheck', timeout=5)
                break
            except requests.ConnectionError:
                assert process.poll() is None, process.stdout.read()
                time.sleep(0.1)
        assert answer.status_code == 200
        policy = keyservice.policy()
        api = harness.Api(url, keyservice.member().token)
        found, = api.get('/v1/policies').json()['policies']
        assert found['id'] == policy['id']
    finally:
        process.terminate()
        output = process.communicate(timeout=20)[0].decode()
    assert 'Trusted platform roots: emulated (emulated).' in output


@pytest.mark.parametrize('line, named', [
    ('[trust]\nextra_anchors = emulated=/does/not/exist\n',
     '/does/not/exist'),
    ('[secret_store]\ndriver = unheard-of\n', 'unheard-of'),
    ('[launches]\nexpiry = soon\n', 'expiry')])
def test_a_fault_in_the_configuration_ends_it(keyservice, tmp_path, line,
                                              named):
    config_file = tmp_path / 'bad.conf'
    config_file.write_text(keyservice.config_file.read_text() + line)
    done = subprocess.run(**command(config_file, free_port()), timeout=60)
    assert done.returncode != 0
    assert named in done.stdout.decode()
