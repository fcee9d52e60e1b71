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

"""Policies: what a project lets run, and the secrets it gets.

The members of a policy are the REST API's own (/v1/policies); this module
adds none and drops none.
"""

import dataclasses

from nova_sev_attest.client import answers
from nova_sev_attest.client import exceptions

# How often one change is tried while others change the same policy.
_CHANGES = 5


@dataclasses.dataclass(frozen=True)
class Policy:
    """One revision of a policy.

    :ivar body: the policy's members
    :ivar etag: names this revision in update()
    """

    body: dict
    etag: str


class Policies:
    """The resource; creating and updating are not repeated on failure.

    :param rest: RestClient
    """

    def __init__(self, rest):
        self._rest = rest

    def create(self, policy, deadline=None):
        """Create a policy from its members; returns Policy."""
        return self._policy(self._rest.request(
            'POST', '/v1/policies', json={'policy': policy},
            deadline=deadline))

    def get(self, policy_id, deadline=None):
        """The current revision; returns Policy.

        :raises NotFound: the project has no such policy
        """
        return self._policy(self._rest.request(
            'GET', f'/v1/policies/{policy_id}', deadline=deadline))

    def list(self, name=None, is_default=None, revoked=None, sort=None,
             limit=None, marker=None, deadline=None):
        """One page of policies, and the marker of the next page or None.

        :param is_default, revoked: only those that are, only those that are
            not, None for both
        :param sort: such as 'name:asc,created_at:desc'
        """
        return self._rest.page('/v1/policies', 'policies', {
            'name': name, 'is_default': answers.flag(is_default),
            'revoked': answers.flag(revoked), 'sort': sort, 'limit': limit,
            'marker': marker}, deadline)

    def each(self, name=None, is_default=None, revoked=None, sort=None,
             deadline=None):
        """Every policy, chosen as in list(); an iterator."""
        return self._rest.items('/v1/policies', 'policies', {
            'name': name, 'is_default': answers.flag(is_default),
            'revoked': answers.flag(revoked), 'sort': sort}, deadline)

    def revisions(self, policy_id, limit=None, marker=None, deadline=None):
        """One page of a policy's revisions, newest first, and a marker."""
        return self._rest.page(
            f'/v1/policies/{policy_id}/revisions', 'revisions',
            {'limit': limit, 'marker': marker}, deadline)

    def revision(self, policy_id, number, deadline=None):
        """The members of one revision of a policy."""
        answer = self._rest.request(
            'GET', f'/v1/policies/{policy_id}/revisions/{number}',
            deadline=deadline)
        return answers.member(answer.body, 'revision', dict)

    def update(self, policy_id, changes, etag, deadline=None):
        """Make a new revision of the revision that etag names.

        :param changes: the members that change
        :raises RevisionChanged: there is a newer revision
        """
        return self._policy(self._rest.request(
            'PATCH', f'/v1/policies/{policy_id}', json={'policy': changes},
            headers={'If-Match': etag}, deadline=deadline))

    def change(self, policy_id, decide, deadline=None):
        """Change a policy by what it is now, whoever else changes it, too.

        Reads the policy, asks what to change and writes that; when another
        revision came between, all of it again, up to five times.

        :param decide: called with the policy's members; returns those that
            change, none of them when nothing does
        :returns: Policy, after the change
        :raises RevisionChanged: others changed it each time
        """
        for left in reversed(range(_CHANGES)):
            policy = self.get(policy_id, deadline)
            changes = decide(policy.body)
            if not changes:
                return policy
            try:
                return self.update(policy_id, changes, policy.etag, deadline)
            except exceptions.RevisionChanged:
                if not left:
                    raise

    def revoke(self, policy_id, deadline=None):
        """Let nothing be launched under a policy any more; returns Policy.

        Open launches of it are denied. Harmless when it is revoked already.
        """
        return self._policy(self._rest.request(
            'PUT', f'/v1/policies/{policy_id}/revocation',
            deadline=deadline))

    def restore(self, policy_id, deadline=None):
        """Take a revocation back; returns Policy.

        :raises RequestRefused: status 403 when the caller cannot read a
            secret that the policy names, 412 when the policy was changed at
            the same time
        """
        return self._policy(self._rest.request(
            'DELETE', f'/v1/policies/{policy_id}/revocation',
            deadline=deadline))

    def delete(self, policy_id, etag=None, deadline=None):
        """Delete a policy.

        :param etag: the revision that it must have; None deletes any
        :raises RevisionChanged: there is a newer revision
        """
        self._rest.request(
            'DELETE', f'/v1/policies/{policy_id}',
            headers=None if etag is None else {'If-Match': etag},
            deadline=deadline)

    @staticmethod
    def _policy(answer):
        body = answers.member(answer.body, 'policy', dict)
        etag = answer.headers.get('ETag')
        if not etag:
            raise exceptions.InvalidResponse(
                'The key service answered a policy without ETag.',
                request_id=answer.request_id)
        return Policy(body, etag)
