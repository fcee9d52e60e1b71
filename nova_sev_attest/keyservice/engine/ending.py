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

"""The end of launches: the host's word, or the end of their time."""

from oslo_log import log as logging

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.engine import lookup
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import launches

LOG = logging.getLogger(__name__)


class Ending:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts
        self._lookup = lookup.Lookup(parts)

    @db_api.retried
    def outcome(self, launch_id, token, status, reason):
        """Record what the host says of the end of a launch.

        :param status: 'running' or 'failed'
        :param reason: text or None
        :returns: Launch
        :raises Conflict: the launch is not where it could end like that
        """
        launch = self._lookup.authenticate(launch_id, token)
        with self._parts.database.writer() as session:
            if status == launches.RUNNING:
                changed = launches.run(session, launch.id)
            else:
                changed = launches.fail(
                    session, launch.id, reason or 'The host gave no reason.')
        launch = self._lookup.authenticate(launch_id, token)
        closed = launch.status in (launches.DENIED, launches.EXPIRED,
                                   launches.SUPERSEDED)
        if changed or launch.status == status or (
                closed and status == launches.FAILED):
            return launch
        raise errors.Conflict(
            'launch_conflict',
            f'The launch is {launch.status} and cannot become {status}.')

    @db_api.retried
    def sweep(self):
        """Expire launches whose time is over; returns how many."""
        with self._parts.database.reader() as session:
            if not launches.count_overdue(session):
                return 0
        with self._parts.database.writer() as session:
            count = launches.expire(session)
        LOG.info('%d launches expired.', count)
        return count
