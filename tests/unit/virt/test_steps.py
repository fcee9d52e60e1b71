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

from concurrent import futures
import contextlib
import hashlib
import types
from unittest import mock

from nova.compute import power_state
from nova import exception
import pytest

from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.virt.attesters import amd_sev
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import platforms
from nova_sev_attest.virt import records
from nova_sev_attest.virt import steps
from nova_sev_attest.virt import waiting
from tests.unit.virt import fakes

TO_RELEASE = (steps.OpenLaunch, steps.StartPaused, steps.SendEvidence,
              steps.Inject)
ALL = (*TO_RELEASE, steps.Resume, steps.ReportRunning)


class Attester(amd_sev.AmdSevAttester):
    def read_platform(self, connection):
        return {'pdh': b'p', 'cert_chain': b'c'}


class Host:
    """GuardedHost: one domain, as it is while and after a start."""

    def __init__(self, log):
        self.log = log
        self.permits = set()
        self.guest = None

    def get_connection(self):
        return None

    def get_guest(self, instance):
        if self.guest is None:
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        return self.guest

    @contextlib.contextmanager
    def permit_start(self, uuid):
        self.log.append(('permit', uuid))
        yield
        self.log.append(('no permit', uuid))


class World:
    """A launch and all that it touches, with one order of events."""

    def __init__(self, folder, seconds=60):
        self.log = []
        self.domain = fakes.Domain()
        self.domain.calls = self.log
        self.transport = fakes.Transport()
        self.transport.calls = self.log
        self.host = Host(self.log)
        self.now = 0.0
        self.state = power_state.PAUSED
        self.launch = steps.Launch(
            instance=fakes.make_instance(), host=self.host,
            host_name='host', technology='amd-sev', attester=Attester(),
            transport=self.transport, platforms=platforms.PlatformCache(),
            records=records.LaunchRecords(folder, 'host'),
            owner_waits=waiting.OwnerWaits(1),
            domain=domain_xml.parse(fakes.DOMAIN), start=self.start,
            deadline=deadlines.Deadline(seconds, clock=lambda: self.now),
            launch_timeout=seconds, owner_timeout=600, report_timeout=1)

    def start(self, xml):
        self.log.append(('start',))
        # Live, the mark is what setMetadata makes it.
        self.domain.xml = xml.replace('state="pending"',
                                      'state="released" run="7"')
        self.defined = xml
        guest = fakes.Guest(self.domain)
        guest.state = self.state
        self.host.guest = guest
        return guest

    def run(self, *kinds):
        self.launch.run(*(kind() for kind in kinds or ALL))

    def names(self):
        return [entry[0] for entry in self.log]


@pytest.fixture
def world(tmp_path):
    return World(str(tmp_path))


def test_order(world):
    world.run()
    assert world.names() == [
        'create', 'permit', 'start', 'no permit', 'evidence',
        'setLaunchSecurityState', 'setMetadata', 'resume', 'outcome']
    assert world.log[-1][2:] == ('running', None)


@pytest.mark.parametrize('purpose', ['boot', 'rescue'])
def test_the_key_service_hears_what_it_is_for(world, purpose):
    world.launch.purpose = purpose
    # No secret for it, which is no failure.
    world.transport.release = None
    world.run()
    assert world.log[0][-1] == purpose
    assert world.names() == ['create', 'permit', 'start', 'no permit',
                             'evidence', 'setMetadata', 'resume', 'outcome']


def test_boot_files_are_hashed_while_the_guest_is_started(world, tmp_path):
    files = {}
    for name in ('kernel', 'ramdisk'):
        files[name] = tmp_path / name
        files[name].write_text(name)
    world.domain.xml = fakes.DOMAIN.replace('/i/', f'{tmp_path}/')
    world.launch.domain = domain_xml.parse(world.domain.xml)
    start = world.start

    def start_and_change(xml):
        begun = world.launch.hashing
        assert set(begun) == {str(path) for path in files.values()}
        futures.wait(begun.values(), 30)
        for path in files.values():
            path.write_text('changed')
        return start(xml)

    world.launch.start = start_and_change
    world.run()
    claimed = next(entry for entry in world.log if entry[0] == 'evidence')[-1]
    assert claimed['kernel_sha256'] == hashlib.sha256(b'kernel').hexdigest()
    assert claimed['initrd_sha256'] == hashlib.sha256(b'ramdisk').hexdigest()


def test_identity_is_fresh_and_hidden():
    one, two = steps.new_identity(), steps.new_identity()
    assert one.id != two.id and one.token != two.token
    assert len(bytes.fromhex(one.token)) == 32
    assert one.token not in repr(one)


