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

"""What launches' policies say of them, and their limits, at this moment."""

import dataclasses

from nova_sev_attest.keyservice.db import clock
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice import limits
from nova_sev_attest.keyservice.objects import policies


def read(session, launch):
    """The policy that a launch began under, in force or not.

    :returns: Policy, at the launch's revision, with what it says of the
        launch's purpose; None when it was deleted
    """
    policy = policies.find_by_id(session, launch.project_id,
                                 launch.policy_id, launch.policy_revision)
    return policy and dataclasses.replace(
        policy, content=policy.content.of(launch.purpose))


def require_in_force(policy):
    """Hold a policy that was read to its being in force.

    :param policy: Policy, None when there is none any more
    :raises Denied: it was deleted or revoked
    """
    if policy is None:
        raise errors.Denied(
            'policy_deleted',
            'The launch\'s policy was deleted in the meantime.')
    if policy.revoked_at is not None:
        raise errors.Denied('policy_revoked',
                            'The launch\'s policy is revoked.')


class Limiting:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts

    def content(self, launch):
        """What a launch's policy says of its purpose, in force or not.

        :returns: Content, None when the policy was deleted
        """
        with self._parts.database.reader() as session:
            policy = read(session, launch)
        return policy and policy.content

    def check(self, launch):
        """Hold a launch to its policy as it is at this moment.

        :returns: Policy, as read() has it
        :raises Denied, Unavailable: as hold()
        """
        with self._parts.database.reader() as session:
            policy, now = read(session, launch), clock.read(session)
        self.hold(launch, policy, now)
        return policy

    def hold(self, launch, policy, now):
        """Hold a launch to the limits of its policy.

        :param policy: Policy, None when there is none any more
        :param now: the database's time when it was read
        :raises Denied: a limit does not allow the launch, or the policy is
            not in force
        :raises Unavailable: Nova cannot be asked for the host's aggregates
        """
        require_in_force(policy)
        found = policy.content.limits
        aggregates = ()
        if limits.need_aggregates(found):
            aggregates = self._parts.servers.aggregates_of(launch.host)
        limits.check(found, server_id=launch.server_id, aggregates=aggregates,
                     now=now, release_count=policy.release_count)
