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

"""The installed command, as a guest owner runs it."""

import base64
import hashlib
import json
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import secret
from tests.functional.trust import fakes
from tests.unit.launch import platforms
from tests import vectors

SCRIPT = pathlib.Path(sys.executable).with_name('sev-attest')


@pytest.fixture(scope='module', autouse=True)
def installed():
    if not SCRIPT.is_file():
        reason = f'{SCRIPT} is not there; install the package'
        if os.environ.get('CI'):
            pytest.fail(reason)
        pytest.skip(reason)


def run(*argv, status=0, stdin=b'', cwd='/'):
    found = subprocess.run([SCRIPT, *map(str, argv)], input=stdin, cwd=cwd,
                           capture_output=True, timeout=60)
    assert found.returncode == status, (found.stdout, found.stderr)
    if status:
        assert found.stderr.count(b'\n') == 1, found.stderr
        assert found.stderr.startswith(b'sev-attest: ')
    else:
        assert found.stderr == b''
    return found.stdout.decode()


def test_help_loads_nothing_heavy():
    """What makes --help slow stays unloaded; benchmarks time it."""
    found = subprocess.run(
        [sys.executable, '-c',
         'import sys\n'
         'from nova_sev_attest.cmd.sev_attest import app\n'
         'try:\n'
         '    app.main(["--help"])\n'
         'finally:\n'
         '    print(*sys.modules, file=sys.stderr)'],
        capture_output=True, text=True, timeout=60)
    assert 'platform verify' in found.stdout
    loaded = set(found.stderr.split())
    assert 'cliff.app' in loaded
    assert not loaded & {'cryptography', 'requests', 'oslo_config',
                         'keystoneauth1', 'sqlalchemy'}


def test_digest_alone():
    case, = (case for case in vectors.expected()['launch_digest']['cases']
             if case['mode'] == 'sev-es')
    assert run('digest', 'compute', '--mode', 'sev-es', '--firmware',
               vectors.directory() /
               'virtee-sev/tests/measurement/ovmf_AmdSev_suffix.bin',
               '--kernel', '/dev/null', '--initrd', '/dev/null', '--append',
               '', '--vcpus', 4, '--cpu-model', 'EPYC-v4', '-f', 'value',
               '-c', 'digest') == case['ld'] + '\n'


def test_naples():
    folder = vectors.directory() / 'virtee-sev'
    files = [folder / f'tests/naples/{name}.cert'
             for name in ('pdh', 'pek', 'oca', 'cek')]
    roots = [folder / f'src/certs/sev/builtin/naples/{name}.cert'
             for name in ('ask', 'ark')]
    found = json.loads(run('platform', 'verify', *files, *roots,
                           '-f', 'json'))
    assert found['platform_root'] == 'amd-naples'
    run('platform', 'verify', *files, status=1)
    run('platform', 'verify', *files[:3], *roots, status=2)


def test_exit_statuses(tmp_path):
    good, stock, bad = (tmp_path / name for name in ('good', 'stock', 'bad'))
    good.write_bytes(platforms.firmware())
    stock.write_bytes(platforms.firmware(secret=(0, 0)))
    bad.write_bytes(b'x')
    run('firmware', 'inspect', good)
    found = subprocess.run([SCRIPT, 'firmware', 'inspect', stock],
                           capture_output=True, timeout=60)
    assert found.returncode == 1
    assert b'ovmf-amdsev' in found.stdout
    assert run('firmware', 'inspect', bad, status=2) == ''
    assert run('firmware', status=2) == ''


