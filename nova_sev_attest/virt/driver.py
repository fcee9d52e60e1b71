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

import contextlib
import functools
import inspect
import threading

from nova.compute import power_state
from nova.compute import vm_states
from nova import exception
from nova.virt import hardware
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging
from stevedore import driver as stevedore_driver

from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.client import launches
from nova_sev_attest.virt import ahead
from nova_sev_attest.virt import attesters
from nova_sev_attest.virt import boot_files
from nova_sev_attest.virt import conf
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import events
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import faults
from nova_sev_attest.virt import guard
from nova_sev_attest.virt import platform_errors
from nova_sev_attest.virt import platforms
from nova_sev_attest.virt import records
from nova_sev_attest.virt import recovery
from nova_sev_attest.virt import scope
from nova_sev_attest.virt import steps
from nova_sev_attest.virt import traits
from nova_sev_attest.virt import waiting
from nova_sev_attest.virt import watch

CONF = conf.CONF
LOG = logging.getLogger(__name__)

TRANSPORTS = 'nova_sev_attest.transports'


_ENDED = frozenset([power_state.SHUTDOWN, power_state.CRASHED])
# Seconds that a boot waits for its last action events to be written.
EVENTS_TIMEOUT = 2.0
# Begins the names of threads that tell of guests that run.
TELLING = 'sev-attest-tell-'


def _awaited(name, opens_ahead=False):
    """Nova's method of this name, with _awaiting() around it.

    With the signature that this version of Nova gives it.

    :param opens_ahead: whether the method makes disks before it makes a
        guest, and so has _opening_ahead() around it as well
    """
    novas = getattr(libvirt_driver.LibvirtDriver, name)
    signature = inspect.signature(novas)

    @functools.wraps(novas)
    def method(self, *args, **kwargs):
        given = signature.bind_partial(self, *args, **kwargs).arguments
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._awaiting(given['instance']))
            if opens_ahead and given.get('power_on', True):
                stack.enter_context(self._opening_ahead(given['context'],
                                                        given['instance']))
            return getattr(super(LibvirtDriver, self), name)(*args, **kwargs)

    method.__signature__ = signature
    return method


def _tell(launch):
    try:
        steps.ReportRunning().execute(launch)
    except Exception:
        LOG.exception('Launch %s: that its guest runs could not be told',
                      launch.identity.id, instance=launch.instance)
    launch.events.close(EVENTS_TIMEOUT)


