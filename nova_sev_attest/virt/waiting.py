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

"""How many launches of a host may wait for their owners at once.

A launch whose owner verifies it holds, while it waits, one of nova-compute's
build slots or, for a server that exists, one of its RPC workers. Were all of
them waiting for people, nothing else could be built on the host.
"""

import contextlib
import threading

from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.virt import exceptions


class OwnerWaits:
    """The launches that wait.

    The lock is held to count, never to wait.

    :param limit: how many may
    """

    def __init__(self, limit):
        self.limit = limit
        self._waiting = set()
        self._lock = threading.Lock()

    def begin(self, server_id):
        """Take a place; harmless for a server that has one.

        :raises AttestationRefused: none is free
        """
        with self._lock:
            if server_id in self._waiting:
                return
            if len(self._waiting) >= self.limit:
                raise exceptions.AttestationRefused(
                    server_id,
                    f'its policy wants its owner to act, and {self.limit} '
                    f'launches already wait for theirs on this host, as '
                    f'many as may ([sev_attest] max_waiting); try again '
                    f'later')
            self._waiting.add(server_id)

    def end(self, server_id):
        """Give the place back, if the server has one."""
        with self._lock:
            self._waiting.discard(server_id)


class NoOwnerWaits:
    """Takes the place of OwnerWaits while nova-compute starts."""

    def begin(self, server_id):
        """:raises AttestationRefused: always"""
        raise exceptions.AttestationRefused(
            server_id,
            'its policy wants its owner to act, and nova-compute is just '
            'starting, when it waits for nobody; reboot it hard')

    def end(self, server_id):
        """Nothing: none has a place."""


class Startup:
    """What may be waited for while nova-compute starts.

    It then launches the servers that it is to resume one after another, and
    serves nobody before it has come to the last. So none of them waits for
    its owner; and once one has found that the key service does not answer,
    each of the others finds it so in a tenth of the time.
    """

    def __init__(self):
        self._running = False
        self._service_is_away = False

    def begin(self):
        self._running = True
        self._service_is_away = False

    def end(self):
        self._running = False

    def failed(self, failure):
        """Take note of why a launch failed."""
        if isinstance(failure, client_exceptions.ServiceUnavailable):
            self._service_is_away = True

    def owner_waits(self, ordinary):
        return NoOwnerWaits() if self._running else ordinary

    def launch_timeout(self, ordinary):
        """Seconds for a launch."""
        return ordinary / 10 if (self._running and self._service_is_away) \
            else ordinary


def limit_of(conf):
    """[sev_attest] max_waiting, less than what is needed to build at all.

    :param conf: Nova's configuration
    """
    builds = conf.max_concurrent_builds
    # 0 is Nova's word for no limit.
    return (min(conf.sev_attest.max_waiting, builds - 1) if builds
            else conf.sev_attest.max_waiting)


@contextlib.contextmanager
def allowed(launch):
    """Let a request of a launch wait for the server's owner.

    Gives what a transport calls before it begins to wait: with the seconds
    that the key service allows the owner, it takes a place and returns the
    Deadline until which to wait. After a wait, the launch has its ordinary
    time for the rest.

    :param launch: steps.Launch
    """
    waited = []

    def waiting(expires_in):
        launch.owner_waits.begin(launch.instance.uuid)
        if not waited:
            waited.append(True)
            launch.log('waits for its owner')
            launch.deadline = deadlines.Deadline(
                min(expires_in, launch.owner_timeout))
        return launch.deadline

    try:
        yield waiting
    finally:
        launch.owner_waits.end(launch.instance.uuid)
    if waited:
        launch.deadline = deadlines.Deadline(launch.launch_timeout)
