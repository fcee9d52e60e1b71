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

"""Requests and answers of /v1/policies."""

from nova_sev_attest.keyservice.schemas import common
from nova_sev_attest.keyservice.schemas import document

LIST = document.Operation('/v1/policies', 'get')
CREATE = document.Operation('/v1/policies', 'post')
SHOW = document.Operation('/v1/policies/{policy_id}', 'get')
UPDATE = document.Operation('/v1/policies/{policy_id}', 'patch')
DELETE = document.Operation('/v1/policies/{policy_id}', 'delete')
REVOKE = document.Operation('/v1/policies/{policy_id}/revocation', 'put')
RESTORE = document.Operation(
    '/v1/policies/{policy_id}/revocation', 'delete')
LIST_REVISIONS = document.Operation(
    '/v1/policies/{policy_id}/revisions', 'get')
SHOW_REVISION = document.Operation(
    '/v1/policies/{policy_id}/revisions/{revision}', 'get')


def view(policy, warnings, base):
    """A policy's current revision as the API shows it."""
    return policy.content.members() | {
        'id': policy.id,
        'revision': policy.revision,
        'project_id': policy.project_id,
        'created_at': common.time(policy.created_at),
        'updated_at': common.time(policy.updated_at),
        'revoked_at': policy.revoked_at and common.time(policy.revoked_at),
        'release_count': policy.release_count,
        'warnings': warnings,
        'links': common.self_link(base, f'/v1/policies/{policy.id}'),
    }


def revision(policy, base):
    """A revision as the API shows it, current or not."""
    return policy.content.members() | {
        'policy_id': policy.id,
        'revision': policy.revision,
        'project_id': policy.project_id,
        'created_at': common.time(policy.updated_at),
        'links': common.self_link(
            base, f'/v1/policies/{policy.id}/revisions/{policy.revision}'),
    }
