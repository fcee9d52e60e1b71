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

"""Asking again, by one rule for every way to the key service."""

import random
import time

from oslo_log import log as logging

from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions

LOG = logging.getLogger(__name__)

MAX_DELAY = 8.0


class Retriable(Exception):
    """One attempt failed in a way that another may not.

    :param reason: words without a full stop, fit for users
    :param retry_after: seconds that the service asks to be left alone
    """

    def __init__(self, reason, request_id=None, retry_after=0.0):
        self.reason = reason
        self.request_id = request_id
        self.retry_after = retry_after
        super().__init__(reason)


class Attempts:
    """How often and how long the key service is asked.

    :param total_timeout: seconds that one call may take with its
        repetitions, where the caller gives no deadline
    :param max_retries: repetitions after a failure that may pass
    :param retry_delay: seconds before the first repetition, then doubled
    :param sleep: for tests
    """

    def __init__(self, total_timeout=60.0, max_retries=4, retry_delay=0.5,
                 sleep=time.sleep):
        self.total_timeout = total_timeout
        self.sleep = sleep
        self._max_retries = max_retries
        self._retry_delay = retry_delay

    def run(self, attempt, deadline=None, repeat=True, patient=False):
        """Call a function until it does not raise Retriable.

        :param attempt: called with the Deadline
        :param deadline: Deadline of the caller's whole operation
        :param repeat: whether it may be called more than once
        :param patient: whether only the deadline ends it
        :returns: what the function returns
        :raises ServiceUnavailable: no usable answer in time
        """
        if deadline is None:
            deadline = deadlines.Deadline(self.total_timeout)
        retries = self._max_retries if repeat else 0
        if patient and repeat:
            retries = float('inf')
        failure = Retriable('no time was left to ask it')
        count = 0
        while not deadline.has_passed():
            try:
                return attempt(deadline)
            except Retriable as error:
                failure = error
            delay = self._delay(count, failure.retry_after)
            count += 1
            if count > retries or delay >= deadline.remaining():
                break
            LOG.info('Key service: trying again in %.1f s.', delay)
            self.sleep(delay)
        raise exceptions.ServiceUnavailable(
            f'The key service gave no answer within {deadline.seconds:g} s '
            f'and {count} attempt(s): {failure.reason}. Try again later.',
            request_id=failure.request_id)

    def _delay(self, count, retry_after):
        """Seconds to wait after failed attempt number `count` (from 0)."""
        # Beyond 32 doublings it is the longest delay anyway.
        backoff = min(MAX_DELAY, self._retry_delay * 2 ** min(count, 32))
        # Hosts that failed together should not come back together.
        return max(backoff * random.uniform(0.5, 1.0), retry_after)
