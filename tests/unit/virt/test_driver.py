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

import contextlib
import inspect
import threading
from unittest import mock

from nova.compute import power_state
from nova.compute import vm_states
from nova import exception
from nova.virt.libvirt import driver as libvirt_driver
import pytest
import stevedore

from nova_sev_attest.virt import driver
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import guard
from tests.unit.virt import fakes

INSTANCE = fakes.make_instance()

OVERRIDDEN = [name for name in vars(driver.LibvirtDriver)
              if name in vars(libvirt_driver.LibvirtDriver)
              and not name.startswith('__')]


def parameters(owner, name):
    return [(parameter.name, parameter.default) for parameter in
            inspect.signature(getattr(owner, name)).parameters.values()]


def test_overrides_take_what_novas_take():
    assert {'_create_guest', 'suspend', '_soft_reboot'} <= set(OVERRIDDEN)
    for name in OVERRIDDEN:
        ours = parameters(driver.LibvirtDriver, name)
        novas = parameters(libvirt_driver.LibvirtDriver, name)
        if [parameter for parameter, _ in ours[-2:]] == ['args', 'kwargs']:
            # It looks at the first only, and passes on the others.
            ours = ours[:-2]
            novas = novas[:len(ours)]
        assert ours == novas, name


def test_static_and_class_methods_stay_what_they_are():
    for name in OVERRIDDEN:
        kinds = {type(inspect.getattr_static(owner, name)) for owner
                 in (driver.LibvirtDriver, libvirt_driver.LibvirtDriver)}
        assert len(kinds) == 1, name


@pytest.fixture
def bare():
    """A driver that was not constructed: Nova's constructor wants a host."""
    bare = driver.LibvirtDriver.__new__(driver.LibvirtDriver)
    bare._awaited = {}
    bare._purposes = {}
    bare._opened_ahead = {}
    return bare


@pytest.mark.parametrize('method, arguments', [
    ('spawn', (None, INSTANCE)),
    ('_hard_reboot', (None, INSTANCE)),
    ('finish_migration', (None, None, INSTANCE)),
    ('finish_revert_migration', (None, INSTANCE)),
])
def test_nova_does_not_wait_for_a_guest_that_has_ended(
        bare, method, arguments):
    states = [power_state.RUNNING, power_state.SHUTDOWN]

    def wait(*_):
        # Not launched yet: Nova may look at what was there before.
        bare.get_info(INSTANCE)
        bare._awaited[INSTANCE.uuid] = True
        states.reverse()
        while True:
            bare.get_info(INSTANCE)

    with mock.patch.object(
            libvirt_driver.LibvirtDriver, 'get_info',
            side_effect=lambda *_, **__: mock.Mock(state=states[0])), \
            mock.patch.object(libvirt_driver.LibvirtDriver, method,
                              side_effect=wait):
        with pytest.raises(exceptions.AttestationFault, match='ended'):
            getattr(bare, method)(*arguments)
        # Nobody waits any more.
        assert bare.get_info(INSTANCE).state == power_state.SHUTDOWN


@pytest.mark.parametrize('power_on, times', [(True, 1), (False, 0)])
def test_no_launch_is_opened_for_a_guest_that_is_only_defined(
        bare, power_on, times):
    with mock.patch.object(libvirt_driver.LibvirtDriver, 'spawn'), \
            mock.patch.object(driver.LibvirtDriver, '_opening_ahead',
                              return_value=contextlib.nullcontext()) as open_:
        bare.spawn(None, INSTANCE, None, [], None, {}, power_on=power_on)
    assert open_.call_count == times


@pytest.mark.parametrize('state, purpose', [
    (vm_states.RESCUED, 'rescue'), (vm_states.ACTIVE, 'boot'),
    (vm_states.STOPPED, 'boot'), (vm_states.ERROR, 'boot'),
    (vm_states.BUILDING, 'boot')])
def test_a_server_that_stays_in_rescue_is_launched_for_it(
        bare, state, purpose):
    instance = fakes.make_instance()
    instance.vm_state = state
    assert bare._purpose_of(instance) == purpose


@pytest.mark.parametrize('method, arguments, state, purpose', [
    ('rescue', (None,) * 5, vm_states.ACTIVE, 'rescue'),
    ('rescue', (None,) * 5, vm_states.ERROR, 'rescue'),
    ('unrescue', (), vm_states.RESCUED, 'boot')])
