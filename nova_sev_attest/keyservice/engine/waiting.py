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

"""Waiting for a launch's owner on behalf of a host (RFC 7240, wait)."""

import threading
import time

from nova_sev_attest.keyservice.objects import launches

# How soon an owner's word is heard, whichever process took it.
_INTERVAL = 0.5


class Waiting:
    """Lets requests wait, as many as may.

    Nothing is held while one waits but its thread: the launch is looked at
    again and again.

    :param parts: Parts
    :param clock: monotonic clock in seconds, and sleep: for tests
    """

    def __init__(self, parts, clock=time.monotonic, sleep=time.sleep):
        self._parts = parts
        self._max_wait = parts.conf.api.max_wait
        self._clock = clock
        self._sleep = sleep
        self._places = threading.BoundedSemaphore(parts.conf.api.max_waiting)

    def wait(self, launch, seconds):
        """Wait until a launch does not wait for its owner any more.

        :param launch: Launch that does
        :param seconds: how long, bounded by [api] max_wait
        :returns: whether it waited, so that the launch is another by now or
            nearer to its end; False at once when as many wait as may
        """
        end = self._clock() + min(seconds, self._max_wait)
        if not self._places.acquire(blocking=False):
            return False
        try:
            while (left := end - self._clock()) > 0:
                self._sleep(min(_INTERVAL, left))
                if self._has_changed(launch):
                    break
            return True
        finally:
            self._places.release()

    def _has_changed(self, launch):
        with self._parts.database.reader() as session:
            found = launches.find(session, launch.id)
        return (found is None or found.status != launch.status
                or found.is_overdue)
