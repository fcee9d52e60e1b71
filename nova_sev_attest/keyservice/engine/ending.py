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

"""The end of launches, in the host's word."""

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.engine import lookup
from nova_sev_attest.keyservice.engine import requests
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import launches

_ATTEMPTS = 5


class Ending:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts
        self._lookup = lookup.Lookup(parts)

    def outcome(self, launch_id, token, status, reason):
        """Record what the host says of the end of a launch.

        :param status: 'running' or 'failed'
        :param reason: text or None
        :returns: Launch
        :raises Conflict: the launch is not where it could end like that
        """
        launch = self._lookup.authenticate(launch_id, token)
        for _ in range(_ATTEMPTS):
            closed = launch.status in (launches.DENIED, launches.EXPIRED,
                                       launches.SUPERSEDED)
            if launch.status == status or (
                    closed and status == launches.FAILED):
                return launch
            if launch.status != launches.RELEASED and not (
                    launch.is_open and status == launches.FAILED):
                raise errors.Conflict(
                    'launch_conflict',
                    f'The launch is {launch.status} and cannot become '
                    f'{status}.')
            launch = self._lookup.in_time(self._end(launch, status, reason))
        raise requests.busy()

    @db_api.retried
    def _end(self, launch, status, reason):
        """Take the step, if it is still to be taken; the Launch after it."""
        with self._parts.journal.writer() as entry:
            if status == launches.RUNNING:
                if launches.run(entry.session, launch):
                    entry.record_launch('launch.running', launch)
            elif launches.fail(entry.session, launch,
                               reason or 'The host gave no reason.'):
                entry.record_launch('launch.failed', launch,
                                    reason_code='attestation.host_failed')
            return launches.get(entry.session, launch.id)
