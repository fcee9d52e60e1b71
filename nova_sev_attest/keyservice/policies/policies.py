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

"""Rules of attestation policies."""

from oslo_policy import policy

from nova_sev_attest.keyservice.policies import base

LIST = 'attestation:policies:list'
SHOW = 'attestation:policies:show'
CREATE = 'attestation:policies:create'
UPDATE = 'attestation:policies:update'
DELETE = 'attestation:policies:delete'
REVOKE = 'attestation:policies:revoke'
RESTORE = 'attestation:policies:restore'
LIST_REVISIONS = 'attestation:policies:list-revisions'
SHOW_REVISION = 'attestation:policies:show-revision'

RULES = [
    policy.DocumentedRuleDefault(
        LIST, base.PROJECT_READER, 'List the project\'s policies.',
        [{'method': 'GET', 'path': '/v1/policies'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        SHOW, base.PROJECT_READER, 'Show a policy of the project.',
        [{'method': 'GET', 'path': '/v1/policies/{policy_id}'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        CREATE, base.PROJECT_MEMBER,
        'Create a policy. The caller must also be able to read every secret '
        'that the policy names.',
        [{'method': 'POST', 'path': '/v1/policies'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        UPDATE, base.PROJECT_MEMBER,
        'Make a new revision of a policy. The caller must also be able to '
        'read every secret that the new revision names.',
        [{'method': 'PATCH', 'path': '/v1/policies/{policy_id}'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        DELETE, base.PROJECT_MEMBER, 'Delete a policy.',
        [{'method': 'DELETE', 'path': '/v1/policies/{policy_id}'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        REVOKE, base.PROJECT_MEMBER,
        'Revoke a policy: nothing is released under it, and its open '
        'launches are denied.',
        [{'method': 'PUT', 'path': '/v1/policies/{policy_id}/revocation'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        RESTORE, base.PROJECT_MEMBER,
        'Take the revocation of a policy back. The caller must also be able '
        'to read every secret that the policy names.',
        [{'method': 'DELETE',
          'path': '/v1/policies/{policy_id}/revocation'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        LIST_REVISIONS, base.PROJECT_READER,
        'List the revisions of a policy of the project.',
        [{'method': 'GET', 'path': '/v1/policies/{policy_id}/revisions'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        SHOW_REVISION, base.PROJECT_READER,
        'Show a revision of a policy of the project.',
        [{'method': 'GET',
          'path': '/v1/policies/{policy_id}/revisions/{revision}'}],
        scope_types=base.PROJECT),
]
