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

"""Flavor extra specs of ours, for Nova's API to validate.

Loaded by nova-api through the entry point nova.api.extra_spec_validators:
imports nothing but what Nova's validators need.
"""

from nova.api.validation.extra_specs import base


def register():
    """The validators; Nova calls this."""
    return [
        base.ExtraSpecValidator(
            name='sev_attest:mode',
            description=(
                'Whether servers of this flavor run attested or not at all. '
                'It never lowers what [sev_attest] mode of nova-compute '
                'demands.'),
            value={
                'type': str,
                'description': '``required``: every launch is attested, or '
                               'refused. ``optional``: only servers that '
                               'name a policy are attested.',
                'enum': ['required', 'optional'],
            }),
    ]