class LibvirtDriver(libvirt_driver.LibvirtDriver):
    """compute_driver = sev_attest.LibvirtDriver"""

    def __init__(self, virtapi, read_only=False):
        super().__init__(virtapi, read_only)
        guard.guard_host(self._host)
        self._attesters = attesters.load()
        self._host_name = CONF.host
        self._platforms = platforms.PlatformCache()
        self._records = records.LaunchRecords(CONF.state_path,
                                              self._host_name)
        self._owner_waits = waiting.OwnerWaits(waiting.limit_of(CONF))
        self._startup = waiting.Startup()
        # Launches under way, by server; also those that were released and
        # wait for their network before Nova resumes them.
        self._launches = {}
        # Servers that Nova will wait for, and whether they were launched.
        self._awaited = {}
        # Those that are opened while Nova makes their disks, by server.
        self._opened_ahead = {}
        # What guests that Nova makes now are for, by server.
        self._purposes = {}
        self._watch = watch.Watch(self._host, self._host_name,
                                  self._launches)
        self._transport = None

    def init_host(self, host):
        """Also finish what an earlier nova-compute left unfinished."""
        # Until Nova first counts this host's resources, it starts servers
        # one after another and answers nobody.
        self._startup.begin()
        super().init_host(host)
        if guard.is_guarding(self._host):
            recovery.Recovery(
                self._host, self._host_name, self._records,
                self._report_left_over,
                CONF.sev_attest.report_timeout).run()

    def _report_left_over(self, identity, status, reason, deadline):
        self._get_transport().report_outcome(identity, status, reason,
                                             deadline)

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

        try:
            launch = self._launch(context, create, domain, technology,
                                  instance, pause, post_xml_callback)
        except Exception as failure:
            faults.raise_for_nova(failure, instance.uuid)
        if instance.uuid in self._awaited:
            self._awaited[instance.uuid] = True
        return launch.guest

    def _launch(self, context, create, domain, technology, instance, pause,
                post_xml_callback):
        """Launch a guest; once more where its platform has changed.

        :returns: Launch; of a guest that Nova wants paused, one that is
            still under way
        """
        attester = self._attesters[technology]
        attester.check(domain)
        callbacks = [post_xml_callback]

        def start(marked_xml):
            return create(context, marked_xml, instance, power_on=True,
                          pause=True, post_xml_callback=(
                              callbacks.pop() if callbacks else None))

        for again in (True, False):
            launch, opening = self._begin(context, technology, instance)
            launch.domain, launch.start = domain, start
            self._launches[instance.uuid] = launch
            try:
                launch.run(opening, steps.StartPaused(),
                           steps.SendEvidence(), steps.Inject())
                if not pause:
                    launch.run(steps.Resume())
                break
            except BaseException as failure:
                self._end(launch)
                self._startup.failed(failure)
                if not isinstance(failure, Exception):
                    raise
                if again and self._platform_changed(failure, launch):
                    LOG.warning('The platform has new keys: launching once '
                                'more.', instance=instance)
                    continue
                if launch.session is not None and isinstance(
                        failure, client_exceptions.AttestationDenied):
                    # For what was measured.
                    boot_files.discard_partial(context, self._image_api,
                                               launch)
                faults.raise_for_nova(failure, instance.uuid, launch)
        if not pause:
            self._runs(launch)
        return launch

    def _begin(self, context, technology, instance):
        """A launch, and the step that opens it."""
        opened = self._opened_ahead.pop(instance.uuid, None)
        if opened is not None:
            if opened.is_usable(technology):
                return opened.launch, opened
            opened.give_up(exceptions.AttestationFault(
                instance_uuid=instance.uuid,
                reason='its disks took longer than a session may wait; '
                       'another is asked for'))
        return (self._new_launch(context, technology, instance),
                steps.OpenLaunch())

    @contextlib.contextmanager
    def _opening_ahead(self, context, instance):
        """Have a launch opened meanwhile, for a guest that will need one."""
        if scope.is_attested(instance, CONF.sev_attest.mode):
            technology = scope.demanded_technology(instance)
            # What keeps variables is refused once there is a domain.
            stateless = instance.image_meta.properties.get(
                'hw_firmware_stateless', False)
            if stateless and technology in self._attesters:
                # Without a thread, it is opened when it is needed.
                with contextlib.suppress(RuntimeError):
                    self._opened_ahead[instance.uuid] = ahead.OpenedAhead(
                        self._new_launch(context, technology, instance),
                        context)
        why = exceptions.AttestationFault(
            instance_uuid=instance.uuid, reason='it was not to be launched')
        try:
            yield
        except BaseException as failure:
            why = failure
            raise
        finally:
            opened = self._opened_ahead.pop(instance.uuid, None)
            if opened is not None:
                # Nova's failure, not one of a step: of any but its own
                # exceptions the text may tell about the host.
                opened.give_up(faults.to_show(why, instance.uuid))

    def _new_launch(self, context, technology, instance):
        settings = CONF.sev_attest
        return steps.Launch(
            instance=instance, host=self._host, host_name=self._host_name,
            technology=technology, attester=self._attesters[technology],
            transport=self._get_transport(), platforms=self._platforms,
            records=self._records,
            owner_waits=self._startup.owner_waits(self._owner_waits),
            launch_timeout=self._startup.launch_timeout(
                settings.launch_timeout),
            owner_timeout=settings.owner_timeout,
            report_timeout=settings.report_timeout,
            events=events.ActionEvents(context, self._host_name, instance),
            purpose=self._purpose_of(instance))

    def _purpose_of(self, instance):
        """What a launch of a server is for.

        A server that stays in rescue is launched for it, whatever Nova then
        starts: the resume at the host's boot makes it from the server's own
        image.
        """
        default = (launches.RESCUE if instance.vm_state == vm_states.RESCUED
                   else launches.BOOT)
        return self._purposes.get(instance.uuid, default)

    @contextlib.contextmanager
    def _for_purpose(self, instance, purpose):
        self._purposes[instance.uuid] = purpose
        try:
            yield
        finally:
            self._purposes.pop(instance.uuid, None)

    def _end(self, launch):
        self._launches.pop(launch.instance.uuid, None)
        if launch.left:
            self._watch.left(launch)
        launch.events.close(EVENTS_TIMEOUT)

    def _runs(self, launch):
        """See off a launch whose guest runs.

        No server waits until that is told. Should nova-compute die before,
        the launch's record has recovery tell it.
        """
        self._launches.pop(launch.instance.uuid, None)
        thread = threading.Thread(target=_tell, args=(launch,), daemon=True,
                                  name=f'{TELLING}{launch.identity.id}')
        try:
            thread.start()
        except RuntimeError:
            # No more threads: it waits after all.
            _tell(launch)

    def _platform_changed(self, failure, launch):
        """Whether a launch was refused for a platform that is no more."""
        if not (platform_errors.refusal_of(failure) or isinstance(
                failure, client_exceptions.RequestRefused)):
            return False
        return self._platforms.changed(
            launch.technology, launch.attester, self._host.get_connection(),
            launch.platform)

    def _create_guest_with_network(self, context, xml, instance,
                                   *args, **kwargs):
        """Also see a guest through that was released and waits paused."""
        try:
            guest = super()._create_guest_with_network(
                context, xml, instance, *args, **kwargs)
        except BaseException as failure:
            # Nova undefines the domain but leaves it to wait for ever.
            launch = self._launches.get(instance.uuid)
            if launch is not None:
                launch.revert(failure)
                self._end(launch)
            raise
        launch = self._launches.get(instance.uuid)
        if launch is not None:
            self._runs(launch)
        return guest

    # Nova waits without end for a guest to be running. One that ended before
    # it was seen so would keep its server from being deleted for ever.

    def get_info(self, instance, use_cache=True):
        """Also end Nova's wait for a guest that has ended already.

        :raises AttestationFault: it was launched, and is not there any more
        """
        info = super().get_info(instance, use_cache=use_cache)
        if self._awaited.get(instance.uuid) and info.state in _ENDED:
            raise exceptions.AttestationFault(
                instance_uuid=instance.uuid,
                reason='its guest ended as soon as it ran')
        return info

    spawn = _awaited('spawn', opens_ahead=True)
    finish_migration = _awaited('finish_migration')
    finish_revert_migration = _awaited('finish_revert_migration')
    _hard_reboot = _awaited('_hard_reboot')

    @contextlib.contextmanager
    def _awaiting(self, instance):
        self._awaited[instance.uuid] = False
        try:
            yield
        finally:
            self._awaited.pop(instance.uuid, None)

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
            self._refuse_snapshot(context, instance)
        super()._suspend_guest_for_snapshot(
            context, live_snapshot, current_power_state, instance)

    def _refuse_snapshot(self, context, instance):
        refusal = exceptions.OperationRefused(
            operation='cold snapshot of a running server (stop it first)',
            instance_uuid=instance.uuid)
        # Nova answered the request long ago, and tells nobody why the image
        # goes away.
        action_events = events.ActionEvents(context, self._host_name,
                                            instance)
        try:
            with action_events.event('sev_attest_snapshot',
                                     lambda failure: failure):
                raise refusal
        finally:
            action_events.close(EVENTS_TIMEOUT)

    def check_can_live_migrate_destination(
            self, context, instance, src_compute_info, dst_compute_info,
            block_migration=False, disk_over_commit=False):
        self._refuse_migration(
            scope.is_attested(instance, CONF.sev_attest.mode))
        return super().check_can_live_migrate_destination(
            context, instance, src_compute_info, dst_compute_info,
            block_migration, disk_over_commit)

    def check_can_live_migrate_source(self, context, instance,
                                      dest_check_data,
                                      block_device_info=None):
        self._refuse_migration(self._is_attested(instance))
        return super().check_can_live_migrate_source(
            context, instance, dest_check_data, block_device_info)

    def rescue(self, context, instance, network_info, image_meta,
               rescue_password, block_device_info, share_info):
        """Rescue, unless the rescue image would boot with plain memory.

        Refused before the guest's definition is touched; Nova has stopped
        it by then. The launch is one for a rescue.
        """
        demanded = scope.demanded_technology(instance)
        if (demanded is not None and
                not hardware.check_hw_rescue_props(image_meta)):
            config = hardware.get_mem_encryption_constraint(
                instance.flavor, image_meta,
                libvirt_utils.get_machine_type(image_meta))
            if config is None or config.model != demanded:
                raise exception.InstanceNotRescuable(
                    instance_id=instance.uuid,
                    reason=f'the server demands {demanded} and the rescue '
                           f'image does not; use one with '
                           f'hw_mem_encryption=true and '
                           f'hw_mem_encryption_model={demanded}')
        with self._for_purpose(instance, launches.RESCUE):
            super().rescue(context, instance, network_info, image_meta,
                           rescue_password, block_device_info, share_info)

    def unrescue(self, context, instance):
        """Boot the server again; Nova says until then that it is rescued."""
        with self._for_purpose(instance, launches.BOOT):
            super().unrescue(context, instance)

    def emit_event(self, event):
        """Also hear of guests that were run behind Nova's back."""
        self._watch.heard(event)
        super().emit_event(event)

    def get_available_resource(self, nodename):
        """Also look for such guests, as often as Nova counts resources."""
        self._startup.end()
        try:
            self._watch.look()
        except Exception:
            LOG.exception('This host\'s guests could not be looked at')
        return super().get_available_resource(nodename)

    def update_provider_tree(self, provider_tree, nodename,
                             allocations=None):
        """Also say whether this host attests; see traits.

        While libvirt is away that cannot be told, and stays as it was said:
        Nova comes here when a launch fails for it, and again in a minute.
        """
        try:
            attested = self._attested()
        except exception.HypervisorUnavailable:
            LOG.warning('Whether this host attests cannot be told without '
                        'libvirt; its traits stay as they are')
        else:
            traits.update(provider_tree, nodename, attested, self._attesters)
        super().update_provider_tree(provider_tree, nodename, allocations)

    def _attested(self):
        """The technologies that this host offers and can attest.

        :raises HypervisorUnavailable: libvirt is gone
        """
        able = []
        for technology, attester in self._attesters.items():
            if not attester.is_offered_by(self._host):
                continue
            connection = self._host.get_connection()
            try:
                self._platforms.read(technology, attester, connection)
            except Exception as error:
                if self._host.get_connection() is not connection:
                    # It was lost meanwhile, which says nothing of the host.
                    raise exception.HypervisorUnavailable() from error
                LOG.warning('This host offers %(technology)s and cannot '
                            'attest it: %(error)s',
                            {'technology': technology, 'error': error})
                continue
            able.append(technology)
        return able

    def _is_attested(self, instance):
        """Whether the server, or the domain it has, runs attested only."""
        if scope.is_attested(instance, CONF.sev_attest.mode):
            return True
        return (guard.is_guarding(self._host) and
                self._host.is_guarded(instance))

    def _refuse_if_attested(self, instance, operation):
        if self._is_attested(instance):
            # Makes Nova put the server's state back instead of to ERROR.
            raise exception.InstanceFaultRollback(
                exceptions.OperationRefused(
                    operation=operation, instance_uuid=instance.uuid))

    @staticmethod
    def _refuse_migration(attested):
        if attested:
            raise exception.MigrationPreCheckError(
                reason='a guest that is attested at launch cannot be live '
                       'migrated; migrate it cold, which attests it anew')
