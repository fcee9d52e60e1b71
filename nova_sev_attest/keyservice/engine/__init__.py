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
decided, is decided by the core or by the launch's owner; what must happen
once, happens in one statement of objects/launches.py; and what happened, is
said to the journal in the transaction that made it so.
"""

from nova_sev_attest.keyservice.engine import beginning
from nova_sev_attest.keyservice.engine import deciding
from nova_sev_attest.keyservice.engine import ending
from nova_sev_attest.keyservice.engine import expiring
from nova_sev_attest.keyservice.engine import lookup
from nova_sev_attest.keyservice.engine import owning
from nova_sev_attest.keyservice.engine import verifying
from nova_sev_attest.keyservice.engine import waiting


class Engine:
    """What may be done with launches.

    :param parts: Parts
    """

    def __init__(self, parts):
        self._beginning = beginning.Beginning(parts)
        self._verifying = verifying.Verifying(parts)
        self._owning = owning.Owning(parts)
        self._deciding = deciding.Deciding(parts)
        self._ending = ending.Ending(parts)
        self._expiring = expiring.Expiring(parts.database, parts.journal)
        self._lookup = lookup.Lookup(parts)
        self._waiting = waiting.Waiting(parts)

    def create(self, launch_id, token, request):
        """See Beginning.create()."""
        self._expiring.sweep_along()
        return self._beginning.create(launch_id, token, request)

    def evidence(self, launch_id, token, evidence, claims):
        """See Verifying.evidence()."""
        self._expiring.sweep_along()
        return self._verifying.evidence(launch_id, token, evidence, claims)

    def outcome(self, launch_id, token, status, reason):
        """See Ending.outcome()."""
        self._expiring.sweep_along()
        return self._ending.outcome(launch_id, token, status, reason)

    def wait(self, launch, seconds):
        """See Waiting.wait()."""
        return self._waiting.wait(launch, seconds)

    def certificates(self, project_id, launch_id):
        """See Owning.certificates()."""
        return self._owning.certificates(project_id, launch_id)

    def show_evidence(self, project_id, launch_id):
        """See Owning.evidence()."""
        return self._owning.evidence(project_id, launch_id)

    def upload_session(self, project_id, launch_id, uploaded):
        """See Owning.session()."""
        self._expiring.sweep_along()
        return self._owning.session(project_id, launch_id, uploaded)

    def upload_secret(self, context, launch_id, uploaded):
        """See Owning.secret()."""
        self._expiring.sweep_along()
        return self._owning.secret(context, launch_id, uploaded)

    def decide(self, context, launch_id, action, reason):
        """See Deciding.decide()."""
        self._expiring.sweep_along()
        return self._deciding.decide(context, launch_id, action, reason)

    def events(self, project_id, launch_id):
        """See Lookup.events()."""
        return self._lookup.events(project_id, launch_id)

    def sweep(self):
        """See Expiring.sweep()."""
        return self._expiring.sweep()
