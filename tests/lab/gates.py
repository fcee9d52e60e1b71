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

"""Places where a launch can be stopped, to look at it or to break something.

A launch is a conversation of nova-compute with the key service and with the
platform. A :class:`Gates` stands on both ways: it holds a request or its
answer on the one, a command of the emulated platform on the other. Nothing of
it is in the product: nova-compute is only told another address of the key
service.
"""

import contextlib
import threading
import time

from devstack.lab import compute_root
from nova_sev_attest.emulator import channel
from tests.lab import computes
from tests.lab import meddler

REQUEST, ANSWER = 'request', 'answer'
# Past the lab's own ports, and past the one of meddler's key service.
_PORT = 21
_LONGEST_SECONDS = 60
_POLL = 0.02


class Gates:
    """What is held of the launches of one compute host.

    :param host: :class:`devstack.lab.layout.ComputeHost`.
    """

    def __init__(self, host):
        layout = host.layout
        self._host = host
        self._platform = str(compute_root.socket_path(host.run))
        self._changed = threading.Condition()
        self._wanted = None
        self._held = 0
        self._proxy = meddler.Meddler(layout.port_base + _PORT,
                                      layout.port('attestation'))
        self._proxy.on_request = lambda below, _: self._pass(REQUEST, below)
        self._proxy.on_answer = lambda below, _: self._pass(ANSWER, below)

    @property
    def url(self):
        """Where the key service is reached through the gates."""
        return f'http://127.0.0.1:{self._proxy.server_address[1]}'

    @contextlib.contextmanager
    def served(self):
        """Serve what passes through the gates for a while."""
        thread = threading.Thread(target=self._proxy.serve_forever)
        with self._proxy:
            thread.start()
            try:
                yield self
            finally:
                self.let_go()
                self._proxy.shutdown()
                thread.join()

    def hold_message(self, below, when):
        """Hold a request to the key service, or its answer.

        :param below: what it is about, below the launch's own path.
        :param when: REQUEST or ANSWER.
        """
        with self._changed:
            self._wanted = when, below

    def hold_command(self, command, when):
        """Hold a command of the platform, 'before' or 'after' it is done."""
        channel.hold(self._platform, command, when)

    def holds(self):
        """Whether anything is being held."""
        with self._changed:
            if self._held:
                return True
        return bool(channel.status(self._platform)['held'])

    def wait(self, seconds=_LONGEST_SECONDS):
        """Wait until something is held; whether that came in time."""
        deadline = time.monotonic() + seconds
        while not self.holds():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return True

    def let_go(self):
        """Let go what is held, and hold nothing any more."""
        with self._changed:
            self._wanted = None
            self._changed.notify_all()
        channel.let_go(self._platform)

    def _pass(self, when, below):
        with self._changed:
            if self._wanted != (when, below):
                return
            self._held += 1
            self._changed.wait_for(lambda: self._wanted != (when, below),
                                   _LONGEST_SECONDS)
            self._held -= 1


@contextlib.contextmanager
def between(host):
    """Put gates between a compute host and what it talks to, for a while.

    nova-compute is restarted at both ends.
    """
    gates = Gates(host)
    with gates.served(), computes.configured(host, {
            'sev_attest': {'endpoint_override': gates.url}}):
        yield gates
