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
import types
from unittest import mock

from nova import exception
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import guest as libvirt_guest
import pytest
import stevedore

from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.virt.attesters import base as attester_base
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import driver
from nova_sev_attest.virt import exceptions
from tests.unit.virt import fakes

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


def raised(failure, session=None):
    launch = types.SimpleNamespace(
        session=session, identity=types.SimpleNamespace(id='launch-1'))
    with pytest.raises(Exception) as caught:
        driver.LibvirtDriver._raise_for_nova(
            failure, fakes.make_instance(), launch)
    return caught.value


@pytest.mark.parametrize('failure, words', [
    (client_exceptions.AttestationDenied(403, 'a.b', 'The initrd differs.'),
     'denied it: The initrd differs.'),
    (client_exceptions.RequestRefused(409, '', ''), 'HTTP 409'),
    (client_exceptions.ServiceUnavailable('The key service is down.'),
     'key service is down'),
    (client_exceptions.InvalidResponse('Not JSON.'), 'Not JSON.'),
    (domain_xml.Unlaunchable('NVRAM'), 'NVRAM'),
])
def test_what_another_host_would_not_help_aborts(failure, words):
    error = raised(failure)
    assert isinstance(error, exception.BuildAbortException)
    assert words in error.format_message()


def test_record_is_named_where_there_is_one():
    denial = client_exceptions.AttestationDenied(403, '', 'x' * 500)
    assert 'launch-1' not in str(raised(denial))
    assert str(raised(denial, fakes.SESSION)).endswith('See launch launch-1.')


@pytest.mark.parametrize('text', [
    "unable to execute QEMU command 'sev-inject-launch-secret': SEV: bad MAC",
    'qemu-system-x86_64: sev_launch_start: LAUNCH_START ret=1 fw_error=11',
])
def test_what_the_platform_refused_is_told(text):
    error = raised(libvirt_guest.libvirt.libvirtError(text), fakes.SESSION)
    assert isinstance(error, exception.BuildAbortException)
    assert 'platform refused' in str(error)
    assert text.split(':')[0] in str(error)


@pytest.mark.parametrize('text, session', [
    ('Cannot allocate memory', fakes.SESSION),
    ('this host has no SEV', None)])
def test_other_errors_of_libvirt_are_novas_to_handle(text, session):
    failure = libvirt_guest.libvirt.libvirtError(text)
    assert raised(failure, session) is failure


@pytest.mark.parametrize('failure', [
    attester_base.AttesterError('no measurement'),
    exception.InstanceEventTimeout()])
def test_what_another_host_may_help_is_rescheduled(failure):
    error = raised(failure)
    assert isinstance(error, exceptions.AttestationFault)
    assert not isinstance(error, exception.BuildAbortException)


@pytest.mark.parametrize('failure', [
    exceptions.AttestationRefused(fakes.UUID, 'x'),
    exception.InternalError('x'), ValueError('x')])
def test_other_errors_pass(failure):
    assert raised(failure) is failure


def test_attester_that_cannot_be_loaded_stops_the_driver():
    broken = mock.Mock()
    broken.name = 'broken'
    broken.load.side_effect = ImportError('no module')
    with mock.patch.object(stevedore.ExtensionManager, 'list_entry_points',
                           return_value=[broken]):
        with pytest.raises(RuntimeError, match='broken'):
            driver.attesters.load()
