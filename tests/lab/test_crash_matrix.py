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

"""The cheap part of the crash matrix, and that it would see what is wrong."""

import os
import time

import pytest

from devstack.lab import owner as lab_owner
from tests.lab import crash_matrix
from tests.lab import traces


@pytest.fixture(scope='module')
def matrix(layout):
    with crash_matrix.on_one_host(layout, print) as found:
        yield found


@pytest.mark.parametrize('victim, step', [
    pytest.param(victim, step, id=f'{victim.name}-{step.name}')
    for victim, step in crash_matrix.cells(quick=True)])
def test_what_dies_in_a_launch_leaves_nothing_behind(matrix, victim, step):
    cell = matrix.run(victim, step)
    assert cell.held, cell


def test_the_matrix_has_a_cell_for_each_victim_at_each_step():
    found = crash_matrix.cells()
    assert len(found) >= 40
    assert len(crash_matrix.cells(quick=True)) == len(crash_matrix.QUICK)
    for victim, left_out in (('nova-compute', 0), ('MariaDB', 1)):
        assert [step for _, step in crash_matrix.cells([victim])] == list(
            crash_matrix.STEPS[left_out:])
    assert len(crash_matrix.cells(['MariaDB:session made'])) == 1


def test_a_secret_is_found_in_files_and_in_memory(layout):
    secret = os.urandom(32).hex().encode()
    looking = traces.Traces(layout, secret)
    begun = time.time()
    assert looking.secrets(begun) == []
    path = layout.log / lab_owner.unique('trace')
    path.write_bytes(b'password: ' + secret)
    try:
        assert looking.secrets(begun - 1) == [str(path)]
    finally:
        path.unlink()
    assert looking._is_in_memory(os.getpid())
