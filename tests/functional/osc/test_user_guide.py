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

"""What doc/source/user/index.rst does without Nova and Glance, as written.

All of it is done in the lab.
"""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import documented
from tests.functional.keyservice import harness
from tests.functional.osc import conftest

PAGE = 'doc/source/user/index.rst'


@pytest.fixture
def step(keyservice, cloud, files):
    """A function that runs a step's commands; returns what they print."""
    found = documented.steps(PAGE, 'user')
    programs = pathlib.Path(sys.executable).parent
    environment = conftest.environment(cloud) | {
        'ATTESTATION_USER': cloud.SERVICE_USER, 'PYTHONPATH': os.getcwd(),
        'PATH': f'{programs}:{os.environ["PATH"]}'}
    for name, text in (('passphrase', harness.PASSPHRASE),
                       ('cmdline', harness.COMMAND_LINE.encode())):
        (files / name).write_bytes(text)

    def run(name):
        done = subprocess.run(
            ['bash', '-euo', 'pipefail', '-c', found[name]], cwd=files,
            env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert harness.PASSPHRASE.decode() not in done.stdout + done.stderr
        return done.stdout

    return run


def test_what_needs_no_server(step, keyservice, cloud, files):
    step('secret')
    (secret,) = cloud.barbican.secrets.values()
    assert secret.payload == harness.PASSPHRASE
    assert secret.readers == {cloud.SERVICE_USER}
    assert 'measured' in step('policy')

    host = harness.Host(keyservice, policy='web')
    cloud.nova.names['web-1'] = host.server_id
    host.launch()
    evidence = host.measure()
    released = host.send(evidence).json()['release']
    assert list(host.inject(released, evidence).values()) == [
        harness.PASSPHRASE]
    host.outcome('running')
    assert host.show()['verdict']['launch_digest'] in step('look')
    assert (files / 'launch.svg').stat().st_size > 1000
