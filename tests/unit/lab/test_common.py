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

"""The shell functions that every command's set-up is made of."""

import os
import subprocess

import pytest

from devstack.lab import layout as lab_layout


def bash(script, path=None, **environment):
    return subprocess.run(
        ['bash', '-c', f'set -euo pipefail; source '
         f'{lab_layout.CHECKOUT}/tools/common.sh; {script}'],
        env={'PATH': path or os.environ['PATH'], **environment},
        capture_output=True, text=True)


@pytest.fixture
def programs(tmp_path):
    """A folder for programs that stand in for real ones."""
    folder = tmp_path / 'bin'
    folder.mkdir()

    def add(name, script):
        path = folder / name
        path.write_text(f'#!/bin/sh\n{script}\n')
        path.chmod(0o755)
        return f'{folder}:/usr/bin:/bin'

    return add


def test_a_python_that_is_too_old_or_broken_is_passed_over(programs):
    programs('python3.11', 'exit 127')
    programs('python3.12', 'exit 1')
    path = programs('python3.13', 'case "$2" in *executable*) '
                                  'echo /opt/python3.13;; esac')
    done = bash('choose_python', path=path)
    assert done.stdout == '/opt/python3.13\n'


def test_no_python_says_what_to_do(programs):
    done = bash('choose_python', LAB_PYTHON='/nonexistent/python')
    assert done.returncode == 1
    assert 'install python3' in done.stderr
    assert 'LAB_PYTHON' in done.stderr


def test_only_what_is_missing_is_installed(programs):
    programs('gcc', 'exit 0')
    path = programs('pkg-config', 'exit 1')
    python = programs('python', 'exit 0').split(':')[0] + '/python'
    done = bash(f'missing_packages {python}', path=path)
    assert done.stdout.split() == ['libvirt-dev']


def test_all_that_is_needed_is_named(programs, tmp_path):
    programs('bash', 'exec /bin/bash "$@"')
    programs('dirname', 'exec /usr/bin/dirname "$@"')
    python = programs('python', 'exit 1').split(':')[0]
    done = subprocess.run(
        ['/bin/bash', '-c', f'source {lab_layout.CHECKOUT}/tools/common.sh; '
         f'missing_packages {python}/python'],
        env={'PATH': python}, capture_output=True, text=True)
    assert done.stdout.split() == [
        'gcc', 'pkg-config', 'libvirt-dev', 'procps', 'python3-venv',
        'python3-dev']


def test_a_failed_command_shows_its_end_and_its_log(tmp_path):
    log = tmp_path / 'log'
    done = bash(f'quietly {log} sh -c "echo cause; exit 3"; echo went on')
    assert done.returncode == 1
    assert 'cause' in done.stderr
    assert str(log) in done.stderr
    assert 'went on' not in done.stdout


def test_a_command_that_works_is_quiet(tmp_path):
    done = bash(f'quietly {tmp_path}/log echo much')
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_the_tree_hash_follows_the_files(tmp_path):
    for name in ('etc', 'nova', 'nova_sev_attest'):
        (tmp_path / name).mkdir()
    for name in ('requirements.txt', 'setup.cfg', 'setup.py',
                 'pyproject.toml'):
        (tmp_path / name).write_text(name)
    hashes = []
    for path, text in (('nova/a.py', '1'), ('nova/a.py', '2'),
                       ('nova_sev_attest/b.yaml', '2'),
                       ('nova/a.pyc', 'not in the wheel'),
                       ('README', 'neither')):
        (tmp_path / path).write_text(text)
        done = bash(f'CHECKOUT={tmp_path}; tree_hash')
        assert done.returncode == 0
        hashes.append(done.stdout)
    assert len(set(hashes)) == 3
    assert hashes[2] == hashes[3] == hashes[4]


def test_a_prepared_environment_is_left_alone(tmp_path):
    venv = tmp_path / 'venv'
    (venv / 'bin').mkdir(parents=True)
    lock = lab_layout.CHECKOUT / 'requirements-lock.txt'
    stamps = bash(f'sha256sum <{lock} >{venv}/lock.stamp; '
                  f'tree_hash >{venv}/tree.stamp', LAB_VENV=str(venv))
    assert stamps.returncode == 0
    done = bash('prepare_python; echo prepared', LAB_VENV=str(venv))
    assert (done.returncode, done.stdout) == (0, 'prepared\n')
