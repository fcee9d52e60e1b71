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

"""The cheap part of what users and operators do to attested servers."""

import pytest

from tests.lab import standing
from tests.lab import user_actions


@pytest.fixture(scope='module')
def done(layout):
    """Results by action, of all that are cheap, done one after the other."""
    with standing.prepared(layout) as project:
        results = user_actions.perform(project, [
            action for action in user_actions.TABLE if action.cheap])
    return {result.action: result for result in results}


@pytest.mark.parametrize('name', [
    *(action.name for action in user_actions.TABLE if action.cheap),
    'delete'])
def test_each_action_has_the_outcome_that_is_promised(done, name):
    assert done[name].held, done[name]
