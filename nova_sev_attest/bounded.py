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

"""Calls that nobody waits for longer than is good.

For libraries that cannot promise to return: each call runs in a thread of its
own, which is left to itself when the time is over. How many may run, those
left behind counted, is bounded too, so that a peer that never answers costs a
fixed number of threads.
"""

import threading


class Overdue(Exception):
    """The call did not return in time; it may still go on."""


class TooMany(Exception):
    """As many calls run as may."""


class _Call:
    """One call, which may end after nobody waits for it."""

    def __init__(self, function, ended, name):
        self._function = function
        self._ended = ended
        self._name = name
        self._done = threading.Event()
        self._result = None
        self._failure = None

    def start(self):
        # A daemon, so that one that never returns does not keep the process.
        threading.Thread(target=self._run, name=self._name,
                         daemon=True).start()

    def wait(self, seconds):
        if not self._done.wait(seconds):
            raise Overdue(f'it took longer than {seconds:g} s')
        if self._failure is not None:
            raise self._failure
        return self._result

    def _run(self):
        try:
            self._result = self._function()
        except Exception as failure:
            self._failure = failure
        finally:
            self._ended()
            self._done.set()


class BoundedCalls:
    """Calls of one kind.

    :param limit: how many may run at the same time
    :param name: of their threads
    """

    def __init__(self, limit, name):
        self._running = threading.BoundedSemaphore(limit)
        self._name = name

    def run(self, function, seconds):
        """What the function returns or raises, within so many seconds.

        :raises Overdue: it did neither in time
        :raises TooMany: the limit is reached; nothing was called
        """
        if not self._running.acquire(blocking=False):
            raise TooMany('as many calls run as may')
        call = _Call(function, self._running.release, self._name)
        try:
            call.start()
        except BaseException:
            self._running.release()
            raise
        return call.wait(seconds)
