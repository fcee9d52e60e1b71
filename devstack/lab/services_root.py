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

"""The tree that the lab's database and message broker run from."""

from devstack.lab import debroot

# What no package depends on, because every Debian machine has it.
_ESSENTIAL = ('base-files', 'coreutils', 'dash', 'grep', 'hostname',
              'libc-bin', 'sed', 'util-linux')
_SERVERS = ('mariadb-server', 'rabbitmq-server')
# Raised when _finish() changes, so that trees made before are made anew.
_RECIPE = 'services 1'


def build(layout, say):
    """Unpack MariaDB and RabbitMQ unless that was done before.

    :returns: True when the tree was made, False when it was there.
    :raises DebRootError: when a package or the mirror cannot be had.
    """
    return debroot.build(
        layout.services_root, [*_ESSENTIAL, *_SERVERS], cache=layout.cache,
        finish=_finish, recipe=_RECIPE, say=say)


def _finish(root):
    # update-alternatives makes these links on an installed system.
    awk = root / 'usr/bin/awk'
    if not awk.exists():
        awk.symlink_to('gawk' if (root / 'usr/bin/gawk').exists()
                       else 'mawk')
