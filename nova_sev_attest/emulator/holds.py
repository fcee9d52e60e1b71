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

"""Commands that the platform holds, so that a step of a launch can be seen.

Between two commands of a launch there is otherwise no time to look at the
machine, or to take something of it away. A held command waits before it is
carried out, or after that and before it is answered. It is for tests of what
uses the platform, and only root may ask for it.
"""

import threading

# Longer than QEMU's side waits for an answer.
_LONGEST_SECONDS = 60
_WHEN = ('before', 'after')


class HoldError(Exception):
    """A hold that cannot be; the text says why."""


class Holds:
    """What is to be held, and what is being held."""

    def __init__(self):
        self._changed = threading.Condition()
        self._wanted = None
        self._held = []

    def hold(self, command, when):
        """Hold each command of a name from now on, and let others go.

        :param when: 'before' or 'after' it is carried out.
        :raises HoldError: it is neither.
        """
        if not isinstance(command, str) or when not in _WHEN:
            raise HoldError(f'expected a command, and one of '
                            f'{" and ".join(_WHEN)}')
        with self._changed:
            self._wanted = command, when
            self._changed.notify_all()

    def let_go(self):
        """Let everything go, and hold nothing any more."""
        with self._changed:
            self._wanted = None
            self._changed.notify_all()

    def held(self):
        """UUIDs of the domains whose command is being held."""
        with self._changed:
            return list(self._held)

    def pass_by(self, command, when, domain_uuid):
        """Wait here for as long as this command is to be held.

        It is let go by itself after a minute: a test that was killed must
        not leave guests behind that wait for ever.
        """
        with self._changed:
            if self._wanted != (command, when):
                return
            self._held.append(domain_uuid)
            self._changed.wait_for(
                lambda: self._wanted != (command, when), _LONGEST_SECONDS)
            self._held.remove(domain_uuid)
