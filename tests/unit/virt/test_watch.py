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
from nova import exception
from nova import objects
from nova.virt import event as virtevent
import pytest

from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import guard
from nova_sev_attest.virt import watch
from tests.unit.virt import fakes

STARTED = virtevent.EVENT_LIFECYCLE_STARTED
RESUMED = virtevent.EVENT_LIFECYCLE_RESUMED


def make_guest(state=power_state.RUNNING, mark='pending', run='7'):
    domain = domain_xml.parse(fakes.DOMAIN)
    if mark is not None:
        domain_xml.mark_pending(domain, 'launch')
        element = domain.find(f'metadata/{{{domain_xml.NAMESPACE}}}launch')
        element.set('state', mark)
        element.set('run', run)
    guest = fakes.Guest(fakes.Domain(domain_xml.to_text(domain)))
    guest._permits = set()
    guest.state = state
    return guest


class Host:
    def __init__(self, *guests):
        self.guests = guests

    def list_guests(self):
        return self.guests

    def find_guest(self, uuid):
        assert uuid == fakes.UUID
        return self.guests[0] if self.guests else None


class SoonThread:
    """threading.Thread that runs its target at once."""

    def __init__(self, target, args, daemon):
        assert daemon
        self.start = lambda: target(*args)


@pytest.fixture
def written():
    """What is written down of unattested runs."""
    log = []

    def reporter(context, name, host, uuid):
        manager = mock.MagicMock()
        manager.__exit__.side_effect = lambda kind, value, trace: (
            log.append((name, host, uuid, str(value))))
        manager.__exit__.return_value = False
        return manager

    with mock.patch.object(objects.Instance, 'get_by_uuid'), \
            mock.patch.object(objects.InstanceAction, 'action_start'), \
            mock.patch.object(watch.compute_utils, 'EventReporter',
                              reporter), \
            mock.patch.object(watch.threading, 'Thread', SoonThread), \
            mock.patch.object(watch.compute_utils,
                              'notify_about_instance_action') as notify:
        yield log, notify


def make(*guests, launches=None):
    return watch.Watch(Host(*guests), 'host', launches or {})


def heard(watching, transition=RESUMED):
    watching.heard(virtevent.LifecycleEvent(fakes.UUID, transition))


@pytest.mark.parametrize('transition', [STARTED, RESUMED])
def test_what_runs_unattested_is_destroyed_and_written_down(
        written, transition):
    log, notify = written
    guest = make_guest()
    heard(make(guest), transition)
    assert guest.state == power_state.SHUTDOWN
    ((name, host, uuid, told),) = log
    assert (name, host, uuid) == (watch.ACTION, 'host', fakes.UUID)
    assert 'not attested' in told
    (call,) = notify.call_args_list
    assert 'not attested' in str(call.kwargs['exception'])


@pytest.mark.parametrize('guest', [
    make_guest(mark='released'),
    make_guest(power_state.PAUSED),
    # Runs from before the driver was there: Nova's, or nobody's.
    make_guest(mark=None),
])
def test_what_may_run_is_left_alone(written, guest):
    state = guest.state
    watching = make(guest)
    heard(watching)
    assert watching.look() == []
    assert guest.state == state
    assert written[0] == []


def test_release_of_another_run_is_none(written):
    guest = make_guest(mark='released', run='6')
    assert make(guest).look() == [fakes.UUID]
    assert guest.state == power_state.SHUTDOWN


class ReleasedMeanwhile(fakes.Guest):
    """Waits paused when it is looked at, and runs attested right after."""

    def get_power_state(self, host):
        seen, self.state = self.state, power_state.RUNNING
        self._domain.xml = make_guest(mark='released')._domain.xml
        return seen


def test_launch_that_goes_on_while_one_looks(written):
    for first in (power_state.PAUSED, power_state.RUNNING):
        guest = make_guest(first)
        guest.__class__ = ReleasedMeanwhile
        assert make(guest).look() == []
        assert guest.state == power_state.RUNNING


def test_next_run_is_not_the_one_that_was_seen(written):
    guest = make_guest()
    ids = iter((6, 7))
    guest._domain.ID = lambda: next(ids)
    assert make(guest).look() == []
    assert guest.state == power_state.RUNNING


def test_other_events_are_novas(written):
    guest = make_guest()
    watching = make(guest)
    heard(watching, virtevent.EVENT_LIFECYCLE_PAUSED)
    watching.heard(mock.sentinel.not_a_lifecycle_event)
    assert guest.state == power_state.RUNNING


