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

import types

from nova import exception
import pytest

from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.virt.attesters import base as attester_base
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import faults
from tests.unit.virt import fakes


def make_launch(session):
    return types.SimpleNamespace(
        session=session, identity=types.SimpleNamespace(id='launch-1'))


def raised(failure, session=None):
    with pytest.raises(Exception) as caught:
        faults.raise_for_nova(failure, fakes.UUID, make_launch(session))
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
    assert error.__cause__ is failure


def test_before_there_is_a_launch():
    told = faults.for_nova(domain_xml.Unlaunchable('NVRAM'), fakes.UUID)
    assert isinstance(told, exceptions.AttestationRefused)


def test_record_is_named_where_there_is_one():
    denial = client_exceptions.AttestationDenied(403, '', 'x' * 500)
    assert 'launch-1' not in str(raised(denial))
    assert str(raised(denial, fakes.SESSION)).endswith('See launch launch-1.')


@pytest.mark.parametrize('text', [
    "unable to execute QEMU command 'sev-inject-launch-secret': SEV: bad MAC",
    'qemu-system-x86_64: sev_launch_start: LAUNCH_START ret=1 fw_error=11',
])
def test_what_the_platform_refused_is_told(text):
    error = raised(fakes.libvirt_error(text), fakes.SESSION)
    assert isinstance(error, exception.BuildAbortException)
    assert 'platform refused' in str(error)
    assert text.split(':')[0] in str(error)


@pytest.mark.parametrize('text, session', [
    ('Cannot allocate memory', fakes.SESSION),
    ('SEV: this host has none', None)])
def test_other_errors_of_libvirt_are_novas_to_handle(text, session):
    failure = fakes.libvirt_error(text)
    assert raised(failure, session) is failure


@pytest.mark.parametrize('failure', [
    attester_base.AttesterError('no measurement'),
    fakes.libvirt_error('LAUNCH_START ret=-5 fw_error=23 (no ASID)'),
    exception.InstanceEventTimeout()])
def test_what_another_host_may_help_is_rescheduled(failure):
    error = raised(failure, fakes.SESSION)
    assert isinstance(error, exceptions.AttestationFault)
    assert not isinstance(error, exception.BuildAbortException)


@pytest.mark.parametrize('failure', [
    exceptions.AttestationRefused(fakes.UUID, 'x'),
    exception.InternalError('x'), ValueError('x')])
def test_other_errors_pass(failure):
    assert raised(failure) is failure


def test_only_what_is_made_for_it_is_shown():
    launch = make_launch(fakes.SESSION)
    shown = faults.to_show(ValueError('/etc/host-secret'), fakes.UUID, launch)
    assert 'ValueError' in str(shown) and 'host-secret' not in str(shown)
    denial = client_exceptions.AttestationDenied(403, '', 'The initrd.')
    assert 'The initrd.' in str(faults.to_show(denial, fakes.UUID, launch))
    assert faults.to_show(GeneratorExit(), fakes.UUID, launch).format_message()