def test_what_is_defined_carries_session_and_mark(world):
    world.run(*TO_RELEASE)
    domain = domain_xml.parse(world.defined)
    assert domain.findtext('launchSecurity/policy') == '0x003b'
    assert domain_xml.marker(domain) == domain_xml.Marker(
        world.launch.identity.id, 'pending')
    assert domain.findtext('on_reboot') == 'destroy'


def test_policy_without_secrets(world):
    world.transport.release = None
    world.run()
    assert 'setLaunchSecurityState' not in world.names()
    assert 'setMetadata' in world.names()


def test_release_is_not_kept(world):
    world.run()
    assert world.launch.release is None
    assert world.launch.identity.token not in repr(world.launch)


def test_denied_session_starts_and_reports_nothing(world):
    world.transport.failures['create'] = client_exceptions.AttestationDenied(
        403, 'attestation.policy_missing', 'No policy.')
    with pytest.raises(client_exceptions.AttestationDenied):
        world.run()
    assert world.names() == ['create']


def test_denied_evidence_destroys_and_leaves_the_record_as_it_is(world):
    world.transport.failures['evidence'] = (
        client_exceptions.AttestationDenied(403, '', 'No.'))
    with pytest.raises(client_exceptions.AttestationDenied):
        world.run()
    assert world.names()[-2:] == ['evidence', 'destroy']


