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

"""Finding the launch that a request is about."""

import hmac

from nova_sev_attest.keyservice.engine import expiring
from nova_sev_attest.keyservice.engine import requests
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import audit
from nova_sev_attest.keyservice.objects import launches

#: Events that are shown of a launch; it has a few dozen at most.
_MAX_EVENTS = 1000


class Lookup:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts
        self._expiring = expiring.Expiring(parts.database,
                                           parts.journal)

    def authenticate(self, launch_id, token):
        """The launch, to who knows its token.

        :raises NotFound: there is none
        :raises Forbidden: the token is another one
        """
        launch = self.find(launch_id)
        if not hmac.compare_digest(launch.token_hash,
                                   requests.hash_token(token)):
            raise errors.Forbidden(
                'launch_token_mismatch',
                'The launch was begun with another token.')
        return launch

    def owned(self, project_id, launch_id):
        """The launch, to its project.

        :raises NotFound: the project has no such launch
        """
        return self.find(launch_id, project_id)

    def find(self, launch_id, project_id=None):
        """The launch; one whose time is over is closed.

        :param project_id: the project that it must belong to; None: any
        :raises NotFound: there is none, or it is another project's
        """
        with self._parts.database.reader() as session:
            launch = launches.get(session, launch_id, project_id)
        return self.in_time(launch)

    def in_time(self, launch):
        """A launch that was just read; one whose time is over is closed."""
        if not launch.is_overdue:
            return launch
        self._expiring.expire([launch])
        with self._parts.database.reader() as session:
            return launches.get(session, launch.id)

    def events(self, project_id, launch_id):
        """What became of a launch of a project.

        :returns: list of audit.chain.Record, oldest first
        :raises NotFound: the project has no such launch
        """
        with self._parts.database.reader() as session:
            launches.get(session, launch_id, project_id)
            return audit.of_subject(session, project_id, launch_id,
                                    _MAX_EVENTS)
