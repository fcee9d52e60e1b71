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

"""Rules of firmwares."""

from oslo_policy import policy

from nova_sev_attest.keyservice.policies import base

LIST = 'attestation:firmwares:list'
SHOW = 'attestation:firmwares:show'
UPLOAD = 'attestation:firmwares:upload'
DELETE = 'attestation:firmwares:delete'

RULES = [
    policy.DocumentedRuleDefault(
        LIST, base.PROJECT_READER, 'List the project\'s firmwares.',
        [{'method': 'GET', 'path': '/v1/firmwares'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        SHOW, base.PROJECT_READER, 'Show a firmware of the project.',
        [{'method': 'GET', 'path': '/v1/firmwares/{sha256}'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        UPLOAD, base.PROJECT_MEMBER, 'Upload a firmware.',
        [{'method': 'PUT', 'path': '/v1/firmwares/{sha256}'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        DELETE, base.PROJECT_MEMBER,
        'Delete a firmware that no policy names.',
        [{'method': 'DELETE', 'path': '/v1/firmwares/{sha256}'}],
        scope_types=base.PROJECT),
]
