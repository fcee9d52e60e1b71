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

"""Launches, from the session to the outcome.

Joins the launch core, the database, Nova and the secret store. What is
decided, is decided by the core; what must happen once, happens in one
statement of objects/launches.py.
"""

from nova_sev_attest.keyservice.engine import beginning
from nova_sev_attest.keyservice.engine import ending
from nova_sev_attest.keyservice.engine import verifying


class Engine:
    """What may be done with launches.

    :param parts: Parts
    """

    def __init__(self, parts):
        self._beginning = beginning.Beginning(parts)
        self._verifying = verifying.Verifying(parts)
        self._ending = ending.Ending(parts)

    def create(self, launch_id, token, request):
        """See Beginning.create()."""
        self.sweep()
        return self._beginning.create(launch_id, token, request)

    def evidence(self, launch_id, token, evidence, claims):
        """See Verifying.evidence()."""
        self.sweep()
        return self._verifying.evidence(launch_id, token, evidence, claims)

    def outcome(self, launch_id, token, status, reason):
        """See Ending.outcome()."""
        self.sweep()
        return self._ending.outcome(launch_id, token, status, reason)

    def sweep(self):
        """See Ending.sweep()."""
        return self._ending.sweep()
