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

"""Noticing guests that somebody ran behind Nova's back.

An operator may start, resume or reset a domain with libvirt's own tools, and
a future Nova may find a way past the guard. libvirt tells of it when it
happened, and not before. Then a domain that carries our mark, runs, and was
not released in this run is destroyed. Whether or not it could be, it is
written down: in the log, as an instance action of the server, and as the
error notification of a power-off. What libvirt did not tell, for nova-compute
was not there to hear it, is noticed at the next look: when nova-compute
starts, and with every update of its resources, once a minute. So is a guest
whose launch failed and that could not be destroyed then, for libvirt was
gone.

A reset from outside (``virsh reset``) goes the way of one from inside:
``on_reboot`` is ``destroy``, and the domain stops.
"""

import threading

from nova.compute import power_state
from nova.compute import utils as compute_utils
from nova import context as nova_context
from nova import exception
from nova import objects
from nova.objects import fields
from nova.virt import event as virtevent
from oslo_log import log as logging

from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import guard

LOG = logging.getLogger(__name__)

#: The instance action that tells a server's owner.
ACTION = 'sev_attest_destroy'

_RAN = (virtevent.EVENT_LIFECYCLE_STARTED, virtevent.EVENT_LIFECYCLE_RESUMED)


class Watch:
    """Looks at domains, and destroys those that run unattested.

    :param host: GuardedHost
    :param host_name: this compute host's name
    :param launches: the launches under way, steps.Launch by server
    """

    def __init__(self, host, host_name, launches):
        self._host = host
        self._host_name = host_name
        self._launches = launches
        self._left = {}
        # (server, run) of unattested runs that are written down.
        self._written = set()

    def left(self, launch):
        """Take over a launch whose guest could not be destroyed."""
        self._left[launch.instance.uuid] = launch

    def heard(self, event):
        """Take note of an event of libvirt's.

        Called from libvirt's event thread, which must not wait.
        """
        if not isinstance(event, virtevent.LifecycleEvent):
            return
        if event.transition not in _RAN:
            return
        launch = self._launches.get(event.uuid)
        if (launch is not None and not launch.released and
                event.transition == virtevent.EVENT_LIFECYCLE_RESUMED):
            # Its own thread destroys it, even if it is paused again by now.
            launch.ran_early = True
        threading.Thread(target=self._look_at, args=(event.uuid,),
                         daemon=True).start()

    def look(self):
        """Look at every domain that is active.

        :returns: UUIDs of the servers whose domains were destroyed, for they
            ran unattested
        """
        for launch in list(self._left.values()):
            self._destroy_left(launch)
        # A test's stand-ins are Nova's.
        guests = [guest for guest in self._host.list_guests()
                  if isinstance(guest, guard.GuardedGuest)]
        # libvirtd counts runs from its own start.
        self._written &= {(guest.uuid, guest.id) for guest in guests}
        return [guest.uuid for guest in guests
                if self._stop_if_unattested(guest)]

    def _destroy_left(self, launch):
        uuid = launch.instance.uuid
        guest = self._host.find_guest(uuid)
        found = None if guest is None else guest.launch_marker()
        # By now it may be a domain of another launch.
        if (found is not None and found.launch_id == launch.identity.id and
                guest.is_active()):
            guest.poweroff()
            LOG.warning('Server %s: its launch had failed; its guest is '
                        'destroyed.', uuid)
        launch.records.close(uuid, launch.identity.id)
        del self._left[uuid]

    def _look_at(self, uuid):
        try:
            guest = self._host.find_guest(uuid)
        except exception.InternalError:
            LOG.debug('libvirt is gone: the next look will tell',
                      exc_info=True)
            return
        if isinstance(guest, guard.GuardedGuest):
            self._stop_if_unattested(guest)

    def _stop_if_unattested(self, guest):
        """Whether the guest ran unattested and is destroyed."""
        try:
            run = self._unattested_run(guest)
            uuid = guest.uuid
        except Exception:
            # Domains come and go while one looks.
            LOG.debug('A domain could not be looked at', exc_info=True)
            return False
        if run is None:
            return False
        destroyed = self._destroy(guest, uuid)
        # An event and a look may find the same run, and one that could not
        # be destroyed is found again.
        if (uuid, run) not in self._written:
            self._written.add((uuid, run))
            LOG.error('Server %s ran without having been attested in this '
                      'launch: something started or resumed its domain '
                      'behind Nova\'s back.', uuid)
            self._write_down(uuid)
        return destroyed

    @staticmethod
    def _destroy(guest, uuid):
        try:
            guest.poweroff()
        except Exception:
            # Or it has ended by itself.
            LOG.exception('Server %s, which runs unattested, could not be '
                          'destroyed; the next look tries it again', uuid)
            return False
        LOG.warning('Server %s, which ran unattested, was destroyed', uuid)
        return True

    def _unattested_run(self, guest):
        """The number of the guest's run, None where that is as it should."""
        # In this order: a launch marks its guest and then resumes it, and
        # what is unmarked after it was seen to run ran so.
        run = guest.id
        if guest.get_power_state(self._host) != power_state.RUNNING:
            return None
        unattested = (guest.launch_marker() is not None and
                      not guest.is_released() and guest.id == run)
        return run if unattested else None

    def _write_down(self, uuid):
        context = nova_context.get_admin_context()
        try:
            instance = objects.Instance.get_by_uuid(context, uuid)
            objects.InstanceAction.action_start(context, uuid, ACTION,
                                                want_result=False)
            with compute_utils.EventReporter(context, ACTION,
                                             self._host_name, uuid):
                raise exceptions.UnattestedRun(instance_uuid=uuid)
        except exceptions.UnattestedRun as error:
            compute_utils.notify_about_instance_action(
                context, instance, self._host_name,
                action=fields.NotificationAction.POWER_OFF,
                phase=fields.NotificationPhase.ERROR, exception=error)
        except Exception:
            LOG.exception('Server %s: its unattested run could not be '
                          'recorded', uuid)
