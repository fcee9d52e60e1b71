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
import shutil
import socket
import sys

import pytest

from devstack.lab import layout as lab_layout
from devstack.lab import namespace


# Below what the kernel gives to clients, and beside the default lab's.
_FIRST_BASE, _BASES = 10000, 149


def free_port_base():
    """A base above which no port of a lab is in use.

    Each process looks from another place on: what another one has chosen
    and not bound yet looks free.
    """
    for step in range(_BASES):
        base = _FIRST_BASE + (os.getpid() + step) % _BASES * 100
        try:
            for offset in lab_layout.PORTS.values():
                with socket.socket() as probe:
                    probe.bind(('127.0.0.1', base + offset))
        except OSError:
            continue
        return base
    raise AssertionError('no free ports')


@pytest.fixture
def layout(tmp_path):
    """A lab that does not run, in a folder of the test's own."""
    found = lab_layout.Layout(
        lab_dir=tmp_path / 'lab',
        # bin/supervisord is beside the interpreter that runs the tests.
        venv=pathlib.Path(sys.executable).parents[1],
        port_base=free_port_base())
    found.log.mkdir(parents=True)
    yield found
    shutil.rmtree(found.run_dir, ignore_errors=True)


@pytest.fixture
def real_namespace(layout):
    """The layout, where namespaces can be made; none is left afterwards."""
    if os.geteuid():
        pytest.skip('namespaces need root')
    layout.run_dir.mkdir(parents=True)
    yield layout
    namespace.kill(layout)
    shutil.rmtree(layout.run_dir)
