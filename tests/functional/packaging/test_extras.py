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

"""What ``pip install`` of the package brings, with the extras of the docs."""

import configparser
from importlib import metadata
import subprocess
import sys

from packaging import requirements
from packaging import utils
import pytest

from tests import documented

_SETUP = configparser.ConfigParser(interpolation=None)
_SETUP.read(documented.CHECKOUT / 'setup.cfg')
# What makes a server of a machine.
_SERVERS = {'nova', 'sqlalchemy', 'alembic', 'falcon', 'uwsgi', 'oslo-db',
            'oslo-messaging', 'keystonemiddleware', 'libvirt-python',
            'prometheus-client', 'pymysql'}


def _listed(lines):
    return [requirements.Requirement(line.split(' #')[0])
            for line in lines if line.strip() and not line.startswith('#')]


def _all_of(extras):
    """Names of all distributions that get installed with extras."""
    wanted = _listed(
        (documented.CHECKOUT / 'requirements.txt').read_text().splitlines())
    for extra in extras:
        wanted += _listed(_SETUP['extras'][extra].splitlines())
    found = set()
    while wanted:
        requirement = wanted.pop()
        name = utils.canonicalize_name(requirement.name)
        extra, *_ = *requirement.extras, ''
        if (name, extra) not in found:
            found.add((name, extra))
            wanted += [
                inner for inner in _listed(metadata.requires(name) or ())
                if inner.marker is None
                or inner.marker.evaluate({'extra': extra})]
    return {name for name, _ in found}


def _documented():
    return sorted({word for command in documented.of('pip install')
                   for word in command.words
                   if word.startswith('nova-sev-attest')})


@pytest.mark.parametrize('what', _documented())
def test_pip_installs(built, what):
    """From the wheel, without an index: the lock has all that it needs."""
    wheel, = built.glob('*.whl')
    extras = what.removeprefix('nova-sev-attest')
    done = subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '--dry-run', '--no-index',
         f'{wheel}{extras}'],
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 'does not provide the extra' not in done.stderr
    for name in _all_of(filter(None, extras.strip('[]').split(','))):
        assert metadata.version(name)


@pytest.mark.parametrize('extras', [(), ('cli',)])
def test_an_owners_machine_gets_no_server(extras):
    assert _all_of(extras) & _SERVERS == set()


def test_a_node_of_the_key_service_gets_no_nova():
    found = _all_of(['keyservice'])
    assert 'falcon' in found
    assert found & {'nova', 'libvirt-python', 'python-openstackclient'} == (
        set())