def test_one_launch_from_beginning_to_end(tmp_path):
    platform = platforms.platform()
    for name, data in (
            ('chain', platform.pdh + platform.cert_chain),
            ('anchor', platforms.ask_ark()), ('OVMF.fd',
                                              platforms.firmware()),
            ('vmlinuz', b'kernel'), ('old', b'old kernel')):
        (tmp_path / name).write_bytes(data)
    session = ['session', 'create', 'chain', '--name', 'web']

    run(*session, status=1, cwd=tmp_path)
    assert not list(tmp_path.glob('web_*'))

    run(*session, '--anchor', 'lab=anchor', cwd=tmp_path)
    for name in ('tek', 'tik'):
        mode = (tmp_path / f'web_{name}.bin').stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
    guest = platform.launch(*(
        base64.b64decode((tmp_path / f'web_{name}.b64').read_bytes())
        for name in ('godh', 'session')), 0x3b)

    def launch(kernel):
        return guest.measure(
            platforms.firmware(), kernel_hashes.KernelHashes.from_bytes(
                kernel, None, 'quiet').table())

    def evidence(measurement):
        return ['--tik', 'web_tik.bin', '--session', 'web_session.b64',
                '--measurement', base64.b64encode(measurement).decode(),
                '--api', '1.51', '--build', '3', '--policy', '0x3b',
                '--firmware', 'OVMF.fd', '--kernel', 'vmlinuz', '--append',
                'quiet']

    measurement = launch(b'kernel')
    run('measurement', 'verify', *evidence(measurement), cwd=tmp_path)
    found = json.loads(run(
        'secret', 'pack', *evidence(measurement), '--tek', 'web_tek.bin',
        '--secret', f'{secret.LUKS_PASSPHRASE_GUID}:-', '-f', 'json',
        cwd=tmp_path, stdin=b'open sesame'))
    table = guest.inject(base64.b64decode(found['secret_header']),
                         base64.b64decode(found['secret']), measurement[:32])
    assert platforms.read_secret_table(table)[0][1] == b'open sesame'

    wrong = evidence(launch(b'old kernel'))
    assert run('secret', 'pack', *wrong, '--tek', 'web_tek.bin', '--secret',
               f'{secret.LUKS_PASSPHRASE_GUID}:vmlinuz', '--header', 'header',
               '--payload', 'payload', status=1, cwd=tmp_path) == ''
    assert not (tmp_path / 'header').exists()
    assert not (tmp_path / 'payload').exists()
    found = subprocess.run(
        [SCRIPT, 'launch', 'explain', *wrong, '--known-kernel', 'old', '-f',
         'json'], cwd=tmp_path, capture_output=True, timeout=60)
    assert found.returncode == 1
    explained = json.loads(found.stdout)
    assert explained['category'] == 'kernel_not_allowed'
    assert explained['explanation'].startswith(
        f'the kernel is old (SHA-256 '
        f'{hashlib.sha256(b"old kernel").hexdigest()}) but the policy allows '
        f'vmlinuz ')


@pytest.fixture
def amd():
    server = fakes.AmdServer()
    yield server
    server.stop()


def test_network_when_asked_for(tmp_path, amd):
    platform = platforms.platform()
    chip = bytes(range(64))
    amd.add(chip, platform.cek)
    unsigned = platform.cek[:0x414] + 2 * platforms.EMPTY_SLOT
    (tmp_path / 'host').write_bytes(
        platform.pdh + platform.pek + platform.oca + unsigned)
    (tmp_path / 'anchor').write_bytes(platforms.ask_ark())
    arguments = ['platform', 'verify', 'host', '--anchor', 'lab=anchor',
                 '--chip-id', chip.hex(), '--chip-certificates', 'chips',
                 '--key-server', amd.url]
    run(*arguments, status=1, cwd=tmp_path)
    assert amd.requests == []
    for _ in range(2):
        run(*arguments, '--fetch-cek', cwd=tmp_path)
    assert amd.requests == [f'/cek/id/{chip.hex()}']
    run(*arguments, cwd=tmp_path)
    amd.files.clear()
    arguments[arguments.index(chip.hex())] = chip[::-1].hex()
    run(*arguments, '--fetch-cek', status=1, cwd=tmp_path)


def test_no_network(tmp_path):
    # A socket would raise.
    code = (
        'import socket, sys\n'
        'def refuse(*args, **kwargs):\n'
        '    raise RuntimeError("the network was used")\n'
        'socket.socket.connect = refuse\n'
        'socket.getaddrinfo = refuse\n'
        'from nova_sev_attest.cmd.sev_attest import app\n'
        'sys.exit(app.main())')
    platform = platforms.platform()
    (tmp_path / 'chain').write_bytes(platform.pdh + platform.cert_chain)
    (tmp_path / 'anchor').write_bytes(platforms.ask_ark())
    for argv, status in ((['--anchor', 'lab=anchor'], 0), ([], 1)):
        found = subprocess.run(
            [sys.executable, '-c', code, 'platform', 'verify', 'chain',
             *argv], cwd=tmp_path, capture_output=True, timeout=60, env={
                 **os.environ, 'PYTHONPATH': os.pathsep.join(
                     map(os.path.abspath, filter(None, sys.path)))})
        assert found.returncode == status, found.stderr
        assert b'network was used' not in found.stderr
