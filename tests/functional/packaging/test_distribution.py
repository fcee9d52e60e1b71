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

"""What is released: built twice, installed beside Nova, taken away again."""

import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import venv
import zipfile

from tests.functional.packaging import conftest

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
SITE = pathlib.Path(importlib.metadata.distribution('nova').locate_file(''))


def _hashes(folder):
    return {str(path.relative_to(folder)):
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob('*')
            if path.is_file() and '__pycache__' not in path.parts}


def _put_nova(site):
    """Nova as a package manager leaves it, without its tests."""
    shutil.copytree(SITE / 'nova', site / 'nova',
                    ignore=shutil.ignore_patterns('tests', '__pycache__',
                                                  'sev_attest'))
    for path in SITE.glob('nova-*.dist-info'):
        shutil.copytree(path, site / path.name)


def _driver(python, **environment):
    """Where Nova finds the package of compute_driver's value."""
    return subprocess.run(
        [python, '-B', '-c', 'import importlib.util as u; '
         'print(u.find_spec("nova.virt.sev_attest"))'],
        env=os.environ | environment, stdout=subprocess.PIPE, text=True,
        check=True, timeout=60).stdout


def test_a_second_build_is_the_same(built, tmp_path):
    first = _hashes(built)
    second = _hashes(conftest.build(tmp_path / 'second'))
    assert len(first) == 2
    assert first == second


def test_the_wheel_has_novas_files_only_below_its_own_folder(built):
    wheel, = built.glob('*.whl')
    names = zipfile.ZipFile(wheel).namelist()
    assert 'nova/virt/sev_attest/__init__.py' in names
    assert all(name.startswith('nova/virt/sev_attest/') for name in names
               if name.startswith('nova/'))
    assert {name.split('/')[0] for name in names
            if not name.partition('/')[0].endswith(('.dist-info', '.data'))
            } == {'nova', 'nova_sev_attest'}


def test_in_a_virtual_environment(built, tmp_path):
    venv.create(tmp_path / 'venv', with_pip=True)
    python = tmp_path / 'venv' / 'bin' / 'python'
    site, = (tmp_path / 'venv' / 'lib').glob('python3*/site-packages')
    _put_nova(site)
    before = _hashes(site / 'nova')
    wheel, = built.glob('*.whl')
    folders = {path for path in (tmp_path / 'venv').rglob('*')
               if path.is_dir() and path.name != '__pycache__'}

    def pip(*arguments):
        subprocess.run([python, '-B', '-m', 'pip', '--quiet', *arguments],
                       check=True, timeout=120)

    pip('install', '--no-deps', '--no-index', '--no-compile', wheel)
    assert str(site / 'nova/virt/sev_attest/__init__.py') in _driver(python)
    added = set(_hashes(site / 'nova')) - set(before)
    assert {name.rpartition('/')[0] for name in added} == {
        'virt/sev_attest'}
    pip('uninstall', '--yes', 'nova-sev-attest')
    assert _hashes(site / 'nova') == before
    left = {path for path in (tmp_path / 'venv').rglob('*')
            if path.is_dir() and path.name != '__pycache__'} - folders
    # pip takes our folder in it away, and leaves what others may use.
    assert left <= {tmp_path / 'venv' / 'etc'}
    assert _driver(python) == 'None\n'


def test_beside_a_distributions_nova(built, tmp_path):
    """In the folder that the distribution's Nova is in, by a package."""
    site = tmp_path / 'usr/lib/python3/dist-packages'
    site.mkdir(parents=True)
    _put_nova(site)
    before = _hashes(site)
    wheel, = built.glob('*.whl')
    # Not pip's --target, which puts whole folders in the place of others.
    subprocess.run(
        [sys.executable, '-m', 'pip', '--quiet', 'install', '--no-deps',
         '--no-index', '--no-compile', '--ignore-installed', '--root',
         tmp_path / 'package', '--prefix', '/usr', wheel],
        check=True, timeout=120)
    staged, = (tmp_path / 'package').glob('usr/lib/python3*/site-packages')
    shutil.copytree(staged, site, dirs_exist_ok=True)
    assert str(site / 'nova/virt/sev_attest/__init__.py') in _driver(
        sys.executable, PYTHONPATH=str(site))
    after = _hashes(site)
    assert {name: after[name] for name in before} == before
    # Removed as dpkg and rpm do it: what the package brought, and no more.
    record, = site.glob('nova_sev_attest-*.dist-info/RECORD')
    for line in record.read_text().splitlines():
        (site / line.split(',')[0]).unlink(missing_ok=True)
    assert {name: value for name, value in _hashes(site).items()
            if name in before} == before
    assert not {name for name in _hashes(site) if name.startswith('nova')
                and name not in before}


def test_every_file_that_can_carry_a_license_does():
    listed = subprocess.run(
        ['git', '-c', f'safe.directory={CHECKOUT}', '-C', CHECKOUT,
         'ls-files', '-z'], stdout=subprocess.PIPE, check=True,
        text=True).stdout.split('\0')
    without = []
    for name in filter(None, listed):
        path = CHECKOUT / name
        if path.suffix in ('.py', '.sh') and path.is_file():
            text = path.read_text()
            if text.strip() and 'Apache License' not in text[:900]:
                without.append(name)
    assert not without


def test_what_is_installed_fits_together():
    """pip check, of the environment that the lock makes."""
    done = subprocess.run([sys.executable, '-m', 'pip', 'check'],
                          stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
