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

"""Nova's libvirt driver with launch attestation.

It only orchestrates: which servers is scope's to say, what happens steps',
how a technology does it an attester's, and guard sees to it that nothing
else runs a guest. Servers that are not attested take Nova's own path.
"""

from nova import exception
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import guest as libvirt_guest
from oslo_log import log as logging
from oslo_utils import excutils
from stevedore import driver as stevedore_driver

from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.virt import attesters
from nova_sev_attest.virt.attesters import base as attester_base
from nova_sev_attest.virt import conf
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import guard
from nova_sev_attest.virt import scope
from nova_sev_attest.virt import steps

CONF = conf.CONF
LOG = logging.getLogger(__name__)

TRANSPORTS = 'nova_sev_attest.transports'


def _is_the_platforms(failure):
    """Whether a failure is the secure processor's, as libvirt tells it.

    QEMU's messages about the processor's commands name SEV, and libvirt
    passes them on. Anything else may be a fault of this host alone.
    """
    return (isinstance(failure, libvirt_guest.libvirt.libvirtError)
            and 'sev' in str(failure).lower())


class LibvirtDriver(libvirt_driver.LibvirtDriver):
    """compute_driver = sev_attest.LibvirtDriver"""

    def __init__(self, virtapi, read_only=False):
        super().__init__(virtapi, read_only)
        guard.guard_host(self._host)
        self._attesters = attesters.load()
        # Launches that were released, while Nova waits for their network
        # before it resumes them; by server.
        self._held_launches = {}
        self._transport = None

    def _get_transport(self):
        # Made when first needed: a host without encrypted guests needs no
        # key service and no credential for one.
        if self._transport is None:
            self._transport = stevedore_driver.DriverManager(
                TRANSPORTS, CONF.sev_attest.transport, invoke_on_load=True,
                invoke_args=(CONF,)).driver
        return self._transport

    def _create_guest(self, context, xml, instance, power_on=True,
                      pause=False, post_xml_callback=None):
        """Define a guest, and start it if asked, attested where it must be.

        Every path of Nova's driver that starts a guest from XML ends here,
        with XML of its own or, for unrescue, of an earlier launch. A guest
        that Nova wants paused is released paused: Nova resumes it once its
        network is there.
        """
        create = super()._create_guest
        technology = scope.technology_to_attest(
            instance, xml, CONF.sev_attest.mode, self._attesters)
        if technology is None:
            return create(context, xml, instance, power_on=power_on,
                          pause=pause, post_xml_callback=post_xml_callback)
        domain = domain_xml.parse(xml)
        if not (power_on or pause):
            domain_xml.mark_pending(domain)
            return create(context, domain_xml.to_text(domain), instance,
                          power_on=False,
                          post_xml_callback=post_xml_callback)

        def start(marked_xml):
            return create(context, marked_xml, instance, power_on=True,
                          pause=True, post_xml_callback=post_xml_callback)

        launch = None
        try:
            attester = self._attesters[technology]
            attester.check(domain)
            launch = steps.Launch(
                instance=instance, host=self._host, host_name=CONF.host,
                technology=technology, attester=attester,
                transport=self._get_transport(), domain=domain, start=start,
                deadline=deadlines.Deadline(CONF.sev_attest.launch_timeout),
                report_timeout=CONF.sev_attest.report_timeout)
            launch.run(steps.OpenLaunch(), steps.StartPaused(),
                       steps.SendEvidence(), steps.Inject())
            if pause:
                self._held_launches[instance.uuid] = launch
            else:
                launch.run(steps.Resume(), steps.ReportRunning())
        except Exception as failure:
            self._raise_for_nova(failure, instance, launch)
        return launch.guest

    def _create_guest_with_network(self, context, xml, instance,
                                   *args, **kwargs):
        """Also see a guest through that was released and waits paused."""
        try:
            guest = super()._create_guest_with_network(
                context, xml, instance, *args, **kwargs)
        except BaseException as failure:
            # Nova undefines the domain but leaves it to wait for ever.
            launch = self._held_launches.pop(instance.uuid, None)
            if launch is not None:
                with excutils.save_and_reraise_exception():
                    launch.revert(failure)
            raise
        launch = self._held_launches.pop(instance.uuid, None)
        if launch is not None:
            launch.run(steps.ReportRunning())
        return guest

    @staticmethod
    def _raise_for_nova(failure, instance, launch):
        """Raise a failure as what Nova does the right thing with.

        An AttestationRefused aborts a build and is shown to the user; other
        exceptions make Nova try another host.
        """
        # The key service keeps a record of a launch that got its session,
        # and shows its owner there what was expected.
        recorded = launch is not None and launch.session is not None
        see = f'See launch {launch.identity.id}.' if recorded else ''
        if isinstance(failure, client_exceptions.RequestRefused):
            detail = failure.detail or f'HTTP {failure.status}'
            raise exceptions.AttestationRefused(
                instance.uuid, f'the key service denied it: {detail}',
                see) from failure
        if isinstance(failure, client_exceptions.ClientError):
            raise exceptions.AttestationRefused(
                instance.uuid, str(failure), see) from failure
        if isinstance(failure, domain_xml.Unlaunchable):
            raise exceptions.AttestationRefused(
                instance.uuid, f'it cannot be attested: {failure}',
                see) from failure
        if isinstance(failure, attester_base.AttesterError):
            raise exceptions.AttestationFault(
                instance_uuid=instance.uuid, reason=failure) from failure
        if recorded and _is_the_platforms(failure):
            raise exceptions.AttestationRefused(
                instance.uuid,
                f'the platform refused its session or secret (try again): '
                f'{failure}', see) from failure
        if isinstance(failure, exception.InstanceEventTimeout):
            # Nova would take it for its own wait for the network, and go
            # on with a guest that it never got.
            raise exceptions.AttestationFault(
                instance_uuid=instance.uuid,
                reason='an event that it waited for did not come'
            ) from failure
        raise failure

    # What else would run vCPUs of a guest without a launch of its own. Nova
    # refuses most of it in its API; these bind the host, too.

    def _soft_reboot(self, instance):
        """Never for an attested guest: Nova's would start it unattested.

        :returns: False, which makes Nova do a hard reboot
        """
        if self._is_attested(instance):
            LOG.info('A guest that is attested at launch is rebooted hard.',
                     instance=instance)
            return False
        return super()._soft_reboot(instance)

    def suspend(self, context, instance):
        self._refuse_if_attested(instance, 'suspend')
        super().suspend(context, instance)

    def resume(self, context, instance, network_info,
               block_device_info=None, share_info=None):
        self._refuse_if_attested(instance, 'resume')
        super().resume(context, instance, network_info, block_device_info,
                       share_info)

    def _suspend_guest_for_snapshot(self, context, live_snapshot,
                                    current_power_state, instance):
        if (self._needs_suspend_resume_for_snapshot(
                live_snapshot, current_power_state) and
                self._is_attested(instance)):
            raise exception.OperationNotSupportedForMemEncryption(
                operation='cold snapshot of a running server (stop it '
                          'first)', instance_uuid=instance.uuid)
        super()._suspend_guest_for_snapshot(
            context, live_snapshot, current_power_state, instance)

    def check_can_live_migrate_destination(
            self, context, instance, src_compute_info, dst_compute_info,
            block_migration=False, disk_over_commit=False):
        self._refuse_migration(instance)
        return super().check_can_live_migrate_destination(
            context, instance, src_compute_info, dst_compute_info,
            block_migration, disk_over_commit)

    def check_can_live_migrate_source(self, context, instance,
                                      dest_check_data,
                                      block_device_info=None):
        self._refuse_migration(instance)
        return super().check_can_live_migrate_source(
            context, instance, dest_check_data, block_device_info)

    def _is_attested(self, instance):
        """Whether the server, or the domain it has, runs attested only."""
        if scope.is_attested(instance, CONF.sev_attest.mode):
            return True
        try:
            guest = self._host.get_guest(instance)
        except exception.InstanceNotFound:
            return False
        return isinstance(guest, guard.GuardedGuest) and guest.is_guarded()

    def _refuse_if_attested(self, instance, operation):
        if self._is_attested(instance):
            # Makes Nova put the server's state back instead of to ERROR.
            raise exception.InstanceFaultRollback(
                exception.OperationNotSupportedForMemEncryption(
                    operation=operation, instance_uuid=instance.uuid))

    @staticmethod
    def _refuse_migration(instance):
        if scope.is_attested(instance, CONF.sev_attest.mode):
            raise exception.MigrationPreCheckError(
                reason='a guest that is attested at launch cannot be live '
                       'migrated; migrate it cold, which attests it anew')
