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

"""doc/source/owner/walkthrough.rst, done as it is written.

By a user of its own, who has a folder, the files that the page asks for and a
credential of the cloud; and afterwards a look at who else had the keys.
"""

import base64
import os
import pathlib
import shutil
import stat
import subprocess
import tempfile
import time

import pytest
import sqlalchemy as sa
import yaml

from devstack.lab import credentials
from devstack.lab import demo
from devstack.lab.guest import tree
from nova_sev_attest.client import launches as client_launches
from tests import documented
from tests.functional import ledger
from tests.lab import traces

PAGE = 'doc/source/owner/walkthrough.rst'
_SERVER, _POLICY = 'web-1', 'web'
_NOBODY = 65534
# Each step has commands of a second or two, and waits for a host.
_SECONDS = 120


def blocks():
    """The commands of the page's steps, by name, in order."""
    return documented.steps(PAGE, 'walkthrough')


def steps(tool):
    """The steps in the order in which an owner with a tool takes them.

    :param tool: end of the names of the steps that are done otherwise, or
        None.
    :returns: {name: commands}
    """
    found = blocks()
    return {name: found.get(f'{name}-{tool}', commands)
            for name, commands in found.items()
            if not name.endswith('-libvirt')}


class Machine:
    """The owner's machine: a user, a folder, and what is installed.

    :ivar folder: where the owner works.
    """

    def __init__(self, layout, guest, folder, **environment):
        self.folder = folder / 'work'
        self.folder.mkdir()
        programs = folder / 'bin'
        programs.mkdir()
        _install_libvirts_tool(layout, programs)
        for name, source in {
                'OVMF.fd': demo.firmware_path(layout),
                'vmlinuz': guest.kernel, 'initrd.img': guest.initramfs,
                'disk.raw': guest.disk,
                'ask_ark.cert': layout.emulated_root}.items():
            shutil.copyfile(source, self.folder / name)
        cloud = yaml.safe_load(layout.clouds.read_text())['clouds']['owner']
        for name, text in {
                'cmdline': guest.command_line,
                'passphrase': guest.passphrase.decode(),
                'clouds.yaml': yaml.safe_dump(
                    {'clouds': {'mine': cloud}})}.items():
            (self.folder / name).write_text(text)
        for path in (folder, self.folder, *self.folder.iterdir()):
            os.chown(path, _NOBODY, _NOBODY)
        python = layout.bin('python')
        self._user = _user(python)
        self._environment = {
            'HOME': str(self.folder), 'LANG': 'C.UTF-8', 'OS_CLOUD': 'mine',
            'PATH': f'{programs}:{python.parent}:/usr/bin:/bin',
            **environment}

    def run(self, commands):
        """Run commands of the page; returns what they print."""
        done = subprocess.run(
            [*self._user, 'bash', '-euo', 'pipefail', '-c', commands],
            cwd=self.folder, env=self._environment, timeout=_SECONDS,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, (
            f'{commands}ended with {done.returncode}:\n{done.stdout}'
            f'{done.stderr}')
        return done.stdout

    def secret(self, name):
        """The bytes of a file that nobody else may read."""
        path = self.folder / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_uid == _NOBODY
        return path.read_bytes()


def _user(python):
    """How a command is run as somebody who may do nothing."""
    line = ['setpriv', f'--reuid={_NOBODY}', f'--regid={_NOBODY}',
            '--clear-groups', '--no-new-privs']
    # By env, because setpriv itself still may do what root may.
    if subprocess.run([*line, 'env', python, '-c', ''],
                      stderr=subprocess.DEVNULL).returncode:
        # The environment is below a folder of root's alone.
        line += ['--inh-caps=+dac_read_search',
                 '--ambient-caps=+dac_read_search']
    return line


def _install_libvirts_tool(layout, folder):
    """Put Debian's virt-qemu-sev-validate, as it is, into the PATH."""
    root = layout.compute_root
    words = tree.Tree(root).command(
        'usr/bin/python3', root / 'usr/bin/virt-qemu-sev-validate')
    program = folder / 'virt-qemu-sev-validate'
    program.write_text(
        f'#!/bin/sh\nPYTHONHOME="{root}/usr" PYTHONDONTWRITEBYTECODE=1 exec '
        f'{" ".join(map(str, words))} "$@"\n')
    program.chmod(0o755)


@pytest.fixture
def machine(layout, guest, owner):
    owner.upload_guest('web', guest)
    # Not below pytest's own folder, which only root may enter.
    folder = pathlib.Path(tempfile.mkdtemp(prefix='nova-sev-attest-'))
    yield Machine(layout, guest, folder)
    # Where a step failed, those after it were not done.
    server = owner.cloud.compute.find_server(_SERVER)
    if server is not None:
        for launch in owner.launches(server.id):
            if launch['waiting_for']:
                # Nova deletes no server that is being launched.
                owner.attestation.launches.decide(launch['id'], 'deny')
        owner.delete_server(server.id)
    for policy in owner.attestation.policies.each(name=_POLICY):
        owner.attestation.policies.delete(policy['id'])
    shutil.rmtree(folder)


def _database(layout):
    """All that the key service's database holds, its audit as well."""
    password = credentials.load(layout)['database']
    engine = sa.create_engine(
        f'mysql+pymysql://lab:{password}@127.0.0.1:'
        f'{layout.port("mariadb")}/attestation?charset=utf8mb4')
    try:
        return ledger.stored(engine)
    finally:
        engine.dispose()


def _assert_with_the_owner_alone(layout, machine, guest, since):
    """Nobody but the owner had TEK, TIK and passphrase."""
    measurement = base64.b64decode(
        (machine.folder / 'vm_measurement.b64').read_text())
    secrets = {'the TEK': machine.secret('vm_tek.bin'),
               'the TIK': machine.secret('vm_tik.bin'),
               'the passphrase': guest.passphrase}
    looking = ledger.Ledger()
    for name, secret in secrets.items():
        looking.record(name, secret)
    assert len(looking) == len(secrets)
    database = _database(layout)
    looking.look('the database', database)
    # It would be found: what the host showed is there.
    looking.record('the measurement', measurement)
    with pytest.raises(ledger.Leak, match='holds the measurement'):
        looking.look('the database', database)
    assert traces.Traces(layout, *secrets.values()).secrets(
        since, services=['attestation']) == []


def _assert_as_sevctl_writes_them(folder):
    """The owner's files have the form and sizes of sevctl's."""
    for name, size in (('godh', client_launches.GODH_CERTIFICATE_SIZE),
                       ('session', client_launches.SESSION_SIZE)):
        text = (folder / f'vm_{name}.b64').read_bytes()
        assert len(base64.b64decode(text, validate=True)) == size
    for name in ('tek', 'tik'):
        assert len((folder / f'vm_{name}.bin').read_bytes()) == 16


@pytest.mark.parametrize('tool', [
    pytest.param(None, id='sev-attest'),
    pytest.param('libvirt', id='virt-qemu-sev-validate')])
def test_it_goes_as_written(layout, owner, host, guest, machine, tool):
    since = time.time()
    left = iter(steps(tool).items())

    def go_to(last):
        """Take the steps up to one; returns what that one prints."""
        for name, commands in left:
            printed = machine.run(commands)
            if name == last:
                return printed

    go_to('create')
    server = owner.cloud.compute.find_server(
        _SERVER, ignore_missing=False).id
    go_to('secret')
    launch, = host.launches(server)
    assert not launch['instructions_run']
    assert owner.console(server) == ''

    go_to('release')
    owner.wait(server, 'ACTIVE')
    owner.wait_for_console(server, 'marker-sha256: ')
    status, *console = go_to('look').splitlines()
    assert status == 'ACTIVE'
    assert f'marker-sha256: {guest.marker_sha256}' in console
    launch, = owner.launches(server)
    assert (launch['status'], launch['verifier'], launch['policy_word']) == (
        'running', 'owner', 0x3b)
    _assert_as_sevctl_writes_them(machine.folder)
    _assert_with_the_owner_alone(layout, machine, guest, since)

    go_to('delete')
    assert owner.cloud.compute.find_server(_SERVER) is None
    assert not (machine.folder / 'vm_tek.bin').exists()


def test_the_page_has_its_steps():
    assert list(steps(None)) == [
        'create', 'wait-session', 'platform', 'session', 'wait-secret',
        'evidence', 'measurement', 'secret', 'release', 'look', 'delete']
    changed = {name for name, commands in steps('libvirt').items()
               if commands != blocks()[name]}
    assert changed == {'measurement', 'secret'}
    # Whatever the page shows as commands is one of them.
    text = (documented.CHECKOUT / PAGE).read_text()
    assert text.count('code-block::') == len(blocks())
