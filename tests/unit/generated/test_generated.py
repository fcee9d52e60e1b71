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

"""What is made from the code is what the code makes."""

import json

import pytest

from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.keyservice import events
from nova_sev_attest.keyservice import notifications
from tests import generated


@pytest.mark.parametrize('name', generated.FILES)
def test_is_what_the_code_makes(name):
    # Not a bare assert: the difference may be long.
    if (generated.ROOT / name).read_text() != generated.FILES[name]():
        pytest.fail(f'{name} is not what the code makes any more: run '
                    f'"python -m tests.generated" and commit it')


@pytest.mark.parametrize('name', events.EVENTS)
def test_samples_of_notifications(name):
    found = json.loads(json.dumps(generated.notification(name)))
    assert set(found['payload']) == {
        'version', 'project_id', 'subject', 'actor', 'request_id', 'at',
        'sequence', 'hash', 'head', 'details'}
    assert set(found['payload']['details']) == set(events.EVENTS[name][1])
    assert chain.POINT.fullmatch(found['payload']['head'])
    assert all(f'``{member}``' in notifications.__doc__
               for member in found['payload'])
