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

"""Rules of platforms."""

from oslo_policy import policy

from nova_sev_attest.keyservice.policies import base

LIST = 'attestation:platforms:list'
SHOW = 'attestation:platforms:show'
LIST_ALL = 'attestation:platforms:list-all'
SHOW_ALL = 'attestation:platforms:show-all'

RULES = [
    policy.DocumentedRuleDefault(
        LIST, base.PROJECT_READER,
        'List the platforms that launches of the project were begun on.',
        [{'method': 'GET', 'path': '/v1/platforms'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        SHOW, base.PROJECT_READER,
        'Show a platform that a launch of the project was begun on.',
        [{'method': 'GET', 'path': '/v1/platforms/{platform_id}'}],
        scope_types=base.PROJECT),
    policy.DocumentedRuleDefault(
        LIST_ALL, base.SYSTEM_READER,
        'List all platforms, with what was last seen of them by any '
        'project\'s launch.',
        [{'method': 'GET', 'path': '/v1/platforms'}],
        scope_types=base.ANY),
    policy.DocumentedRuleDefault(
        SHOW_ALL, base.SYSTEM_READER, 'Show any platform.',
        [{'method': 'GET', 'path': '/v1/platforms/{platform_id}'}],
        scope_types=base.ANY),
]
