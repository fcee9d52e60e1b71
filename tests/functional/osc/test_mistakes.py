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

"""Each kind of mistake that users make: what they are told to do.

What belongs to one command is tested with it. No trace is shown for any, as
the fixture sees to.
"""

import uuid

import pytest

from nova_sev_attest.client import attempts
from tests.functional.keyservice import fakes as service_fakes
from tests.functional.keyservice import harness
from tests.functional.osc import fakes

POLICY = ('attestation', 'policy')
CREATE = (*POLICY, 'create', 'web', '--firmware', 'OVMF.fd')


@pytest.fixture
def mistake(openstack, files):
    """A function that runs a command that fails; returns what it tells."""

    def run(*argv, user='alice'):
        done = openstack(*argv, user=user)
        assert done.status == 1 and done.out == ''
        return done.err.strip()

    return run


@pytest.mark.parametrize('argv, words', [
    ((*CREATE, '--kernel', '.'), '.: Is a directory'),
    ((*CREATE, '--kernel', 'vmlinux'), 'vmlinux: No such file or directory'),
    ((*CREATE, '--secret', f'luks={uuid.UUID(int=1)}'),
     '"openstack secret list" shows those that you may read.'),
    ((*CREATE, '--from-image', 'debian'),
     'More than one Image exists with the name \'debian\'. Name it by its '
     'ID.'),
    ((*CREATE, '--from-image', 'debain'),
     'There is no image "debain". Did you mean debian?'),
    ((*POLICY, 'delete', 'web'), 'There is no policy "web".'),
    ((*POLICY, 'show', str(uuid.UUID(int=1))), 'The project has no policy')])
def test_wrong_words(mistake, cloud, argv, words):
    for _ in range(2):
        cloud.glance.add('debian')
    assert words in mistake(*argv)


def test_a_name_that_is_taken(mistake, openstack):
    assert openstack(*CREATE).status == 0
    assert ('Change it by "openstack attestation policy set", or choose '
            'another name.') in mistake(*CREATE)


def test_a_second_default(mistake, keyservice):
    keyservice.policy(name='db')
    assert '"openstack attestation policy set --no-default"' in mistake(
        *CREATE, '--default')


def test_a_firmware_that_is_used(mistake, keyservice):
    keyservice.policy()
    assert '"openstack attestation policy unset --firmware"' in mistake(
        'attestation', 'firmware', 'delete', 'OVMF.fd')


def test_a_folder_that_is_not_there(mistake, keyservice, cloud):
    keyservice.policy(verifier='owner', secrets=[])
    host = harness.Host(keyservice)
    host.create()
    assert 'nowhere/vm_pdh.cert: No such file or directory' == mistake(
        'attestation', 'launch', 'certificates', 'save', host.server_id,
        '--directory', 'nowhere')


def test_a_server_that_was_not_launched(mistake, cloud):
    server_id = cloud.nova.add('p', 'host-1')
    cloud.nova.names['web'] = server_id
    assert '"openstack server show web" may tell why' in mistake(
        'attestation', 'launch', 'show', 'web')


def test_a_role_that_is_missing(mistake, cloud):
    cloud.users['bob', fakes.PASSWORD] = service_fakes.Identity(
        'bob', 'p', ('reader',))
    told = mistake(*CREATE, user='bob')
    assert 'is not allowed to the roles of this token (reader)' in told
    assert 'to change anything the role member' in told


def test_a_token_that_expired(mistake, cloud, monkeypatch):
    issue = cloud.token
    monkeypatch.setattr(cloud, 'token', lambda identity: (
        'expired' if identity.user_id == 'user-of-p' else issue(identity)))
    assert 'The token is not valid, or not any more: log in anew' in mistake(
        *POLICY, 'list')


def test_an_interface_without_the_service(mistake):
    told = mistake('--os-interface', 'internal', *POLICY, 'list')
    assert 'no endpoint in the catalog for this region' in told
    assert 'choose another region or interface' in told


def test_a_service_that_is_down(mistake, cloud, monkeypatch):
    monkeypatch.setattr(attempts.Attempts, '_delay', lambda *_: 0)
    monkeypatch.setattr(cloud, 'attestation', 'http://127.0.0.1:9')
    # In one line, whatever the number of attempts.
    assert mistake(*POLICY, 'list') == (
        'The key service gave no answer within 60 s and 5 attempt(s): it '
        'cannot be reached. Try again later. "openstack catalog show '
        'attestation" tells where it should answer.')
    assert 'GET /v1/policies failed' in mistake('-v', *POLICY, 'list')


def test_an_endpoint_of_another_service(mistake, cloud, monkeypatch):
    monkeypatch.setattr(cloud, 'attestation', cloud.keystone.url)
    told = mistake(*POLICY, 'list')
    assert 'That is no answer of the key service' in told
    assert '"openstack catalog show attestation"' in told


def test_a_command_that_is_not_there(openstack):
    done = openstack('attestation', 'polcy', 'list')
    assert done.status == 2 and 'attestation policy list' in done.out
