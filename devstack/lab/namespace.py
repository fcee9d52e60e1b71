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

"""The process and mount namespace in which the whole lab runs.

``unshare --pid --kill-child`` makes it: when its first process ends, the
kernel ends every process in it and drops its mounts, whatever they do. No
file remembers it. Every process that the lab starts carries the lab's
folder in its environment, so a lab is found by looking for that, also after
whatever started it was killed.
"""

import os
import pathlib
import signal
import subprocess
import time

from devstack.lab import errors

_MARK = 'NOVA_SEV_ATTEST_LAB'
_PROC = pathlib.Path('/proc')


def environment(layout):
    """What marks a process as the lab's own."""
    return {_MARK: str(layout.lab_dir)}


def start(layout, command, environ):
    """Run a command as the first process of a new namespace.

    It outlives the caller; its output goes to the log folder.

    :returns: the process that holds the namespace, outside of it.
    """
    with (layout.log / 'namespace.log').open('ab') as log:
        return subprocess.Popen(
            ['unshare', '--fork', '--pid', '--kill-child', '--mount',
             '--mount-proc', '--propagation', 'private', '--',
             *map(str, command)],
            cwd=layout.lab_dir, env={**environ, **environment(layout)},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True)


def holder(layout):
    """Pid of the process outside that holds the namespace, or None."""
    for pid in marked(layout):
        arguments = _read(pid, 'cmdline').split(b'\0')
        if b'--kill-child' in arguments:
            return pid
    return None


def first_process(layout):
    """Pid, seen from outside, of the namespace's first process, or None."""
    for pid in marked(layout):
        inside = _pid_inside(pid)
        if inside == 1:
            return pid
    return None


def outer_pids(layout):
    """Pid inside -> pid outside, of every process in the namespace."""
    first = first_process(layout)
    if first is None:
        return {}
    wanted = _namespace_of(first)
    return {_pid_inside(pid): pid for pid in _pids()
            if _namespace_of(pid) == wanted}


def marked(layout):
    """Pids of all processes that carry the lab's mark."""
    mark = f'{_MARK}={layout.lab_dir}'.encode()
    return [pid for pid in _pids()
            if mark in _read(pid, 'environ').split(b'\0')]


def kill(layout, patience=10):
    """End the namespace and all that is in it, at once.

    :raises SomethingLeft: when it is still there after ``patience`` seconds.
    """
    first = first_process(layout)
    # The holder ends when the first process has; it is there to bury it.
    victim = holder(layout) if first is None else first
    if victim is None:
        return
    everything = {victim, *outer_pids(layout).values(), *marked(layout)}
    _kill(victim)
    deadline = time.monotonic() + patience
    while left := [pid for pid in everything if _alive(pid)]:
        if time.monotonic() > deadline:
            raise errors.SomethingLeft(
                f'processes {left} of the lab do not end; see what they '
                f'wait for in /proc/<pid>/stack')
        time.sleep(0.05)


def mounts(layout):
    """Mount points below the lab's folders, in the namespace we are in."""
    places = (f'{layout.lab_dir}/', f'{layout.run_dir}/')
    lines = pathlib.Path('/proc/self/mountinfo').read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in points if f'{point}/'.startswith(places)
            and point != str(layout.lab_dir)]


def _pids():
    return [int(name) for name in os.listdir(_PROC) if name.isdecimal()]


def _read(pid, name):
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # It ended while we looked, or it is none of ours.
        return b''


def _pid_inside(pid):
    """The process's pid in its own namespace; None when that is ours."""
    for line in _read(pid, 'status').splitlines():
        if line.startswith(b'NSpid:'):
            numbers = line.split()[1:]
            return int(numbers[-1]) if len(numbers) > 1 else None
    return None


def _namespace_of(pid):
    try:
        return os.readlink(_PROC / str(pid) / 'ns' / 'pid')
    except OSError:
        return None


def _alive(pid):
    state = _read(pid, 'stat').rpartition(b')')[2].split()
    return bool(state) and state[0] != b'Z'


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
