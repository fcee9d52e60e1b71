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
LIST_ALL = 'attestation:launches:list-all'
SHOW_ALL = 'attestation:launches:show-all'
CREATE = 'attestation:launches:create'
EVIDENCE = 'attestation:launches:evidence'
OUTCOME = 'attestation:launches:outcome'
SHOW_CERTIFICATES = 'attestation:launches:show-certificates'
SHOW_EVIDENCE = 'attestation:launches:show-evidence'
LIST_EVENTS = 'attestation:launches:list-events'
UPLOAD_SESSION = 'attestation:launches:upload-session'
UPLOAD_SECRET = 'attestation:launches:upload-secret'
DECIDE = 'attestation:launches:decide'

RULES = [
    policy.DocumentedRuleDefault(
        LIST, base.PROJECT_READER, 'List the launches of the project.',
        [{'method': 'GET', 'path': '/v1/launches'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        SHOW, base.PROJECT_READER, 'Show a launch of the project.',
        [{'method': 'GET', 'path': '/v1/launches/{launch_id}'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        LIST_ALL, base.SYSTEM_READER,
        'List launches of all projects: that they were and why they ended '
        'as they did, without what only the owner may see.',
        [{'method': 'GET', 'path': '/v1/launches'}],
        scope_types=base.ANY),
    policy.DocumentedRuleDefault(
        SHOW_ALL, base.SYSTEM_READER,
        'Show any launch without what only the owner may see.',
        [{'method': 'GET', 'path': '/v1/launches/{launch_id}'}],
        scope_types=base.ANY),
    policy.DocumentedRuleDefault(
        CREATE, base.SERVICE, 'Begin a launch of a server.',
        [{'method': 'PUT', 'path': '/v1/launches/{launch_id}'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        EVIDENCE, base.SERVICE, 'Send the evidence of a launch.',
        [{'method': 'PUT', 'path': '/v1/launches/{launch_id}/evidence'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        OUTCOME, base.SERVICE, 'Report how a launch ended.',
        [{'method': 'PUT', 'path': '/v1/launches/{launch_id}/outcome'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        SHOW_CERTIFICATES, base.PROJECT_READER,
        'Show the certificates of the platform of a launch of the project.',
        [{'method': 'GET', 'path': '/v1/launches/{launch_id}/certificates'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        SHOW_EVIDENCE, base.PROJECT_READER,
        'Show the evidence of a launch of the project.',
        [{'method': 'GET', 'path': '/v1/launches/{launch_id}/evidence'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        LIST_EVENTS, base.PROJECT_READER,
        'List what became of a launch of the project.',
        [{'method': 'GET', 'path': '/v1/launches/{launch_id}/events'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        UPLOAD_SESSION, base.PROJECT_MEMBER,
        'Give a launch of the project a session made by its owner.',
        [{'method': 'PUT', 'path': '/v1/launches/{launch_id}/session'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        UPLOAD_SECRET, base.PROJECT_MEMBER,
        'Release a launch of the project with a secret packed by its owner.',
        [{'method': 'PUT', 'path': '/v1/launches/{launch_id}/secret'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        DECIDE, base.PROJECT_MEMBER,
        'Approve or deny a launch of the project.',
        [{'method': 'PUT', 'path': '/v1/launches/{launch_id}/decision'}],
        scope_types=base.PROJECT),
]
