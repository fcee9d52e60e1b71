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

import io
import json
import logging
import os
import subprocess
import sys
import types
import warnings

import pytest
import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from tests.functional.keyservice import harness
from tests.functional.osc import fakes
from tests.unit.launch import platforms


class Result(types.SimpleNamespace):
    """What a run of the command gave.

    :ivar status: what it exited with
    :ivar out: its standard output
    :ivar err: its standard error
    """

    @property
    def json(self):
        assert self.status == 0, self.err
        return json.loads(self.out)


@pytest.fixture(scope='session')
def _cloud():
    cloud = fakes.Cloud()
    yield cloud
    cloud.stop()


@pytest.fixture(scope='session')
def _keyservice(_cloud, tmp_path_factory):
    service = harness.KeyService(_cloud, tmp_path_factory.mktemp('service'))
    _cloud.attestation = service.url
    yield service
    service.stop()


@pytest.fixture
def cloud(_cloud):
    """The fakes, as if just started."""
    _cloud.reset()
    return _cloud


@pytest.fixture
def keyservice(_keyservice, cloud):
    """A key service with an empty database."""
    with _keyservice.service.database.writer() as session:
        for table in reversed(models.Base.metadata.sorted_tables):
            session.execute(sa.delete(table))
    return _keyservice


def environment(cloud, user='alice'):
    """What a user's shell has, for the openstack command."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith('OS_')}
    return kept | {
        'OS_AUTH_TYPE': 'password', 'OS_AUTH_URL': cloud.keystone.url + '/v3',
        'OS_USERNAME': user, 'OS_PASSWORD': fakes.PASSWORD,
        'OS_PROJECT_NAME': 'project', 'OS_USER_DOMAIN_NAME': 'Default',
        'OS_PROJECT_DOMAIN_NAME': 'Default', 'OS_REGION_NAME': 'RegionOne',
        'OS_CLIENT_CONFIG_FILE': os.devnull, 'COLUMNS': '100',
        'PYTHONWARNINGS': 'ignore'}


@pytest.fixture
def openstack(cloud, keyservice, monkeypatch, tmp_path, capsys):
    """Run the real openstack shell in this process."""
    from openstackclient import shell
    from osc_lib import clientmanager

    def run(*argv, user='alice', stdin=b''):
        for name in [name for name in os.environ if name.startswith('OS_')]:
            monkeypatch.delenv(name)
        for name, value in environment(cloud, user).items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(stdin)))
        # sev-attest, in other tests, leaves handlers to closed streams.
        monkeypatch.setattr(logging.getLogger('nova_sev_attest'), 'handlers',
                            [])
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        capsys.readouterr()
        # Clients are kept for a process, which is a user's for one command.
        for kept in vars(clientmanager.ClientManager).values():
            if isinstance(kept, clientmanager.ClientCache):
                kept._handle = None
        try:
            with warnings.catch_warnings():
                status = shell.main([str(word) for word in argv])
        except SystemExit as exc:
            status = exc.code
        finally:
            for handler in set(root.handlers) - set(handlers):
                root.removeHandler(handler)
                handler.close()
            root.setLevel(level)
        out, err = capsys.readouterr()
        assert 'Traceback' not in err, err
        assert fakes.PASSWORD not in out + err
        assert harness.PASSPHRASE.decode() not in out + err
        return Result(status=status, out=out, err=err)

    return run


@pytest.fixture
def command(cloud, keyservice, tmp_path):
    """Run openstack as users do: in a process of its own."""

    def run(*argv, user='alice', stdin=b'', **changes):
        env = environment(cloud, user) | changes
        env['PYTHONPATH'] = os.getcwd()
        done = subprocess.run(
            [sys.executable, '-m', 'openstackclient.shell', *map(str, argv)],
            env=env, cwd=tmp_path, input=stdin, capture_output=True,
            timeout=120)
        return Result(status=done.returncode, out=done.stdout.decode(),
                      err=done.stderr.decode())

    return run


@pytest.fixture
def files(tmp_path):
    """Firmware, kernel and initrd as files, as the harness has them."""
    contents = {'OVMF.fd': platforms.firmware(), 'vmlinuz': b'a kernel',
                'initrd.img': b'an initrd', 'ask_ark.cert':
                platforms.ask_ark()}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path
