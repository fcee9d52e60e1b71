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

"""Opening a launch while Nova makes the server's disks.

The key service asks Nova, Keystone and the database before it answers with a
session; disks need none of it, and a session no disks. What is opened ahead
is taken over by the boot, or given up when the boot never comes to it.
"""

import threading
import time

from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.virt import steps

#: Begins the names of the threads.
OPENING = 'sev-attest-open-'
#: Logged where the disks were faster.
WAITS = 'waits for its session'
#: Seconds for which a session may wait for disks. The key service ends
#: launches whose evidence does not come in time ([launches] expiry).
FRESH_SECONDS = 30


class OpenedAhead(steps.Step):
    """In the place of OpenLaunch: takes over what a thread has opened.

    :param launch: steps.Launch, which has no domain yet
    :param context: RequestContext of the boot, for the log
    :param clock: monotonic clock in seconds, for tests
    :raises RuntimeError: there are no threads left
    """

    def __init__(self, launch, context, clock=time.monotonic):
        self.launch = launch
        self._context = context
        self._clock = clock
        self._lock = threading.Lock()
        self._failure = None
        self._opened_at = None
        self._given_up = None
        self._thread = threading.Thread(
            target=self._open, daemon=True,
            name=f'{OPENING}{launch.identity.id}')
        self._thread.start()

    def _open(self):
        self._context.update_store()
        failure = None
        try:
            self.launch.run(steps.OpenLaunch())
        except BaseException as raised:
            # For whoever takes over; it is reverted already.
            failure = raised
        with self._lock:
            self._failure = failure
            self._opened_at = self._clock()
            given_up = self._given_up
        if given_up is not None:
            self._close(given_up)

    def wait(self):
        """Wait until the launch is opened, or could not be."""
        if self._thread.is_alive():
            self.launch.log(WAITS)
        self._thread.join()

    def is_usable(self, technology):
        """Whether a boot may take over, or has to open a launch anew.

        Known once it is opened, or could not be: that is waited for.

        :param technology: of the domain that is to be launched
        """
        self.wait()
        return (self.launch.technology == technology
                and self._clock() - self._opened_at <= FRESH_SECONDS)

    def give_up(self, failure):
        """Close a launch that no boot takes over, now or once it is opened.

        :param failure: why
        """
        with self._lock:
            self._given_up = failure
            opened = self._opened_at is not None
        if opened:
            self._close(failure)

    def _close(self, failure):
        self.launch.revert(failure)
        self.launch.events.close(0)

    def execute(self, launch):
        """Go on from where the thread came to.

        :raises: what opening raised
        """
        if self._failure is not None:
            raise self._failure
        # What the disks took is not the launch's time.
        launch.deadline = deadlines.Deadline(launch.launch_timeout)

    def revert(self, launch, failure):
        """Nothing: OpenLaunch, which the thread began, is reverted next."""