def test_launch_under_way_hears_of_it(written):
    launch = mock.Mock(released=False, ran_early=False)
    # Resumed and paused again by now.
    watching = make(make_guest(power_state.PAUSED),
                    launches={fakes.UUID: launch})
    heard(watching, STARTED)
    assert launch.ran_early is False
    heard(watching)
    assert launch.ran_early is True


def test_release_is_what_resumes_a_launch(written):
    launch = mock.Mock(released=True, ran_early=False)
    heard(make(make_guest(mark='released'), launches={fakes.UUID: launch}))
    assert launch.ran_early is False


def test_domain_that_is_gone(written):
    heard(make())


def test_libvirt_that_is_gone(written):
    watching = make()
    watching._host.find_guest = mock.Mock(
        side_effect=exception.InternalError('no libvirt'))
    heard(watching)
    assert written[0] == []


def test_one_domain_that_vanishes_hides_no_other(written):
    def vanish(host):
        raise fakes.libvirt_error('no domain')
    gone, there = make_guest(), make_guest()
    gone.get_power_state = vanish
    assert make(gone, there).look() == [fakes.UUID]
    assert there.state == power_state.SHUTDOWN


def test_what_cannot_be_destroyed_is_written_down_once(written):
    guest = make_guest()
    destroy = guest.poweroff
    guest.poweroff = mock.Mock(side_effect=fakes.libvirt_error('busy'))
    watching = make(guest)
    heard(watching)
    assert watching.look() == []
    assert len(written[0]) == 1
    guest.poweroff = destroy
    assert watching.look() == [fakes.UUID]
    assert len(written[0]) == 1


def test_a_later_run_is_written_down_again(written):
    """Also where libvirtd, started anew, gives it the same number."""
    guest = make_guest()
    watching = make(guest)
    watching.look()
    watching._host.guests = ()
    assert watching.look() == []
    guest.state = power_state.RUNNING
    watching._host.guests = (guest,)
    assert watching.look() == [fakes.UUID]
    assert len(written[0]) == 2


def test_database_that_is_gone_does_not_keep_it_running(written):
    objects.Instance.get_by_uuid.side_effect = RuntimeError('no conductor')
    guest = make_guest()
    assert make(guest).look() == [fakes.UUID]
    assert guest.state == power_state.SHUTDOWN


def test_stand_ins_are_left_alone(written):
    stand_in = mock.MagicMock(id=7)
    stand_in.get_power_state.return_value = power_state.RUNNING
    stand_in.is_released.return_value = False
    watching = make(stand_in)
    assert watching.look() == []
    heard(watching)
    assert not isinstance(stand_in, guard.GuardedGuest)
    stand_in.poweroff.assert_not_called()


def left_over(launch_id='launch'):
    launch = mock.Mock()
    launch.instance.uuid = fakes.UUID
    launch.identity.id = launch_id
    return launch


@pytest.mark.parametrize('state', [power_state.PAUSED, power_state.RUNNING])
@pytest.mark.parametrize('mark', ['pending', 'released'])
def test_guest_of_a_failed_launch_is_destroyed_at_the_next_look(
        state, mark):
    guest = make_guest(state, mark)
    guest.poweroff = mock.Mock()
    watching = watch.Watch(Host(guest), 'host', {})
    launch = left_over()
    watching.left(launch)
    watching._destroy_left(launch)
    guest.poweroff.assert_called_once_with()
    launch.records.close.assert_called_once_with(fakes.UUID, 'launch')


def test_guest_of_a_later_launch_stays():
    guest = make_guest(power_state.RUNNING, 'released')
    guest.poweroff = mock.Mock()
    watching = watch.Watch(Host(guest), 'host', {})
    launch = left_over('earlier')
    watching.left(launch)
    assert watching.look() == []
    guest.poweroff.assert_not_called()
    launch.records.close.assert_called_once_with(fakes.UUID, 'earlier')
    watching.look()
    launch.records.close.assert_called_once()


def test_guest_is_not_forgotten_while_libvirt_is_gone():
    watching = watch.Watch(Host(), 'host', {})
    launch = left_over()
    watching.left(launch)
    watching._host.find_guest = mock.Mock(
        side_effect=exception.InternalError('gone'))
    with pytest.raises(exception.InternalError):
        watching.look()
    watching._host.find_guest = lambda uuid: None
    watching.look()
    launch.records.close.assert_called_once()
