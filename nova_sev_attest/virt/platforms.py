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

"""The platform's certificates, read once."""

from oslo_log import log as logging

LOG = logging.getLogger(__name__)


class PlatformCache:
    """The certificates of a host, as long as its libvirt stays connected.

    A platform gets a new key when it is reset, and libvirt reads that when it
    starts. Where it was not so, the next launch is refused, and changed()
    looks again. Two launches that read at once read the same.
    """

    def __init__(self):
        self._connection = None
        self._platforms = {}

    def read(self, technology, attester, connection):
        """What the technology's Attester.read_platform gave or gives."""
        if connection is not self._connection:
            self._connection, self._platforms = connection, {}
        if technology not in self._platforms:
            self._platforms[technology] = attester.read_platform(connection)
        return self._platforms[technology]

    def changed(self, technology, attester, connection, shown):
        """Read anew; whether that is another platform than was shown.

        :param shown: the certificates that a launch was refused with, None
            where it came to none
        """
        if shown is None:
            return False
        try:
            now = attester.read_platform(connection)
        except Exception:
            LOG.exception('The platform\'s certificates cannot be read anew')
            return False
        self._connection = connection
        self._platforms = {technology: now}
        return now != shown