@pytest.mark.parametrize('failure', [None, RuntimeError])
def test_what_a_guest_is_made_for(bare, method, arguments, state, purpose,
                                  failure):
    instance = fakes.make_instance()
    instance.vm_state = state
    other = fakes.make_instance()
    other.uuid = 'another'
    other.vm_state = vm_states.RESCUED
    before = bare._purpose_of(instance)
    seen = []

    def make(*_):
        seen.append((bare._purpose_of(instance), bare._purpose_of(other)))
        if failure is not None:
            raise failure

    with mock.patch.object(libvirt_driver.LibvirtDriver, method,
                           side_effect=make), \
            mock.patch.object(driver.scope, 'demanded_technology',
                              return_value=None), \
            contextlib.nullcontext() if failure is None else (
                pytest.raises(failure)):
        getattr(bare, method)(None, instance, *arguments)
    assert seen == [(purpose, 'rescue')]
    assert bare._purpose_of(instance) == before and bare._purposes == {}


class TestGuestThatRuns:
    """That it does is told beside its server, and once."""

    @pytest.fixture
    def launch(self, bare):
        launch = mock.Mock(instance=INSTANCE, report_timeout=30)
        bare._launches = {INSTANCE.uuid: launch}
        return launch

    @staticmethod
    def wait():
        for thread in threading.enumerate():
            if thread.name.startswith(driver.TELLING):
                thread.join(30)
                assert not thread.is_alive()

    @staticmethod
    def assert_told(bare, launch):
        (report,) = launch.transport.report_outcome.call_args_list
        assert report.args[:3] == (launch.identity, 'running', None)
        launch.records.close.assert_called_once_with(
            INSTANCE.uuid, launch.identity.id)
        launch.events.close.assert_called_once_with(driver.EVENTS_TIMEOUT)
        assert bare._launches == {}

    def test_no_server_waits(self, bare, launch):
        go_on = threading.Event()
        launch.transport.report_outcome.side_effect = (
            lambda *_: go_on.wait(30))
        bare._runs(launch)
        assert bare._launches == {}
        launch.records.close.assert_not_called()
        go_on.set()
        self.wait()
        self.assert_told(bare, launch)

    def test_what_cannot_be_told_is_left_to_recovery(self, bare, launch):
        launch.transport.report_outcome.side_effect = ValueError('x')
        bare._runs(launch)
        self.wait()
        launch.records.close.assert_not_called()
        launch.revert.assert_not_called()
        launch.events.close.assert_called_once_with(driver.EVENTS_TIMEOUT)

    def test_without_a_thread_it_is_told_all_the_same(self, bare, launch):
        with mock.patch.object(threading.Thread, 'start',
                               side_effect=RuntimeError('no more threads')):
            bare._runs(launch)
        self.assert_told(bare, launch)


def test_domain_decides_where_the_server_demands_nothing(bare):
    """Its property may be gone; what it was defined for stays."""
    bare._host = mock.Mock(spec=guard.GuardedHost)
    for guarded in (True, False):
        bare._host.is_guarded.return_value = guarded
        assert bare._is_attested(INSTANCE) is guarded


def test_attester_that_cannot_be_loaded_stops_the_driver():
    broken = mock.Mock()
    broken.name = 'broken'
    broken.load.side_effect = ImportError('no module')
    with mock.patch.object(stevedore.ExtensionManager, 'list_entry_points',
                           return_value=[broken]):
        with pytest.raises(RuntimeError, match='broken'):
            driver.attesters.load()


@pytest.fixture
def offering(bare):
    """A driver on a host that offers one technology."""
    bare._host = mock.Mock()
    bare._platforms = mock.Mock()
    bare._attesters = {'amd-sev': mock.Mock()}
    return bare


def _updated(offering):
    """The technologies that are said to be attested; None if unchanged."""
    with (mock.patch.object(libvirt_driver.LibvirtDriver,
                            'update_provider_tree') as stock,
          mock.patch.object(driver.traits, 'update') as update):
        offering.update_provider_tree('tree', 'node')
    stock.assert_called_once_with('tree', 'node', None)
    if not update.called:
        return None
    tree, node, attested, known = update.call_args.args
    assert (tree, node, known) == ('tree', 'node', offering._attesters)
    return attested


def test_a_host_says_what_it_attests(offering):
    assert _updated(offering) == ['amd-sev']


def test_a_host_without_certificates_says_that_it_attests_nothing(offering):
    offering._platforms.read.side_effect = RuntimeError
    assert _updated(offering) == []


def test_a_host_without_libvirt_stays_what_it_was_said_to_be(offering):
    offering._host.get_connection.side_effect = (
        exception.HypervisorUnavailable)
    assert _updated(offering) is None


@pytest.mark.parametrize('afterwards', [
    mock.sentinel.another, exception.HypervisorUnavailable])
def test_a_host_whose_libvirt_ends_meanwhile_stays_what_it_was_said_to_be(
        offering, afterwards):
    offering._host.get_connection.side_effect = [
        mock.sentinel.connection, afterwards]
    offering._platforms.read.side_effect = RuntimeError
    assert _updated(offering) is None
