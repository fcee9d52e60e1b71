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

"""Run supervisord, with a poller that does not spin.

supervisor 4.3.0 forgets to unregister the sockets of its clients. When such
a number comes again as the standard input of a service that closed it, each
poll reports an error at once, which PollPoller takes for nothing to do:
supervisord then takes a whole core. An error ends the registration here.
"""

import select

from supervisor import poller
from supervisor import supervisord


class Poller(poller.PollPoller):
    """Registers anew, in the next round, whatever is still wanted."""

    def _ignore_invalid(self, fd, eventmask):
        if (eventmask & select.POLLERR
                and not eventmask & (self.READ | self.WRITE)):
            eventmask |= select.POLLNVAL
        return super()._ignore_invalid(fd, eventmask)


def main():
    poller.Poller = Poller
    supervisord.main()


if __name__ == '__main__':
    main()
