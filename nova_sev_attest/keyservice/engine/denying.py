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

"""Closing launches for good."""

from oslo_log import log as logging

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.engine import details
from nova_sev_attest.keyservice.objects import launches

LOG = logging.getLogger(__name__)


class Denying:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts

    @db_api.retried
    def deny(self, launch, denial, **values):
        """Close a launch.

        :param launch: Launch
        :param denial: Denied that says why
        :param values: decided_by, where it was the owner
        :returns: whether this call did it; the launch may have changed
        """
        with self._parts.journal.writer() as entry:
            done = launches.deny(entry.session, launch, denial.code,
                                 denial.detail, denial.owner, **values)
            if done:
                entry.record_launch(
                    'launch.denied', launch, reason_code=denial.code,
                    **details.of_evidence(launch),
                    **details.of_platform(launch))
        if done:
            LOG.warning('Launch %(id)s of server %(server)s on host '
                        '%(host)s is denied: %(detail)s',
                        {'id': launch.id, 'server': launch.server_id,
                         'host': launch.host, 'detail': denial.detail})
        return done
