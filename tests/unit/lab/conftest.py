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


def free_port_base():
    """A base above which no port of a lab is in use.

    Each process looks from another place on: what another one has chosen
    and not bound yet looks free.
    """
    first = os.getpid() % 300
    for step in range(300):
        base = 30000 + (first + step) % 300 * 100
        for offset in lab_layout.PORTS.values():
            with socket.socket() as probe:
                if probe.connect_ex(('127.0.0.1', base + offset)) == 0:
                    break
        else:
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
