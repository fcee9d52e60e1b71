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

"""The lab that the tests of this folder share: up once, down at the end."""

import dataclasses
import os
import re
import subprocess

import pytest

from devstack.lab import demo
from devstack.lab.guest import build as guest_build
from devstack.lab import host as lab_host
from devstack.lab import layout as lab_layout
from devstack.lab import owner as lab_owner
from devstack.lab import supervision

_TOOL = lab_layout.CHECKOUT / 'tools' / 'lab'


def pytest_configure(config):
    # The SDK warns about its own code, hundreds of times.
    config.addinivalue_line(
        'filterwarnings', 'ignore::openstack.warnings.RemovedInSDK50Warning')
    config.addinivalue_line(
        'filterwarnings', 'ignore::openstack.warnings.RemovedInSDK60Warning')


@dataclasses.dataclass(frozen=True)
class Project:
    """What the owner's project has for all tests.

    :ivar secret: Barbican's UUID of the disk passphrase, granted to the key
        service.
    :ivar firmware: SHA-256 of the compute host's firmware, uploaded.
    :ivar images: :class:`devstack.lab.owner.Images` of the good guest.
    :ivar service: user id of the key service.
    """

    secret: str
    firmware: str
    images: lab_owner.Images
    service: str


@pytest.fixture(scope='session')
def layout():
    """Where a lab is that is up; one that was up already stays so."""
    if os.geteuid():
        reason = 'a lab needs root'
        if os.environ.get('CI'):
            pytest.fail(reason)
        pytest.skip(reason)
    found = lab_layout.Layout.from_environment()
    was_up = supervision.answers(found)
    try:
        subprocess.run([_TOOL, 'up'], check=True)
        yield found
    finally:
        if not was_up:
            subprocess.run([_TOOL, 'down'], check=True)


@pytest.fixture(scope='session')
def host(layout):
    return lab_host.Host(layout)


@pytest.fixture(scope='session')
def guest(layout, tmp_path_factory):
    """A guest with a disk of this run."""
    return guest_build.build(layout.lab_dir, tmp_path_factory.mktemp('guest'))


@pytest.fixture(scope='session')
def project(layout, guest):
    """What all servers of the tests have in common, made once."""
    with lab_owner.Owner(layout) as owner:
        secret = owner.store_secret('disk passphrase',
                                    guest.passphrase.decode())
        service = demo.key_service_user(layout)
        owner.grant(secret, service)
        yield Project(
            secret=secret,
            firmware=owner.upload_firmware(demo.firmware_path(layout)),
            images=owner.upload_guest('good', guest), service=service)


@pytest.fixture
def owner(layout):
    """A member of the owner's project; cleans up after itself."""
    with lab_owner.Owner(layout) as found:
        yield found


@pytest.fixture
def other(layout):
    """A member of another project."""
    with lab_owner.Owner(layout, 'other') as found:
        yield found


@pytest.fixture
def make_policy(owner, project, guest):
    """Make a policy that allows the good guest, but for what is changed."""
    def make(**changes):
        members = {'secret': project.secret, 'trusted_roots': ['emulated']}
        return owner.create_guest_policy(
            lab_owner.unique('test'), guest, project.firmware,
            **members | changes)
    return make


@pytest.fixture
def boot(owner, project):
    """Ask for a server of the good guest; returns its id."""
    def request(policy=None, images=None, flavor=lab_owner.FLAVOR):
        return owner.boot_server(
            lab_owner.unique('test'), images or project.images,
            policy and policy['name'], flavor)
    return request


@pytest.fixture
def tampered(owner, guest, tmp_path):
    """Images of a guest whose initramfs differs in one bit."""
    changed = bytearray(guest.initramfs.read_bytes())
    changed[-1] ^= 1
    path = tmp_path / 'initramfs'
    path.write_bytes(changed)
    return owner.upload_guest('tampered', guest, initramfs=path)


@pytest.fixture
def assert_refused(owner, host):
    """Assert that a server never ran, and that nothing of it is left.

    The fault, which is returned, has to match all the patterns.
    """
    def check(server, *patterns):
        shown = owner.wait(server, 'ACTIVE')
        assert shown.status == 'ERROR'
        fault = shown.fault['message']
        for pattern in patterns:
            assert re.search(pattern, fault, re.IGNORECASE), fault
        assert owner.console(server) == ''
        assert host.leftovers(server) == {
            'domain': [], 'process': [], 'file': []}
        assert not any(launch['instructions_run']
                       for launch in host.launches(server))
        return fault
    return check
