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

"""The owner's approval or denial of launches."""

from nova_sev_attest.keyservice.engine import denying
from nova_sev_attest.keyservice.engine import lookup
from nova_sev_attest.keyservice.engine import releasing
from nova_sev_attest.keyservice.engine import requests
from nova_sev_attest.keyservice.engine import verifying
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.keyservice.objects import policies

APPROVE = 'approve'

_DENIED = 'denied_by_owner'
_ATTEMPTS = 5


class Deciding:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts
        self._lookup = lookup.Lookup(parts)
        self._verifier = verifying.Verifier(parts)
        self._releasing = releasing.Releasing(parts)
        self._denying = denying.Denying(parts)

    def decide(self, context, launch_id, action, reason):
        """Approve or deny a launch of the caller's project.

        The same decision again changes nothing.

        :param context: RequestContext of the owner
        :param action: APPROVE or 'deny'
        :param reason: text for the record, or None
        :returns: Launch
        :raises Conflict: the launch is not to be decided like that
        :raises Denied: it was to be approved, and is denied
        :raises Unavailable: the secrets cannot be fetched now; nothing
            changed
        """
        launch = self._lookup.owned(context.project_id, launch_id)
        if action == APPROVE:
            return self._approve(context, launch)
        return self._deny(context, launch, reason)

    def _approve(self, context, launch):
        if launch.approval != policies.OWNER:
            raise errors.Conflict(
                'approval_not_wanted',
                'The launch\'s policy does not ask for its owner\'s '
                'approval.')
        if launch.is_open and launch.waiting_for is None:
            raise errors.Conflict(
                'evidence_missing',
                'There is nothing to approve yet: the host has sent no '
                'evidence that verifies.')
        if launch.is_open:
            launch = (self._release(launch, context.user_id)
                      or self._lookup.owned(context.project_id, launch.id))
        if launch.is_open:
            raise requests.busy()
        if not launch.is_released:
            raise requests.closed(launch)
        return launch

    def _release(self, launch, user_id):
        """Verify the evidence once more, and release to it.

        :returns: Launch, None when this call did not release
        """
        with self._parts.database.reader() as session:
            evidence, claims = launches.evidence(session, launch.id)
        try:
            passed = self._verifier.verify(launch, evidence, claims)
            return self._releasing.pack(launch, passed, decided_by=user_id)
        except errors.Denied as denial:
            if self._denying.deny(launch, denial):
                raise
            return None

    def _deny(self, context, launch, reason):
        denial = errors.Denied(
            _DENIED, 'The launch\'s owner denied it.',
            {'owner_reason': reason} if reason else None)
        for _ in range(_ATTEMPTS):
            if launch.is_open:
                self._denying.deny(launch, denial,
                                   decided_by=context.user_id)
                launch = self._lookup.owned(context.project_id, launch.id)
            elif launch.reason_code == denial.code:
                return launch
            else:
                raise requests.closed(launch)
        raise requests.busy()
