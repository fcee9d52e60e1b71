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

"""An owner with a guest, and all that a server of it needs, for commands.

The tests have the same as fixtures; see conftest.
"""

import contextlib
import dataclasses
import tempfile

from devstack.lab import demo
from devstack.lab.guest import build as guest_build
from devstack.lab import layout as lab_layout
from devstack.lab import owner as lab_owner
from devstack.lab import supervision


@dataclasses.dataclass(frozen=True)
class Standing:
    """What a command works with.

    :ivar owner: a member of the owner's project.
    :ivar admin: the cloud's administrator, as an Owner, too.
    :ivar guest: what boots.
    :ivar images: its images.
    :ivar policy: allows it, and gives it its disk's passphrase.
    """

    layout: lab_layout.Layout
    owner: lab_owner.Owner
    admin: lab_owner.Owner
    guest: guest_build.Guest
    images: lab_owner.Images
    policy: dict


@contextlib.contextmanager
def prepared(layout, say=print, **members):
    """Make all that, in a lab that is up; it is removed at the end.

    :param members: of the policy, where they differ.
    :raises OwnerError: the lab is not up.
    """
    if not supervision.answers(layout):
        raise lab_owner.OwnerError('the lab is not up: tools/lab up')
    with (lab_owner.Owner(layout) as owner,
            lab_owner.Owner(layout, 'admin') as admin,
            tempfile.TemporaryDirectory(prefix='nova-sev-attest-')
            as folder):
        guest = guest_build.build(layout.lab_dir, folder, say=say)
        secret = owner.store_secret('disk passphrase',
                                    guest.passphrase.decode())
        owner.grant(secret, demo.key_service_user(layout))
        firmware = owner.upload_firmware(demo.firmware_path(layout))
        policy = owner.create_guest_policy(
            lab_owner.unique('faults'), guest, firmware, secret=secret,
            **{'trusted_roots': ['emulated']} | members)
        yield Standing(layout, owner, admin, guest,
                       owner.upload_guest('good', guest), policy)


@contextlib.contextmanager
def without(admin, host):
    """Have Nova's scheduler leave out a compute host for a while."""
    service, = admin.cloud.compute.services(binary='nova-compute',
                                            host=host.name)
    admin.cloud.compute.disable_service(service)
    try:
        yield
    finally:
        admin.cloud.compute.enable_service(service)
