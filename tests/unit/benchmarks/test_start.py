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

import pytest

from benchmarks import start


@pytest.fixture(scope='module')
def figures():
    return start.run(1)


def test_every_figure_is_there(figures):
    assert set(start.TARGETS) <= set(figures)
    for name in ('sev_attest', 'help', 'complete', 'other'):
        assert figures[f'{name}_wall'] > 0 and figures[f'{name}_cpu'] > 0


def test_one_side_is_without_ours(tmp_path):
    """It starts, and has no command of ours."""
    code = ('import importlib.metadata as m; '
            'print(len(m.entry_points(group="openstack.attestation.v1")), '
            'file=open("found", "w"))')
    for name, ours in (('with', True), ('without', False)):
        start._Side(tmp_path / name, ours).start(code, [])
        count = int((tmp_path / name / 'found').read_text())
        assert (count > 20) is ours


def test_neither_side_always_comes_first():
    order = []
    taken = list(start._pairs(4, lambda: order.append(1) or 1,
                              lambda: order.append(2) or 2))
    assert taken == [(1, 2)] * 4
    assert order[2:] == [2, 1, 1, 2, 2, 1, 1, 2]


@pytest.mark.parametrize('arguments', [['--json'], []])
def test_command(monkeypatch, capsys, figures, arguments):
    monkeypatch.setattr(start, 'run', lambda pairs: figures)
    start.main(arguments)
    said = capsys.readouterr().out
    if arguments:
        assert json.loads(said) == figures
    else:
        assert len(said.splitlines()) == len(figures)
