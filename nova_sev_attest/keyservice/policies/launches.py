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

"""Rules of launches."""

from oslo_policy import policy

from nova_sev_attest.keyservice.policies import base

LIST = 'attestation:launches:list'
SHOW = 'attestation:launches:show'
LIST_REDUCED = 'attestation:launches:list-reduced'
SHOW_REDUCED = 'attestation:launches:show-reduced'
CREATE = 'attestation:launches:create'
EVIDENCE = 'attestation:launches:evidence'
OUTCOME = 'attestation:launches:outcome'

RULES = [
    policy.DocumentedRuleDefault(
        LIST, base.PROJECT_READER, 'List the launches of the project.',
        [{'method': 'GET', 'path': '/v1/launches'}],
        scope_types=['project']),
    policy.DocumentedRuleDefault(
        SHOW, base.PROJECT_READER, 'Show a launch of the project.',
        [{'method': 'GET', 'path': '/v1/launches/{launch_id}'}],
        scope_types=['project']),
    policy.DocumentedRuleDefault(
        LIST_REDUCED, base.SERVICE,
        'List launches of all projects without what only the owner may see.',
        [{'method': 'GET', 'path': '/v1/launches'}],
        scope_types=['project']),
    policy.DocumentedRuleDefault(
        SHOW_REDUCED, base.SERVICE,
        'Show any launch without what only the owner may see.',
        [{'method': 'GET', 'path': '/v1/launches/{launch_id}'}],
        scope_types=['project']),
    policy.DocumentedRuleDefault(
        CREATE, base.SERVICE, 'Begin a launch of a server.',
        [{'method': 'PUT', 'path': '/v1/launches/{launch_id}'}],
        scope_types=['project']),
    policy.DocumentedRuleDefault(
        EVIDENCE, base.SERVICE, 'Send the evidence of a launch.',
        [{'method': 'PUT', 'path': '/v1/launches/{launch_id}/evidence'}],
        scope_types=['project']),
    policy.DocumentedRuleDefault(
        OUTCOME, base.SERVICE, 'Report how a launch ended.',
        [{'method': 'PUT', 'path': '/v1/launches/{launch_id}/outcome'}],
        scope_types=['project']),
]
