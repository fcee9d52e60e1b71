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

import os
import pathlib
import signal
import subprocess
import time

import pytest

from devstack.lab import namespace

# Leaves a child that has left the session and would outlive its parent.
_COMMAND = ('sh', '-c', 'setsid sleep 600 & sleep 600')


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def start(layout, command=_COMMAND):
    process = namespace.start(layout, command, {'PATH': os.environ['PATH']})

    def became_the_command():
        first = namespace.first_process(layout)
        return first and pathlib.Path(
            f'/proc/{first}/comm').read_text() == f'{command[0]}\n'

    wait_for(became_the_command)
    return process


def test_no_lab_no_namespace(layout):
    assert namespace.holder(layout) is None
    assert namespace.first_process(layout) is None
    assert namespace.outer_pids(layout) == {}
    assert namespace.mounts(layout) == []
    namespace.kill(layout)


def test_a_process_of_the_lab_is_found_by_its_mark(layout):
    with subprocess.Popen(['sleep', '600'],
                          env=namespace.environment(layout)) as process:
        try:
            wait_for(lambda: namespace.marked(layout))
            assert namespace.marked(layout) == [process.pid]
            assert namespace.holder(layout) is None
        finally:
            process.kill()
    assert namespace.marked(layout) == []


def test_kill_ends_everything_in_it(real_namespace):
    process = start(real_namespace)
    inside = wait_for(lambda: len(
        found := namespace.outer_pids(real_namespace)) >= 3 and found)
    assert inside[1] == namespace.first_process(real_namespace)
    namespace.kill(real_namespace)
    assert process.wait(10) != 0
    assert namespace.marked(real_namespace) == []
    for pid in inside.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_killing_the_holder_ends_everything_too(real_namespace):
    process = start(real_namespace)
    os.kill(namespace.holder(real_namespace), signal.SIGKILL)
    process.wait(10)
    wait_for(lambda: not namespace.marked(real_namespace))


def test_a_first_process_whose_holder_is_gone_is_found(real_namespace,
                                                       monkeypatch):
    process = start(real_namespace)
    monkeypatch.setattr(namespace, 'holder', lambda layout: None)
    namespace.kill(real_namespace)
    assert process.wait(10) != 0
    assert namespace.marked(real_namespace) == []


def test_mounts_inside_are_not_seen_outside(real_namespace):
    place = real_namespace.lab_dir / 'mounted'
    place.mkdir()
    process = start(real_namespace, (
        'sh', '-c', f'mount -t tmpfs x {place} && touch {place}/ready '
        f'{real_namespace.log}/done && sleep 600'))
    wait_for((real_namespace.log / 'done').exists)
    assert not (place / 'ready').exists()
    assert namespace.mounts(real_namespace) == []
    namespace.kill(real_namespace)
    process.wait(10)


def test_mounts_that_were_left_are_found(real_namespace):
    place = real_namespace.lab_dir / 'mounted'
    place.mkdir()
    subprocess.run(['mount', '-t', 'tmpfs', 'x', place], check=True)
    try:
        assert namespace.mounts(real_namespace) == [str(place)]
    finally:
        subprocess.run(['umount', place], check=True)
