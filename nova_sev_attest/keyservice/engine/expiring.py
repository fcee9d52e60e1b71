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

"""The end of the time of launches."""

import time

from oslo_log import log as logging

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.objects import launches

LOG = logging.getLogger(__name__)

#: Who it is said to be in the audit.
SWEEPER = 'sweeper'

# Launches that one transaction closes, and one request at most.
_BATCH = 100
# Seconds between two sweeps of those that come with the steps of launches.
_PAUSE = 1


def expire(entry, launch):
    """Close a launch whose time is over.

    :param entry: Entry of a transaction
    :returns: whether this call did it
    """
    done = launches.expire(entry.session, launch)
    if done:
        entry.record_launch('launch.expired', launch, actor=SWEEPER,
                            reason_code='attestation.launch_expired')
    return done


class Expiring:
    """Closes launches whose time is over.

    :param database: Database
    :param journal: Journal
    :param clock: monotonic clock in seconds, for tests
    """

    def __init__(self, database, journal, clock=time.monotonic):
        self._db = database
        self._journal = journal
        self._clock = clock
        self._next = clock()

    def sweep_along(self):
        """Like sweep(), once in a while: for what does not wait for it.

        No step goes on with a launch whose time is over, swept or not.
        """
        now = self._clock()
        if now >= self._next:
            self._next = now + _PAUSE
            self.sweep()

    def sweep(self):
        """Close launches whose time is over, those first that waited longest.

        :returns: how many; there may be more when it is not 0
        """
        with self._db.reader() as session:
            found = launches.overdue(session, _BATCH)
        return self.expire(found) if found else 0

    @db_api.retried
    def expire(self, found):
        """Close launches, unless they changed in the meantime.

        :param found: Launches whose time is over
        :returns: how many this call closed
        """
        count = 0
        with self._journal.writer() as entry:
            # Always in the same order, lest two transactions wait for one
            # another.
            for launch in sorted(found, key=lambda launch: launch.id):
                count += expire(entry, launch)
        if count:
            LOG.info('%d launches expired.', count)
        return count
