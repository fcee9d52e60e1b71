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

"""The commands of README.rst and doc/source/cli/index.rst, run in order.

tests/unit/doc/test_commands.py sees to it that none is left out.
"""

import uuid

import pytest

from nova_sev_attest.cmd.sev_attest import app as sev_attest
from tests import documented
from tests.functional.keyservice import harness
from tests.functional.osc import test_owners

PAGE = 'doc/source/cli/index.rst'
README = 'README.rst'
# The platforms of these tests are emulated.
_ROOT = ['--anchor', 'emulated=ask_ark.cert']


def commands(*programs, page=PAGE):
    """Commands of a page, each as its words."""
    found = [command.words for command in documented.of(*programs, page=page)]
    assert found
    return found


@pytest.fixture
def run(openstack, capsys):
    """A function that runs commands, which have to succeed."""

    def all_of(found):
        for program, *words in found:
            if program == 'openstack':
                done = openstack(*words)
                assert done.status == 0, (words, done.err)
            else:
                assert sev_attest.main(words) == 0, (
                    words, capsys.readouterr().err)

    return all_of


def test_the_life_of_a_policy(openstack, run, files, keyservice, cloud):
    (files / 'vmlinuz-new').write_bytes(b'a newer kernel')
    cloud.barbican.names[keyservice.secret()] = 'passphrase'
    run(commands('openstack attestation policy'))
    policy = openstack('attestation', 'policy', 'show', 'web', '-f',
                       'json').json
    assert len(policy['kernels']) == 1 and policy['revoked_at']
    assert policy['limits']['max_releases'] == 10


@pytest.fixture
def host(keyservice, cloud):
    """A function that makes the host of a server.

    The server has the name that the page gives it.
    """

    def make(name='web-1', **policy):
        keyservice.policy(name='any', **policy)
        found = harness.Host(keyservice)
        cloud.nova.names[name] = found.server_id
        return found

    return make


def _boot(host):
    host.launch()
    response = host.send(host.measure())
    if response.status_code == 200:
        host.outcome('running')


def test_a_launch_is_looked_at(run, files, host):
    _boot(host())
    run(commands('openstack attestation launch list',
                 'openstack attestation launch show',
                 'openstack attestation launch watch'))
    assert (files / 'launch.svg').stat().st_size > 1000


@pytest.mark.parametrize('action, status', [
    ('approve', 'released'), ('deny', 'denied')])
def test_an_owner_decides(run, host, action, status):
    waiting = host(approval='owner')
    _boot(waiting)
    run(commands(f'openstack attestation launch {action}'))
    assert waiting.show()['status'] == status


def _emulated(words):
    """A command on an emulated platform, which has no roots of AMD's."""
    if '--amd-certificates' in words:
        at = words.index('--amd-certificates')
        return words[:at] + _ROOT + words[at + 2:]
    if 'ask_ark_milan.cert' in words:
        at = words.index('ask_ark_milan.cert')
        return words[:at] + _ROOT + words[at + 1:]
    return words


def test_an_owners_own_eyes(run, files, host):
    _boot(host())
    by_service, _ = commands('openstack attestation verify')
    run([_emulated(by_service)])


def test_an_owner_keeps_keys(run, files, host):
    """And then verifies with the TIK, as the page has it before."""
    (files / 'passphrase').write_bytes(harness.PASSPHRASE)
    waiting = host(verifier='owner', secrets=[])
    assert waiting.create().status_code == 202
    found = [_emulated(words) for words in commands(
        'sev-attest', *(f'openstack attestation launch {noun}' for noun in (
            'certificates', 'session', 'evidence', 'secret')))]
    half = 1 + next(at for at, words in enumerate(found)
                    if 'session' in words and words[0] == 'openstack')
    run(found[:half])
    test_owners.start(waiting)
    evidence = waiting.measure()
    assert waiting.send(evidence, waiting.claims()).status_code == 202
    run(found[half:])
    released = waiting.send(evidence, waiting.claims()).json()['release']
    assert waiting.inject(released, evidence) == {
        uuid.UUID(harness.LUKS_GUID).bytes_le: harness.PASSPHRASE}
    *_, by_owner = commands('openstack attestation verify')
    run([by_owner])


def test_the_readme(run, files, keyservice, cloud, host):
    cloud.barbican.names[keyservice.secret()] = 'PASSPHRASE'
    found = commands('openstack attestation', page=README)
    run(found[:-1])
    _boot(host(name='SERVER'))
    run(found[-1:])
