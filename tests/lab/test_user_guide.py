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

"""doc/source/user/index.rst, done as it is written, by a user of its own."""

import pathlib
import shutil
import tempfile

import pytest

from devstack.lab import demo
from tests import documented
from tests.lab import test_walkthrough

PAGE = 'doc/source/user/index.rst'
_SERVER, _POLICY, _SECRET = 'web-1', 'web', 'web-passphrase'
_IMAGES = ('web-disk', 'web-initrd', 'web-kernel')


def _left(owner):
    """What is in the cloud of what the page makes, as functions to end it."""
    cloud, attestation = owner.cloud, owner.attestation
    server = cloud.compute.find_server(_SERVER)
    if server is not None:
        yield lambda: owner.delete_server(server.id)
    for policy in attestation.policies.each(name=_POLICY):
        yield lambda policy=policy: attestation.policies.delete(policy['id'])
    for name in _IMAGES:
        image = cloud.image.find_image(name)
        if image is not None:
            yield lambda image=image: cloud.image.delete_image(image)
    for secret in cloud.key_manager.secrets(name=_SECRET):
        yield lambda secret=secret: cloud.key_manager.delete_secret(
            secret.secret_ref.rsplit('/', 1)[1])


@pytest.fixture
def machine(layout, guest, owner):
    # Not below pytest's own folder, which only root may enter.
    folder = pathlib.Path(tempfile.mkdtemp(prefix='nova-sev-attest-'))
    yield test_walkthrough.Machine(
        layout, guest, folder,
        ATTESTATION_USER=demo.key_service_user(layout))
    # Where a step failed, those after it were not done.
    for end in list(_left(owner)):
        end()
    shutil.rmtree(folder)


def test_it_goes_as_written(owner, guest, machine):
    left = iter(documented.steps(PAGE, 'user').items())

    def go_to(last):
        """Take the steps up to one; returns what that one prints."""
        for name, commands in left:
            printed = machine.run(commands)
            if name == last:
                return printed

    assert 'running' in go_to('server')
    server = owner.cloud.compute.find_server(
        _SERVER, ignore_missing=False).id
    owner.wait(server, 'ACTIVE')
    # It has opened its disk with the passphrase.
    assert f'marker-sha256: {guest.marker_sha256}' in owner.wait_for_console(
        server, 'marker-sha256: ')
    first, = owner.launches(server)

    assert first['verdict']['launch_digest'] in go_to('look')
    assert (machine.folder / 'launch.svg').stat().st_size > 1000
    go_to('reboot')
    owner.wait(server, 'ACTIVE')
    assert [launch['status'] for launch in owner.launches(server)] == [
        'running', 'running']
    assert 'running' in go_to('why')
    go_to('delete')
    assert not list(_left(owner))


def test_the_page_has_its_steps():
    assert list(documented.steps(PAGE, 'user')) == [
        'secret', 'image', 'policy', 'server', 'look', 'reboot', 'why',
        'delete']
