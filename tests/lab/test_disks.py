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

"""What a guest boots from: a whole Debian, and an ordinary image."""

import pytest

from devstack.lab.guest import debian
from devstack.lab import owner as lab_owner

_BOOT_SECONDS = 400


@pytest.mark.by_command
def test_a_whole_debian_boots_from_its_encrypted_root(owner, layout, project,
                                                      tmp_path):
    guest = debian.make(layout.lab_dir, tmp_path)
    images = owner.upload_guest(lab_owner.unique('debian'), guest)
    secret = owner.store_secret('debian', guest.passphrase.decode())
    owner.grant(secret, project.service)
    policy = owner.create_guest_policy(
        lab_owner.unique('debian'), guest, project.firmware, secret=secret,
        trusted_roots=['emulated'])
    server = owner.boot_server(lab_owner.unique('debian'), images,
                               policy['name'])
    assert owner.wait(server, 'ACTIVE').status == 'ACTIVE'
    printed = owner.wait_for_console(server, 'marker-sha256: ',
                                     _BOOT_SECONDS)
    assert f'marker-sha256: {guest.marker_sha256}' in printed
    # It wrote to its root, and reads that back in its next boot.
    owner.cloud.compute.reboot_server(server, 'HARD')
    assert owner.wait(server, 'ACTIVE').status == 'ACTIVE'
    owner.wait_for_console(server, 'marker-sha256: ', _BOOT_SECONDS)
    assert [launch['status'] for launch in owner.launches(server)] == [
        'running', 'running']


def test_an_ordinary_image_is_refused(owner, guest, make_policy, boot,
                                      assert_refused):
    """The firmware would start what the disk says, which is not measured."""
    disk = owner.upload_image(lab_owner.unique('ordinary'), guest.disk, 'raw',
                              **lab_owner.IMAGE_PROPERTIES)
    server = boot(make_policy(), lab_owner.Images(None, None, disk))
    assert_refused(server, 'kernel')
