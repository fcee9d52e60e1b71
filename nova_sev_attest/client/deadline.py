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

"""A moment by which something must be done."""

import time


class Deadline:
    """So many seconds from now, on a clock that never jumps.

    :param seconds: length of the whole allowance
    :param clock: monotonic clock in seconds, for tests
    """

    def __init__(self, seconds, clock=time.monotonic):
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def remaining(self):
        """Seconds left, 0.0 when it has passed."""
        return max(0.0, self._end - self._clock())

    def has_passed(self):
        return self.remaining() <= 0.0
