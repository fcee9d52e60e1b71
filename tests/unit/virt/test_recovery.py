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

from unittest import mock

from nova.compute import power_state
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova import exception
from nova import objects
import pytest

from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.client import launches
from nova_sev_attest.virt import records
from nova_sev_attest.virt import recovery
from tests.unit.virt import fakes
from tests.unit.virt import test_watch

IDENTITY = launches.LaunchIdentity('launch', 'a' * 64)


class World:
    """A host on which nova-compute starts again."""

    def __init__(self, folder, guest=None):
        self.records = records.LaunchRecords(folder, 'host')
        self.records.open(fakes.UUID, IDENTITY)
        self.host = test_watch.Host(*([guest] if guest else []))
        self.reports = []
        self.refusal = None
        self.instance = mock.Mock(
            uuid=fakes.UUID, host='host', vm_state=vm_states.ACTIVE,
            task_state=None)
        self.faults = []

    def report(self, identity, status, reason, deadline):
        assert deadline.seconds == 3
        self.reports.append((identity, status, reason))
        if self.refusal:
            raise self.refusal

    def start(self):
        with mock.patch.object(objects.Instance, 'get_by_uuid',
                               side_effect=lambda *args: self.instance), \
                mock.patch.object(
                    compute_utils, 'add_instance_fault_from_exc',
                    lambda context, instance, error: self.faults.append(
                        error.format_message())):
            thread = recovery.Recovery(
                self.host, 'host', self.records, self.report, 3).run()
        if thread is not None:
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def make(tmp_path):
    return lambda *args, **kwargs: World(
        str(tmp_path), test_watch.make_guest(*args, **kwargs)
        if args or kwargs else None)


def guest_of(world):
    return world.host.guests[0]


@pytest.mark.parametrize('state, mark', [
    (power_state.PAUSED, 'pending'),     # before its release
    (power_state.PAUSED, 'released'),    # before its resumption
    (power_state.RUNNING, 'pending'),    # somebody else resumed it
])
def test_unfinished_launch_is_undone(make, state, mark):
    world = make(state, mark)
    world.start()
    assert guest_of(world).state == power_state.SHUTDOWN
    ((identity, status, reason),) = world.reports
    assert (identity, status) == (IDENTITY, 'failed')
    assert 'nova-compute ended' in reason
    assert world.records.left() == []
    (fault,) = world.faults
    assert 'try again' in fault and len(fault) <= 255


def test_before_there_was_a_domain(make):
    world = make()
    world.start()
    assert [report[1] for report in world.reports] == ['failed']


def test_guest_that_runs_attested_stays_and_is_reported(make):
    world = make(power_state.RUNNING, 'released')
    world.start()
    assert guest_of(world).state == power_state.RUNNING
    assert world.reports == [(IDENTITY, 'running', None)]
    assert world.faults == []


def test_pending_guest_without_record_is_destroyed(make, tmp_path):
    world = make(power_state.PAUSED, 'pending')
    world.records.close(fakes.UUID, IDENTITY.id)
    world.start()
    assert guest_of(world).state == power_state.SHUTDOWN
    assert world.reports == []


@pytest.mark.parametrize('state, mark', [
    (power_state.PAUSED, 'released'),    # by a user, since
    (power_state.RUNNING, 'released'), (power_state.RUNNING, None)])
def test_guests_of_no_launch_stay(make, state, mark):
    world = make(state, mark)
    world.records.close(fakes.UUID, IDENTITY.id)
    world.start()
    assert guest_of(world).state == state


def test_guest_of_another_launch_than_the_recorded(make):
    world = make(power_state.RUNNING, 'released')
    world.records.open(fakes.UUID, launches.LaunchIdentity('other', 'b'))
    world.start()
    assert guest_of(world).state == power_state.RUNNING
    assert [report[1] for report in world.reports] == ['failed']


@pytest.mark.parametrize('task', [
    task_states.RESCUING, task_states.UNRESCUING, task_states.RESIZE_FINISH,
    task_states.RESIZE_REVERTING])
def test_server_that_nova_would_leave_stuck(make, task):
    world = make()
    world.instance.task_state = task
    world.start()
    assert world.instance.vm_state == vm_states.ERROR
    assert world.instance.task_state is None
    world.instance.save.assert_called_once_with()


@pytest.mark.parametrize('task', [
    None, task_states.SPAWNING, task_states.POWERING_ON,
    task_states.REBOOT_STARTED_HARD])
def test_server_that_nova_sees_to(make, task):
    world = make()
    world.instance.task_state = task
    world.start()
    assert world.instance.task_state == task
    world.instance.save.assert_not_called()


def test_server_that_is_elsewhere_by_now(make):
    world = make()
    world.instance.host = 'another'
    world.instance.task_state = task_states.RESCUING
    world.start()
    assert world.faults == []
    world.instance.save.assert_not_called()


@pytest.mark.parametrize('failure', [
    exception.InstanceNotFound(instance_id='x'), RuntimeError('no database')])
def test_server_that_cannot_be_had_hinders_nothing(make, failure):
    world = make(power_state.PAUSED, 'pending')
    with mock.patch.object(objects.Instance, 'get_by_uuid',
                           side_effect=failure):
        world.instance = None
        thread = recovery.Recovery(
            world.host, 'host', world.records, world.report, 3).run()
        thread.join(10)
    assert guest_of(world).state == power_state.SHUTDOWN
    assert [report[1] for report in world.reports] == ['failed']


def test_launch_that_was_closed_by_then_is_over(make):
    world = make()
    world.refusal = client_exceptions.RequestRefused(409, '', 'Closed.')
    world.start()
    assert world.records.left() == []


def test_report_that_is_lost_is_made_at_the_next_start(make):
    world = make()
    world.refusal = client_exceptions.ServiceUnavailable('Down.')
    world.start()
    assert len(world.records.left()) == 1
    world.refusal = None
    world.start()
    assert len(world.reports) == 2
    assert world.records.left() == []
