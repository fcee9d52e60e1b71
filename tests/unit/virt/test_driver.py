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

import inspect
from unittest import mock

from nova.virt.libvirt import driver as libvirt_driver
import pytest
import stevedore

from nova_sev_attest.virt import driver

OVERRIDDEN = [name for name in vars(driver.LibvirtDriver)
              if name in vars(libvirt_driver.LibvirtDriver)
              and not name.startswith('__')]


def parameters(owner, name):
    return [(parameter.name, parameter.default) for parameter in
            inspect.signature(getattr(owner, name)).parameters.values()]


def test_overrides_take_what_novas_take():
    assert {'_create_guest', 'suspend', '_soft_reboot'} <= set(OVERRIDDEN)
    for name in OVERRIDDEN:
        if name != '_create_guest_with_network':
            assert parameters(driver.LibvirtDriver, name) == parameters(
                libvirt_driver.LibvirtDriver, name), name


def test_static_and_class_methods_stay_what_they_are():
    for name in OVERRIDDEN:
        kinds = {type(inspect.getattr_static(owner, name)) for owner
                 in (driver.LibvirtDriver, libvirt_driver.LibvirtDriver)}
        assert len(kinds) == 1, name


def test_attester_that_cannot_be_loaded_stops_the_driver():
    broken = mock.Mock()
    broken.name = 'broken'
    broken.load.side_effect = ImportError('no module')
    with mock.patch.object(stevedore.ExtensionManager, 'list_entry_points',
                           return_value=[broken]):
        with pytest.raises(RuntimeError, match='broken'):
            driver.attesters.load()
