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

"""What the pages tell operators to set and see is what the driver does."""

import pathlib
import re

import pytest

from nova_sev_attest.virt import attesters
from nova_sev_attest.virt import extra_specs
from nova_sev_attest.virt import scope
from nova_sev_attest.virt import steps
from nova_sev_attest.virt import traits
from nova_sev_attest.virt import watch

_ROOT = pathlib.Path(__file__).parents[3]
_PAGES = (_ROOT / 'README.rst', *sorted((_ROOT / 'doc/source').rglob('*.rst')))

EVENTS = {step.event for step in vars(steps).values()
          if isinstance(step, type) and issubclass(step, steps.Step)
          and step.event}
TRAITS = {traits.ATTESTS, *map(traits.of, attesters.load())}


@pytest.mark.parametrize('pattern, known', [
    (r'\bsev_attest:\w+', {spec.name for spec in extra_specs.register()}),
    (r'\bCUSTOM_SEV_\w+', TRAITS),
    (r'\bsev_attest_\w+', EVENTS | {scope.MODE_PROPERTY, watch.ACTION}),
    (r'\battestation_policy(?==)', {scope.POLICY_PROPERTY}),
], ids=['extra specs', 'traits', 'image property and events',
        'server property'])
def test_all_of_them_are_there_and_no_others(pattern, known):
    named = {name for page in _PAGES
             for name in re.findall(pattern, page.read_text())}
    assert named == known
