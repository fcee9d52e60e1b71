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

"""The steps of an attested launch.

In this order, each with what undoes it: ask the key service for a session,
start the guest paused, send what the platform measured, inject what was
released, resume. Whatever fails, the steps begun so far are reverted from the
last to the first: so the guest is destroyed before anything is reported about
it. That a guest runs is reported at last, and no server waits for it.
"""

import abc
import contextlib
import dataclasses
import secrets
import uuid

from nova.compute import power_state
from nova import exception
from oslo_log import log as logging

from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.client import launches
from nova_sev_attest.virt import claims
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import faults
from nova_sev_attest.virt import waiting

LOG = logging.getLogger(__name__)


def new_identity():
    """A launch's UUID and token, made afresh for each boot."""
    return launches.LaunchIdentity(id=str(uuid.uuid4()),
                                   token=secrets.token_hex(32))


@dataclasses.dataclass(repr=False)
class Launch:
    """One boot of one server, and how far it got.

    :ivar instance: nova.objects.Instance
    :ivar host: GuardedHost
    :ivar host_name: this compute host's name in Nova's API
    :ivar technology: hw:mem_encryption_model
    :ivar attester: Attester of that technology
    :ivar transport: Transport
    :ivar platforms: PlatformCache
    :ivar records: LaunchRecords
    :ivar owner_waits: OwnerWaits
    :ivar domain: the <domain> element that will be defined; None while
        there is none yet
    :ivar start: called with the domain's XML, defines and starts it paused
        and returns its GuardedGuest; None like domain
    :ivar launch_timeout: seconds for the whole, but for waits for owners
    :ivar owner_timeout: seconds for each wait for the server's owner
    :ivar report_timeout: seconds for reporting the outcome
    :ivar events: ActionEvents, None where the boot has no action
    :ivar purpose: what it is for, launches.BOOT or launches.RESCUE
    :ivar deadline: Deadline of what is under way
    :ivar platform: the certificates that were shown
    :ivar hashing: its boot files, see claims.begin()
    :ivar released: whether this run of the guest was marked as attested
    :ivar ran_early: set, by whoever heard of it, when the guest was resumed
        before that
    :ivar left: whether its guest was to be destroyed and could not be
    """

    instance: object
    host: object
    host_name: str
    technology: str
    attester: object
    transport: object
    platforms: object
    records: object
    owner_waits: object
    launch_timeout: float
    owner_timeout: float
    report_timeout: float
    domain: object = None
    start: object = None
    events: object = None
    purpose: str = launches.BOOT
    deadline: deadlines.Deadline | None = None
    identity: launches.LaunchIdentity = dataclasses.field(
        default_factory=new_identity)
    platform: object = None
    hashing: dict = dataclasses.field(default_factory=dict)
    guest: object = None
    session: object = None
    release: object = None
    released: bool = False
    ran_early: bool = False
    left: bool = False
    begun: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if self.deadline is None:
            self.deadline = deadlines.Deadline(self.launch_timeout)

    def run(self, *steps):
        """Execute steps; on any failure revert all that were ever begun.

        :raises: whatever the failing step raised, after reverting
        """
        try:
            for step in steps:
                self.begun.append(step)
                with self._event(step):
                    step.execute(self)
        except BaseException as failure:
            self.revert(failure)
            raise

    def _event(self, step):
        if self.events is None or step.event is None:
            return contextlib.nullcontext()
        return self.events.event(
            step.event, lambda failure: faults.to_show(
                failure, self.instance.uuid, self))

    def revert(self, failure):
        """Undo what was begun; what cannot be undone is logged."""
        while self.begun:
            step = self.begun.pop()
            try:
                step.revert(self, failure)
            except Exception:
                LOG.exception('Launch %(launch)s: reverting %(step)s failed',
                              {'launch': self.identity.id,
                               'step': type(step).__name__},
                              instance=self.instance)

    def check(self):
        """Go on only in time, and with a guest that did not run yet."""
        if self.deadline.has_passed():
            raise exceptions.AttestationRefused(
                self.instance.uuid,
                f'it was not attested within {self.deadline.seconds:g} s '
                f'and was destroyed; try again, or raise [sev_attest] '
                f'launch_timeout', f'See launch {self.identity.id}.')
        state = self.guest.get_power_state(self.host)
        if self.ran_early or state != power_state.PAUSED:
            raise exceptions.AttestationFault(
                instance_uuid=self.instance.uuid,
                reason=f'its guest should wait paused, but something ran it '
                       f'before it was attested (it is '
                       f'{power_state.STATE_MAP.get(state, state)})')

    def log(self, message):
        LOG.info('Launch %(launch)s: %(message)s',
                 {'launch': self.identity.id, 'message': message},
                 instance=self.instance)


