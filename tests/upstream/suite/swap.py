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

"""Puts our driver where Nova's tests look for Nova's own.

Imported before any of them. Nova's tests patch, subclass and call the driver
by its name in nova.virt.libvirt, so that name is what changes.
"""

import os
import sys

from nova import monkey_patch

# As Nova's test packages do it, before anything is imported that eventlet
# would have to patch.
monkey_patch.patch()

from nova.tests.fixtures import conf as nova_conf  # noqa: E402
from nova.virt import libvirt as package  # noqa: E402
from nova.virt.libvirt import driver as module  # noqa: E402
from oslo_config import cfg  # noqa: E402


def find_configuration():
    """Let Nova's fixtures find etc/nova where a wheel puts it.

    In a checkout it is beside the package; an installed wheel has it below
    sys.prefix.
    """
    paste = os.path.join(sys.prefix, 'etc', 'nova', 'api-paste.ini')
    if not os.path.isfile(paste):
        raise RuntimeError(f'{paste} is missing: install Nova as a wheel')
    nova_conf.paths.state_path_def = (
        lambda *parts: os.path.join(sys.prefix, *parts))


def attesting_driver():
    """Ours, with Nova's static and class methods as its own.

    mock.patch replaces an attribute that a class inherits by one that is
    bound like any other function, and the tests patch many of them.
    """
    from nova_sev_attest.conf import driver as conf
    from nova_sev_attest.virt import driver
    for name, value in vars(module.LibvirtDriver).items():
        if (isinstance(value, (staticmethod, classmethod)) and
                name not in vars(driver.LibvirtDriver)):
            setattr(driver.LibvirtDriver, name, value)
    # Nova's tests boot encrypted guests with no key service about, and
    # without the firmware that attestation needs. In the option itself: each
    # test ends with all of CONF's own defaults dropped.
    cfg.set_defaults(conf.DRIVER_OPTS, mode='optional')
    return driver.LibvirtDriver


def sabotaged_driver():
    """Ours, unable to define a guest."""
    class Sabotaged(attesting_driver()):
        def _create_guest(self, *args, **kwargs):
            raise NotImplementedError('sabotaged')

    return Sabotaged


def swap():
    """Do what UPSTREAM_DRIVER asks for."""
    find_configuration()
    wanted = os.environ['UPSTREAM_DRIVER']
    if wanted == 'stock':
        return
    made = {'attesting': attesting_driver,
            'sabotaged': sabotaged_driver}[wanted]()
    module.LibvirtDriver = package.LibvirtDriver = made
