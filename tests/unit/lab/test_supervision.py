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

import sys
import time

import pytest

from devstack.lab import errors
from devstack.lab import namespace
from devstack.lab import services
from devstack.lab import supervision

_PROGRAM = ('import os, sys, time; print(os.environ["GREETING"], '
            'sys.argv[1], flush=True); time.sleep(600)')


def service(name, *command, **more):
    return services.Service(name=name, command=command,
                            probe=lambda since: None, **more)


@pytest.fixture
def supervisor(real_namespace):
    supervision.write_configuration(real_namespace, [
        service('sleeper', sys.executable, '-c', _PROGRAM, '100% "a b"',
                environment={'GREETING': 'good day, 5%'}, stop_seconds=2),
        service('stubborn', 'sh', '-c',
                'trap "" TERM; echo ready; while :; do sleep 1; done',
                stop_seconds=1),
        service('short', 'sh', '-c', 'echo no; exit 7'),
    ])
    supervision.start(real_namespace)
    return real_namespace


def wait_for_log(layout, name):
    path = layout.log / f'{name}.log'
    for _ in range(200):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f'{name} wrote nothing')


def test_nothing_runs_by_itself(supervisor):
    states = supervision.states(supervisor)
    assert {info['statename'] for info in states.values()} == {'STOPPED'}
    assert len(states) == 3


def test_arguments_and_environment_arrive_as_they_are(supervisor):
    supervision.start_service(supervisor, 'sleeper')
    assert wait_for_log(supervisor, 'sleeper') == (
        'good day, 5% 100% "a b"\n')


def test_starting_and_stopping_twice_is_no_error(supervisor):
    for _ in range(2):
        supervision.start_service(supervisor, 'sleeper')
    assert supervision.states(supervisor)['sleeper'][
        'statename'] == 'RUNNING'
    for _ in range(2):
        supervision.stop_service(supervisor, 'sleeper')
    assert supervision.states(supervisor)['sleeper'][
        'statename'] == 'STOPPED'


def test_a_service_that_will_not_end_is_killed(supervisor):
    supervision.start_service(supervisor, 'stubborn')
    wait_for_log(supervisor, 'stubborn')
    supervision.stop_service(supervisor, 'stubborn')
    assert supervision.states(supervisor)['stubborn'][
        'statename'] == 'STOPPED'


def test_children_of_a_service_that_stops_them_itself_are_left(
        real_namespace):
    program = ('trap "" TERM; (trap - TERM; sleep 0.5; echo ready; sleep 1; '
               'echo done) & wait')
    supervision.write_configuration(real_namespace, [
        service('parent', 'bash', '-c', program, stops_as_group=False)])
    supervision.start(real_namespace)
    supervision.start_service(real_namespace, 'parent')
    wait_for_log(real_namespace, 'parent')
    supervision.stop_service(real_namespace, 'parent')
    assert wait_for_log(real_namespace, 'parent') == 'ready\ndone\n'


def test_a_service_that_ended_is_seen_and_stays_ended(supervisor):
    supervision.start_service(supervisor, 'short')
    wait_for_log(supervisor, 'short')
    for _ in range(100):
        info = supervision.states(supervisor)['short']
        if info['statename'] == 'EXITED':
            break
    assert info['exitstatus'] == 7


def test_an_unknown_service_is_an_error(supervisor):
    with pytest.raises(errors.StepFailed, match='BAD_NAME'):
        supervision.start_service(supervisor, 'nobody')


def test_a_new_service_is_taken_over_and_the_others_run_on(supervisor):
    supervision.start_service(supervisor, 'stubborn')
    pid = supervision.states(supervisor)['stubborn']['pid']
    supervision.write_configuration(supervisor, [
        service('stubborn', 'sleep', '1'), service('new', 'sleep', '600')])
    supervision.reload(supervisor)
    supervision.start_service(supervisor, 'new')
    states = supervision.states(supervisor)
    assert states['new']['statename'] == 'RUNNING'
    assert states['stubborn']['pid'] == pid


def test_pids_are_told_as_seen_from_outside(supervisor):
    supervision.start_service(supervisor, 'sleeper')
    wait_for_log(supervisor, 'sleeper')
    inside = supervision.states(supervisor)['sleeper']['pid']
    outside = namespace.outer_pids(supervisor)[inside]
    with open(f'/proc/{outside}/cmdline', 'rb') as line:
        assert b'100% "a b"' in line.read()


def test_no_supervisor_no_answer(layout):
    assert supervision.answers(layout) is False


def test_a_supervisor_that_does_not_start_says_why(real_namespace):
    real_namespace.etc.mkdir()
    (real_namespace.etc / 'supervisord.conf').write_text('[nonsense\n')
    with pytest.raises(errors.StepFailed,
                       match='namespace.log(.|\n)*no section'):
        supervision.start(real_namespace)


def test_tail_gives_the_last_lines(tmp_path):
    path = tmp_path / 'log'
    path.write_text('a\nb\nc\n')
    assert supervision.tail(path, 2) == 'b\nc'
    assert 'no such file' in supervision.tail(tmp_path / 'none')
