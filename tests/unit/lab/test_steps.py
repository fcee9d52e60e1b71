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

import graphlib
import threading

import pytest

from devstack.lab import steps


def recording(*specifications):
    """Steps that note their names in a list, and that list."""
    done = []

    def step(name, *needs):
        return steps.Step(name, lambda give_up: done.append(name), needs)

    return [step(*specification) for specification in specifications], done


def test_each_comes_after_what_it_needs():
    plan, done = recording(('c', 'b'), ('d', 'a', 'c'), ('a',), ('b', 'a'))
    steps.run(plan)
    assert done == ['a', 'b', 'c', 'd']


def test_independent_steps_run_side_by_side():
    meeting = threading.Barrier(2, timeout=10)

    def action(give_up):
        meeting.wait()

    steps.run([steps.Step('a', action), steps.Step('b', action)])
    assert not meeting.broken


def test_needs_that_are_not_in_the_plan_are_taken_as_done():
    plan, done = recording(('a', 'elsewhere'))
    steps.run(plan)
    assert done == ['a']


def test_nothing_to_do_is_no_error():
    steps.run([])


def test_a_failure_stops_what_comes_after_and_ends_what_waits():
    plan, done = recording(('after', 'bad'))
    started = threading.Event()
    gave_up = []

    def wait(give_up):
        started.set()
        gave_up.append(give_up.wait(10))

    def fail(give_up):
        assert started.wait(10)
        raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        steps.run([steps.Step('waits', wait), steps.Step('bad', fail),
                   *plan])
    assert gave_up == [True]
    assert done == []


def test_a_circle_is_refused_before_anything_is_done():
    plan, done = recording(('a', 'b'), ('b', 'a'), ('c',))
    with pytest.raises(graphlib.CycleError):
        steps.run(plan)
    assert done == []


def test_with_needs_takes_what_is_needed_and_no_more():
    plan, _ = recording(('a',), ('b', 'a'), ('c', 'b'), ('d',))
    assert [step.name for step in steps.with_needs(plan, ['c'])] == [
        'a', 'b', 'c']


def test_with_needs_refuses_an_unknown_name():
    plan, _ = recording(('a',))
    with pytest.raises(KeyError, match='nova'):
        steps.with_needs(plan, ['nova'])
