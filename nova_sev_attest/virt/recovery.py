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

"""What the next nova-compute does about launches that the last one began.

Whatever it died at, the launch's record is on disk and, from its start on,
the guest is a domain that waits, paused. A guest that was released and runs
is left alone, and the key service told so. Any other is destroyed, its launch
closed as failed, and its server left in a state that can be deleted or tried
again, with a fault that says why.
"""

import threading

from nova.compute import power_state
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova import context as nova_context
from nova import exception
from nova import objects
from oslo_log import log as logging

from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import guard

LOG = logging.getLogger(__name__)

_REASON = ('nova-compute ended in the middle of the launch; the guest was '
           'destroyed, try again')

# Nova retries, reverts or fails a server that it finds in any other task;
# in these it would stay for ever.
_STUCK = frozenset([
    task_states.RESCUING, task_states.UNRESCUING, task_states.RESIZE_FINISH,
    task_states.RESIZE_REVERTING])


class Recovery:
    """Closes what is left over, once, before Nova looks at its servers.

    :param host: GuardedHost
    :param host_name: this compute host's name
    :param records: LaunchRecords
    :param report: called with a Record's identity, a status, a reason and a
        Deadline, tells the key service
    :param report_timeout: seconds for each report
    """

    def __init__(self, host, host_name, records, report, report_timeout):
        self._host = host
        self._host_name = host_name
        self._records = records
        self._report = report
        self._report_timeout = report_timeout

    def run(self):
        """Leave no guest behind that waits for a launch.

        :returns: the thread that tells the key service, None if there is
            nothing to tell
        """
        outcomes = []
        for record in self._records.left():
            if self._runs_attested(record):
                outcomes.append((record, 'running', None))
            else:
                outcomes.append((record, 'failed', _REASON))
        self._destroy_pending()
        for record, status, reason in outcomes:
            if status == 'failed':
                self._set_server_right(record.server_id)
        if not outcomes:
            return None
        # The key service may be slow, and nova-compute has servers to see
        # after.
        thread = threading.Thread(target=self._tell, args=(outcomes,),
                                  daemon=True)
        thread.start()
        return thread

    def _runs_attested(self, record):
        """Whether a record's guest runs, released; else it is destroyed."""
        guest = self._host.find_guest(record.server_id)
        if guest is None or not guest.is_active():
            return False
        found = guest.launch_marker()
        if found is None or found.launch_id != record.identity.id:
            # A domain of another launch; _destroy_pending() sees to it.
            return False
        if (guest.is_released() and guest.get_power_state(self._host) ==
                power_state.RUNNING):
            return True
        self._destroy(guest)
        return False

    def _destroy_pending(self):
        """Destroy every guest that waits, for no launch is under way now."""
        for guest in self._host.list_guests():
            if (isinstance(guest, guard.GuardedGuest) and
                    guest.launch_marker() is not None and
                    not guest.is_released()):
                self._destroy(guest)

    def _destroy(self, guest):
        LOG.warning('Server %s: its launch was not finished when '
                    'nova-compute ended; its guest is destroyed.',
                    guest.uuid)
        guest.poweroff()

    def _set_server_right(self, server_id):
        context = nova_context.get_admin_context()
        try:
            instance = objects.Instance.get_by_uuid(context, server_id)
            if instance.host != self._host_name:
                return
            error = exceptions.AttestationFault(
                instance_uuid=server_id, reason=_REASON)
            compute_utils.add_instance_fault_from_exc(context, instance,
                                                      error)
            if instance.task_state in _STUCK:
                instance.vm_state = vm_states.ERROR
                instance.task_state = None
                instance.save()
        except exception.InstanceNotFound:
            LOG.info('Server %s was deleted meanwhile.', server_id)
        except Exception:
            LOG.exception('Server %s: what became of its launch could not '
                          'be written down', server_id)

    def _tell(self, outcomes):
        for record, status, reason in outcomes:
            try:
                self._report(record.identity, status, reason,
                             deadlines.Deadline(self._report_timeout))
            except client_exceptions.RequestRefused as error:
                LOG.info('Launch %(launch)s is closed already: %(error)s',
                         {'launch': record.identity.id, 'error': error})
            except Exception as error:
                # The key service closes it when it expires.
                LOG.warning('Launch %(launch)s: its outcome "%(status)s" '
                            'could not be reported: %(error)s',
                            {'launch': record.identity.id, 'status': status,
                             'error': error})
                continue
            self._records.close(record.server_id, record.identity.id)
