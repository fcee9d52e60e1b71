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

import json
import sys

import pytest

from benchmarks import core


@pytest.fixture(scope='module')
def figures():
    return core.run(3)


def test_every_figure_is_there(figures):
    assert set(core.TARGETS) <= set(figures)
    assert all(value > 0 for name, value in figures.items()
               if name != 'targets_missed')


def test_hostile_firmware_is_refused_cheaply(figures):
    assert figures['hostile_firmware_bytes'] < 4 * 1024 * 1024


@pytest.mark.parametrize('arguments', [['--json'], []])
def test_command(monkeypatch, capsys, figures, arguments):
    monkeypatch.setattr(core, 'run', lambda pairs: figures)
    monkeypatch.setattr(sys, 'argv', ['core', *arguments])
    core.main()
    said = capsys.readouterr().out
    if arguments:
        assert json.loads(said) == figures
    else:
        assert len(said.splitlines()) == len(figures)
        assert 'launch_ratio' in said