class Step(abc.ABC):
    """One step; it keeps nothing itself, all is in the Launch.

    :cvar event: the instance action event that shows it, None for none
    """

    event = None

    @abc.abstractmethod
    def execute(self, launch):
        """Do it, or raise."""

    @abc.abstractmethod
    def revert(self, launch, failure):
        """Undo it, however far it got."""


class OpenLaunch(Step):
    """Show the platform's certificates and get a session for them."""

    event = 'sev_attest_session'

    def execute(self, launch):
        launch.platform = launch.platforms.read(
            launch.technology, launch.attester, launch.host.get_connection())
        try:
            launch.records.open(launch.instance.uuid, launch.identity)
        except OSError as error:
            raise exceptions.AttestationFault(
                instance_uuid=launch.instance.uuid,
                reason=f'the launch cannot be recorded below state_path: '
                       f'{error.strerror}') from error
        with waiting.allowed(launch) as wait:
            launch.session = launch.transport.create_launch(
                launch.identity, launch.instance.uuid, launch.host_name,
                launch.technology, launch.platform, launch.deadline,
                waiting=wait, purpose=launch.purpose)
        launch.log(f'opened, for a {launch.purpose}')

    def revert(self, launch, failure):
        """Report the failure, once, for the record.

        Not where there is no launch, nor where the key service itself
        closed it by its denial.
        """
        if launch.session is not None and not isinstance(
                failure, client_exceptions.AttestationDenied):
            _report(launch, 'failed', str(failure) or type(failure).__name__)
        if not launch.left:
            launch.records.close(launch.instance.uuid, launch.identity.id)


class StartPaused(Step):
    """Define the domain with its session and start it paused."""

    event = 'sev_attest_start'

    def execute(self, launch):
        launch.attester.prepare(launch.domain, launch.session)
        domain_xml.mark_pending(launch.domain, launch.identity.id)
        launch.hashing = claims.begin(launch.domain, launch.deadline)
        with launch.host.permit_start(launch.instance.uuid):
            launch.guest = launch.start(domain_xml.to_text(launch.domain))
        launch.log('guest started, paused')

    def revert(self, launch, failure):
        """Destroy the guest before it runs; Nova undefines it.

        Looked up anew: the start may have failed after the guest ran. Where
        libvirt is gone, the guest is left for later; see watch.
        """
        launch.left = True
        with contextlib.suppress(exception.InstanceNotFound):
            guest = launch.host.get_guest(launch.instance)
            if guest.is_active():
                guest.poweroff()
                launch.log('guest destroyed')
        launch.left = False


class SendEvidence(Step):
    """Send what the platform measured; take what is released for it."""

    event = 'sev_attest_measurement'

    def execute(self, launch):
        launch.check()
        evidence = launch.attester.read_evidence(launch.guest)
        domain = domain_xml.parse(launch.guest.get_xml_desc())
        claimed = claims.gather(domain, launch.deadline, launch.hashing)
        with waiting.allowed(launch) as wait:
            launch.release = launch.transport.send_evidence(
                launch.identity, launch.technology, evidence, claimed,
                launch.deadline, waiting=wait)
        launch.log('evidence accepted')

    def revert(self, launch, failure):
        """Nothing: the key service knows, and StartPaused destroys."""


class Inject(Step):
    """Give the guest its secret and mark this run of it as attested."""

    event = 'sev_attest_release'

    def execute(self, launch):
        launch.check()
        if launch.release is not None:
            launch.attester.inject(launch.guest, launch.release)
            launch.release = None
        launch.guest.mark_released(launch.identity.id)
        launch.released = True
        launch.log('released')

    def revert(self, launch, failure):
        """Nothing: mark and secret end with the guest."""


class Resume(Step):
    """Let the guest run."""

    def execute(self, launch):
        launch.check()
        launch.guest.resume()

    def revert(self, launch, failure):
        """Nothing: StartPaused destroys the guest, running or not."""


class ReportRunning(Step):
    """Tell the key service that the guest runs; apart, and never reverted.

    The record of a launch that cannot be told of stays, for recovery.
    """

    def execute(self, launch):
        launch.log('guest runs')
        _report(launch, 'running', None)
        launch.records.close(launch.instance.uuid, launch.identity.id)

    def revert(self, launch, failure):
        """Nothing: the guest runs, attested."""


def _report(launch, status, reason):
    """Report an outcome; it is a record, and nothing hangs on it."""
    try:
        launch.transport.report_outcome(
            launch.identity, status, reason,
            deadlines.Deadline(launch.report_timeout))
    except client_exceptions.ClientError as error:
        LOG.warning('Launch %(launch)s: its outcome "%(status)s" could not '
                    'be reported: %(error)s',
                    {'launch': launch.identity.id, 'status': status,
                     'error': error}, instance=launch.instance)