@pytest.mark.parametrize('failure', [
    client_exceptions.ServiceUnavailable('Down.'), ValueError('x'),
    KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_any_failure_destroys_first_and_reports_then(world, failure):
    world.transport.failures['evidence'] = failure
    with pytest.raises(type(failure)):
        world.run()
    assert world.names()[-3:] == ['evidence', 'destroy', 'outcome']
    assert world.log[-1][2] == 'failed'
    assert world.log[-1][3]


def test_start_that_fails_after_the_guest_runs_is_destroyed(world):
    def start(xml):
        world.start(xml)
        raise RuntimeError('after the start')
    world.launch.start = start
    with pytest.raises(RuntimeError):
        world.run()
    assert world.names()[-3:] == ['start', 'destroy', 'outcome']


def test_start_that_fails_before_there_is_a_domain(world):
    def start(xml):
        raise RuntimeError('nothing defined')
    world.launch.start = start
    with pytest.raises(RuntimeError):
        world.run()
    assert 'destroy' not in world.names()
    assert world.names()[-1] == 'outcome'


def test_guest_that_is_not_paused_is_destroyed(world):
    world.state = power_state.RUNNING
    with pytest.raises(exceptions.AttestationFault, match='running'):
        world.run()
    assert 'evidence' not in world.names()
    assert world.names()[-2:] == ['destroy', 'outcome']


@pytest.mark.parametrize('kind', [steps.SendEvidence, steps.Inject,
                                  steps.Resume])
def test_deadline_is_kept_at_each_step(world, kind):
    place = ALL.index(kind)
    world.run(*ALL[:place])
    world.now = 61
    with pytest.raises(exceptions.AttestationRefused, match='60 s'):
        world.run(*ALL[place:])
    assert 'resume' not in world.names()
    assert world.names()[-2:] == ['destroy', 'outcome']


def test_later_failure_reverts_earlier_runs(world):
    world.run(*TO_RELEASE)
    world.launch.revert(RuntimeError('no network'))
    assert world.names()[-2:] == ['destroy', 'outcome']
    assert world.log[-1][2:] == ('failed', 'no network')


def test_revert_is_done_once(world):
    world.run(*TO_RELEASE)
    world.launch.revert(RuntimeError())
    count = len(world.log)
    world.launch.revert(RuntimeError())
    assert len(world.log) == count


def test_guest_that_cannot_be_destroyed_does_not_stop_the_report(world):
    def fail():
        raise RuntimeError('libvirt is gone')
    world.run(*TO_RELEASE)
    world.host.guest.poweroff = fail
    world.launch.revert(ValueError('the cause'))
    assert world.log[-1][2:] == ('failed', 'the cause')


def test_lost_report_keeps_the_guest(world):
    world.transport.failures['outcome'] = (
        client_exceptions.ServiceUnavailable('Down.'))
    world.run()
    assert world.names()[-2:] == ['resume', 'outcome']


def test_guest_of_a_host_without_certificates_is_never_asked_for(world):
    def fail(connection):
        raise RuntimeError('no SEV')
    world.launch.attester = types.SimpleNamespace(read_platform=fail)
    with pytest.raises(RuntimeError):
        world.run()
    assert world.log == []


def test_record_lasts_as_long_as_the_launch(world):
    world.run(*TO_RELEASE)
    (record,) = world.launch.records.left()
    assert record.identity == world.launch.identity
    world.run(steps.Resume, steps.ReportRunning)
    assert world.launch.records.left() == []


@pytest.mark.parametrize('operation', ['create', 'evidence'])
def test_record_ends_with_a_failed_launch(world, operation):
    world.transport.failures[operation] = ValueError('x')
    with pytest.raises(ValueError):
        world.run()
    assert world.launch.records.left() == []


def test_record_that_cannot_be_written_is_the_hosts_fault(world):
    def fail(server_id, identity):
        raise OSError(28, 'No space left on device')
    world.launch.records.open = fail
    with pytest.raises(exceptions.AttestationFault, match='No space left'):
        world.run()
    assert world.names() == []


@pytest.mark.parametrize('kind', [steps.SendEvidence, steps.Inject,
                                  steps.Resume])
def test_guest_that_somebody_ran_is_destroyed(world, kind):
    place = ALL.index(kind)
    world.run(*ALL[:place])
    # Heard from libvirt; the guest may be paused again.
    world.launch.ran_early = True
    with pytest.raises(exceptions.AttestationFault, match='something ran it'):
        world.run(*ALL[place:])
    assert world.names()[-2:] == ['destroy', 'outcome']
    assert 'resume' not in world.names()


@pytest.mark.parametrize('operation', ['create', 'evidence'])
def test_wait_for_the_owner(world, operation):
    world.transport.owners[operation] = 3600
    world.run(steps.OpenLaunch, steps.StartPaused, steps.SendEvidence)
    (deadline,) = world.transport.deadlines
    assert deadline.seconds == 600
    # For the rest, a launch's ordinary time; and the place is free again.
    assert world.launch.deadline.seconds == 60
    assert world.launch.deadline is not deadline
    world.launch.owner_waits.begin('another')


def test_wait_no_longer_than_the_key_service_allows(world):
    world.transport.owners['create'] = 90
    world.run(steps.OpenLaunch)
    (deadline,) = world.transport.deadlines
    assert deadline.seconds == 90


def test_no_wait_no_other_deadline(world):
    deadline = world.launch.deadline
    world.run()
    assert world.launch.deadline is deadline


def test_too_many_wait(world):
    world.launch.owner_waits.begin('another')
    world.transport.owners['create'] = 90
    with pytest.raises(exceptions.AttestationRefused, match='max_waiting'):
        world.run()
    assert 'start' not in world.names()
    # Nothing of the other's was given away.
    with pytest.raises(exceptions.AttestationRefused):
        world.launch.owner_waits.begin('a third')


def test_place_is_given_back_when_the_owner_says_no(world):
    world.transport.owners['evidence'] = 90
    world.transport.refusal_after_wait = (
        client_exceptions.AttestationDenied(403, '', 'Denied by its owner.'))
    with pytest.raises(client_exceptions.AttestationDenied):
        world.run()
    world.launch.owner_waits.begin('another')


class Events:
    def __init__(self):
        self.log = []

    @contextlib.contextmanager
    def event(self, name, to_show):
        try:
            yield
        except BaseException as failure:
            self.log.append((name, str(to_show(failure))))
            raise
        self.log.append((name, None))


def test_action_events(world):
    world.launch.events = Events()
    world.run()
    assert world.launch.events.log == [
        ('sev_attest_session', None), ('sev_attest_start', None),
        ('sev_attest_measurement', None), ('sev_attest_release', None)]


def test_action_event_tells_why(world):
    world.launch.events = Events()
    world.transport.failures['evidence'] = (
        client_exceptions.AttestationDenied(403, '', 'The initrd differs.'))
    with pytest.raises(client_exceptions.AttestationDenied):
        world.run()
    name, told = world.launch.events.log[-1]
    assert name == 'sev_attest_measurement'
    assert 'The initrd differs.' in told and len(told) <= 255


def test_guest_that_cannot_be_destroyed_is_left_for_later(world):
    world.run(*TO_RELEASE)
    world.host.get_guest = mock.Mock(
        side_effect=exception.HypervisorUnavailable(host='host'))
    world.launch.revert(ValueError('late'))
    assert world.launch.left
    assert world.log[-1][2] == 'failed'
    record, = world.launch.records.left()
    assert record.identity.id == world.launch.identity.id


def test_guest_that_is_destroyed_is_not_left(world):
    world.run(*TO_RELEASE)
    world.launch.revert(ValueError('late'))
    assert not world.launch.left
    assert not world.launch.records.left()
