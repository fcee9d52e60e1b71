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
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from devstack.lab import __main__ as command_line
from devstack.lab import errors
from devstack.lab import lab as lab_module
from devstack.lab import layout as lab_layout
from devstack.lab import namespace
from devstack.lab import services
from devstack.lab import supervision


def ready_when(path):
    return lambda since: None if path.exists() else 'no file'


@pytest.fixture
def said():
    return []


@pytest.fixture
def lab(real_namespace, said, monkeypatch):
    """A lab with three small services in place of the real ones."""
    folder = real_namespace.lab_dir

    def table(layout):
        return {service.name: service for service in (
            services.Service('base', ('sh', '-c', 'touch base; sleep 600'),
                             ready_when(folder / 'base'), stop_seconds=2),
            services.Service('top', ('sh', '-c', 'touch top; sleep 600'),
                             ready_when(folder / 'top'), ('base',),
                             port=layout.port('glance'), stop_seconds=2),
            services.Service('broken', ('sh', '-c', 'echo no disk; exit 3'),
                             ready_when(folder / 'broken')),
        )}

    monkeypatch.setattr(services, 'table', table)
    made = lab_module.Lab(real_namespace, said.append)
    supervision.write_configuration(real_namespace, made.services.values())
    supervision.start(real_namespace)
    return made


def test_start_waits_until_it_is_ready(lab, said):
    lab.start('base')
    assert (lab.layout.lab_dir / 'base').exists()
    assert said and said[0].startswith('base is ready (')


def test_status_tells_what_runs_where(lab):
    lab.start('top')
    rows = {row['name']: row for row in lab.status()}
    assert rows['top']['state'] == 'RUNNING'
    assert rows['top']['port'] == lab.layout.port('glance')
    os.kill(rows['top']['pid'], 0)
    assert rows['base'] == {
        'name': 'base', 'state': 'STOPPED', 'pid': None, 'port': None,
        'log': str(lab.layout.log / 'base.log')}


def test_a_service_that_ends_is_told_with_its_log(lab):
    with pytest.raises(errors.StepFailed,
                       match=r'broken ended \(EXITED\)(.|\n)*no disk'):
        lab.start('broken')


def test_a_service_that_does_not_get_ready_is_not_waited_for_long(
        lab, monkeypatch):
    monkeypatch.setattr(lab_module, '_READY_SECONDS', 1)
    monkeypatch.setitem(
        lab.services, 'base', services.Service(
            'base', (), lambda since: 'HTTP 503'))
    with pytest.raises(errors.StepFailed,
                       match=r'not ready after 1 s \(HTTP 503\)'):
        lab.start('base')


def test_up_at_other_ports_is_refused_before_anything_is_written(lab):
    lab.layout.clouds.write_text('auth_url: http://127.0.0.1:1024/v3\n')
    with pytest.raises(errors.LabError, match='LAB_PORT_BASE'):
        lab.up()
    assert not lab.layout.openrc.exists()


def test_stop_stops_one(lab):
    lab.start('base')
    lab.start('top')
    lab.stop('base')
    states = {row['name']: row['state'] for row in lab.status()}
    assert (states['base'], states['top']) == ('STOPPED', 'RUNNING')


def test_an_unknown_service_is_refused_with_the_names(lab):
    with pytest.raises(errors.LabError, match="'nova'.*base, top, broken"):
        lab.start('nova')


def test_down_leaves_nothing(lab):
    lab.start('top')
    lab.down()
    assert namespace.marked(lab.layout) == []
    assert not lab.layout.run_dir.exists()
    lab.down()
    lab.layout.run_dir.mkdir()


def test_down_tells_what_is_left(lab):
    with socket.create_server(('127.0.0.1', lab.layout.port('neutron'))):
        with pytest.raises(errors.SomethingLeft,
                           match=f'port {lab.layout.port("neutron")}'):
            lab.down()
    lab.layout.run_dir.mkdir()


def test_reset_keeps_what_was_downloaded(lab):
    for folder in (lab.layout.cache, lab.layout.services_root,
                   lab.layout.data, lab.layout.emulator):
        folder.mkdir(parents=True)
    lab.reset()
    assert lab.layout.cache.is_dir()
    assert lab.layout.services_root.is_dir()
    assert not lab.layout.data.exists()
    assert not lab.layout.emulator.exists()
    assert not lab.layout.etc.exists()
    lab.layout.run_dir.mkdir()


def test_a_lab_that_does_not_run_says_so(layout):
    lab = lab_module.Lab(layout, print)
    with pytest.raises(errors.LabError, match='not running: tools/lab up'):
        lab.stop('keystone')
    assert {row['state'] for row in lab.status()} == {'STOPPED'}


def test_one_command_waits_for_another(layout, said):
    first = lab_module.Lab(layout, said.append)
    second = lab_module.Lab(layout, said.append)
    first._take_lock()
    waiting = threading.Thread(target=second._take_lock)
    waiting.start()
    while not said:
        time.sleep(0.01)
    assert waiting.is_alive()
    first._lock.close()
    waiting.join(10)
    assert not waiting.is_alive()


def run(layout, *arguments):
    return subprocess.run(
        [sys.executable, '-m', 'devstack.lab', *arguments],
        cwd=lab_layout.CHECKOUT, capture_output=True, text=True,
        env={**os.environ, 'LAB_DIR': str(layout.lab_dir),
             'LAB_VENV': str(layout.venv),
             'LAB_PORT_BASE': str(layout.port_base)})


def test_command_line_status(real_namespace):
    done = run(real_namespace, 'status', '--json')
    assert done.returncode == 3
    rows = json.loads(done.stdout)
    assert {'name': 'nova-compute', 'state': 'STOPPED', 'pid': None,
            'port': None,
            'log': f'{real_namespace.log}/nova-compute.log'} in rows
    done = run(real_namespace, 'status')
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == len(rows) + 1


def test_command_line_tells_errors_without_a_traceback(real_namespace):
    done = run(real_namespace, 'start', 'keystone')
    assert done.returncode == 1
    assert done.stderr == (
        'tools/lab: the lab is not running: tools/lab up\n')


def test_command_line_needs_root(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['lab', 'down'])
    monkeypatch.setattr(os, 'geteuid', lambda: 1000)
    with pytest.raises(SystemExit, match='needs root'):
        command_line.main()
