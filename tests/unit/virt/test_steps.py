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
import types

from nova.compute import power_state
from nova import exception
import pytest

from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.virt.attesters import amd_sev
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import steps
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

    def __init__(self, seconds=60):
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
            transport=self.transport,
            domain=domain_xml.parse(fakes.DOMAIN), start=self.start,
            deadline=deadlines.Deadline(seconds, clock=lambda: self.now),
            report_timeout=1)

    def start(self, xml):
        self.log.append(('start',))
        # Live, the mark is what setMetadata makes it.
        self.domain.xml = xml.replace('state="pending"', 'state="released"')
        self.defined = xml
        guest = fakes.Guest(self.domain)
        guest.state = self.state
        self.host.guest = guest
        return guest

    def run(self, *kinds):
        self.launch.run(*(kind() for kind in kinds or ALL))

    def names(self):
        return [entry[0] for entry in self.log]


def test_order():
    world = World()
    world.run()
    assert world.names() == [
        'create', 'permit', 'start', 'no permit', 'evidence',
        'setLaunchSecurityState', 'setMetadata', 'resume', 'outcome']
    assert world.log[-1][2:] == ('running', None)


def test_identity_is_fresh_and_hidden():
    one, two = steps.new_identity(), steps.new_identity()
    assert one.id != two.id and one.token != two.token
    assert len(bytes.fromhex(one.token)) == 32
    assert one.token not in repr(one)


def test_what_is_defined_carries_session_and_mark():
    world = World()
    world.run(*TO_RELEASE)
    domain = domain_xml.parse(world.defined)
    assert domain.findtext('launchSecurity/policy') == '0x003b'
    assert domain_xml.marker(domain) == domain_xml.Marker(
        world.launch.identity.id, 'pending')
    assert domain.findtext('on_reboot') == 'destroy'


def test_policy_without_secrets():
    world = World()
    world.transport.release = None
    world.run()
    assert 'setLaunchSecurityState' not in world.names()
    assert 'setMetadata' in world.names()


def test_release_is_not_kept():
    world = World()
    world.run()
    assert world.launch.release is None
    assert world.launch.identity.token not in repr(world.launch)


def test_denied_session_starts_and_reports_nothing():
    world = World()
    world.transport.failures['create'] = client_exceptions.AttestationDenied(
        403, 'attestation.policy_missing', 'No policy.')
    with pytest.raises(client_exceptions.AttestationDenied):
        world.run()
    assert world.names() == ['create']


def test_denied_evidence_destroys_and_leaves_the_record_as_it_is():
    world = World()
    world.transport.failures['evidence'] = (
        client_exceptions.AttestationDenied(403, '', 'No.'))
    with pytest.raises(client_exceptions.AttestationDenied):
        world.run()
    assert world.names()[-2:] == ['evidence', 'destroy']


@pytest.mark.parametrize('failure', [
    client_exceptions.ServiceUnavailable('Down.'), ValueError('x'),
    KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_any_failure_destroys_first_and_reports_then(failure):
    world = World()
    world.transport.failures['evidence'] = failure
    with pytest.raises(type(failure)):
        world.run()
    assert world.names()[-3:] == ['evidence', 'destroy', 'outcome']
    assert world.log[-1][2] == 'failed'
    assert world.log[-1][3]


def test_start_that_fails_after_the_guest_runs_is_destroyed():
    world = World()

    def start(xml):
        world.start(xml)
        raise RuntimeError('after the start')
    world.launch.start = start
    with pytest.raises(RuntimeError):
        world.run()
    assert world.names()[-3:] == ['start', 'destroy', 'outcome']


def test_start_that_fails_before_there_is_a_domain():
    world = World()

    def start(xml):
        raise RuntimeError('nothing defined')
    world.launch.start = start
    with pytest.raises(RuntimeError):
        world.run()
    assert 'destroy' not in world.names()
    assert world.names()[-1] == 'outcome'


def test_guest_that_is_not_paused_is_destroyed():
    world = World()
    world.state = power_state.RUNNING
    with pytest.raises(exceptions.AttestationFault, match='running'):
        world.run()
    assert 'evidence' not in world.names()
    assert world.names()[-2:] == ['destroy', 'outcome']


@pytest.mark.parametrize('kind', [steps.SendEvidence, steps.Inject,
                                  steps.Resume])
def test_deadline_is_kept_at_each_step(kind):
    world = World()
    place = ALL.index(kind)
    world.run(*ALL[:place])
    world.now = 61
    with pytest.raises(exceptions.AttestationRefused, match='60 s'):
        world.run(*ALL[place:])
    assert 'resume' not in world.names()
    assert world.names()[-2:] == ['destroy', 'outcome']


def test_later_failure_reverts_earlier_runs():
    world = World()
    world.run(*TO_RELEASE)
    world.launch.revert(RuntimeError('no network'))
    assert world.names()[-2:] == ['destroy', 'outcome']
    assert world.log[-1][2:] == ('failed', 'no network')


def test_revert_is_done_once():
    world = World()
    world.run(*TO_RELEASE)
    world.launch.revert(RuntimeError())
    count = len(world.log)
    world.launch.revert(RuntimeError())
    assert len(world.log) == count


def test_guest_that_cannot_be_destroyed_does_not_stop_the_report():
    world = World()

    def fail():
        raise RuntimeError('libvirt is gone')
    world.run(*TO_RELEASE)
    world.host.guest.poweroff = fail
    world.launch.revert(ValueError('the cause'))
    assert world.log[-1][2:] == ('failed', 'the cause')


def test_lost_report_keeps_the_guest():
    world = World()
    world.transport.failures['outcome'] = (
        client_exceptions.ServiceUnavailable('Down.'))
    world.run()
    assert world.names()[-2:] == ['resume', 'outcome']


def test_guest_of_a_host_without_certificates_is_never_asked_for():
    world = World()

    def fail(connection):
        raise RuntimeError('no SEV')
    world.launch.attester = types.SimpleNamespace(read_platform=fail)
    with pytest.raises(RuntimeError):
        world.run()
    assert world.log == []
