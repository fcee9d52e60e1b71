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

"""How QEMU's arguments are changed, with arguments as libvirt gives them."""

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest

from nova_sev_attest.emulator import channel
from nova_sev_attest.emulator import cpus
from nova_sev_attest.emulator import qemu
from tests import vectors

_FIRMWARE = ('virtee-sevctl/tests/data/OVMF.amdsev.fd_trimmed_edk2-ovmf-'
             '20220126gitbb1bba3d77-4.el9')
_MEMORY = 16 << 20
_LINE = 'console=ttyS0 a,b'


class Command:
    """A command line by libvirt 11 for a paused SEV guest with a kernel."""

    def __init__(self, folder, published):
        self.kernel, self.initrd = b'a kernel', b'an initrd'
        self.firmware = vectors.read(_FIRMWARE)
        files = {
            'kernel': self.kernel, 'initrd': self.initrd,
            'firmware': self.firmware,
            'dh': base64.b64encode(published.read('godh.cert')),
            'session': base64.b64encode(published.read('session.bin'))}
        for name, data in files.items():
            (folder / name).write_bytes(data)
        self.sev = {
            'qom-type': 'sev-guest', 'id': 'lsec0', 'cbitpos': 51,
            'reduced-phys-bits': 1, 'policy': published.policy,
            'dh-cert-file': str(folder / 'dh'),
            'session-file': str(folder / 'session'), 'kernel-hashes': True}
        self.memory = {'qom-type': 'memory-backend-ram', 'id': 'pc.ram',
                       'size': _MEMORY}
        self.folder = folder

    def words(self, **changes):
        options = {
            '-name': 'guest=instance-1,debug-threads=on', '-S': None,
            '-machine': 'pc-q35-10.0,usb=off,memory-backend=pc.ram,'
                        'confidential-guest-support=lsec0,acpi=on',
            '-accel': 'kvm', '-cpu': 'host,migratable=on',
            '-bios': str(self.folder / 'firmware'), '-m': 'size=16384k',
            '-overcommit': 'mem-lock=on', '-uuid': 'the-uuid',
            '-kernel': str(self.folder / 'kernel'),
            '-initrd': str(self.folder / 'initrd'), '-append': _LINE,
            **changes}
        words = ['-object', json.dumps(self.memory),
                 '-object', json.dumps(self.sev)]
        for name, value in options.items():
            if value is not False:
                words += [name] if value is None else [name, value]
        return words


@pytest.fixture
def command(tmp_path, published):
    return Command(tmp_path, published)


@pytest.fixture
def launched(command, connect):
    """Launch a guest; its changed arguments and its answers."""
    kept = []

    def launch(**changes):
        arguments = qemu.Arguments(command.words(**changes))
        guest = qemu.SevGuest(arguments, command.sev)
        answers = guest.launch(connect())
        kept.append(guest)
        return arguments, answers

    yield launch
    for guest in kept:
        for descriptor in guest.opened.descriptors:
            os.close(descriptor)


def _content(path):
    match = re.search(r'/proc/self/fd/(\d+)$', path)
    return os.pread(int(match[1]), 1 << 20, 0)


def _objects(arguments):
    return {values['qom-type']: values
            for _, values in arguments.objects()}


def test_sev_is_taken_out(launched):
    arguments, _ = launched()
    assert 'sev-guest' not in _objects(arguments)
    machine = arguments.get('-machine')
    assert machine == 'pc-q35-10.0,usb=off,memory-backend=pc.ram,acpi=on'
    assert arguments.get('-accel') == 'tcg'
    assert arguments.get('-cpu') == 'max,migratable=on'
    assert arguments.get('-overcommit') == 'mem-lock=off'
    assert arguments.has('-S')


def test_memory_becomes_a_file(launched):
    arguments, _ = launched()
    memory = _objects(arguments)['memory-backend-file']
    assert memory['id'] == 'pc.ram' and memory['size'] == _MEMORY
    assert memory['share'] is True
    assert 'memory-backend-ram' not in _objects(arguments)
    descriptor = int(memory['mem-path'].rsplit('/', 1)[1])
    assert os.fstat(descriptor).st_size == _MEMORY


def test_what_was_measured_is_what_runs(launched, command, connect):
    arguments, _ = launched()
    for name in ('firmware', 'kernel', 'initrd'):
        (command.folder / name).write_bytes(b'changed meanwhile')
    assert _content(arguments.get('-bios')) == command.firmware
    files = dict(re.fullmatch(r'name=etc/boot/(\w+),file=(.+)', value)
                 .groups() for option, value in arguments.options
                 if option == '-fw_cfg')
    assert _content(files['kernel']) == command.kernel
    assert _content(files['initrd']) == command.initrd
    assert _content(files['cmdline']) == _LINE.encode() + b'\0'
    with pytest.raises(OSError):
        os.write(int(files['kernel'].rsplit('/', 1)[1]), b'more')
    for option in ('-kernel', '-initrd', '-append'):
        assert not arguments.has(option)


def test_digest_covers_firmware_and_hashes(launched, command, connect):
    launched()
    record, = connect().call('status')['launches']
    table = _table(command.kernel, command.initrd, _LINE.encode() + b'\0')
    assert record['digest'] == hashlib.sha256(
        command.firmware + table).hexdigest()
    assert record['name'] == 'instance-1' and record['uuid'] == 'the-uuid'
    assert record['state'] == 'launch-secret'
    assert not record['instructions_run']


def _table(kernel, initrd, line):
    """The table as the sources of QEMU lay it out, by hand."""
    def entry(guid, data):
        return bytes.fromhex(guid) + b'\x32\0' + hashlib.sha256(data).digest()

    return (bytes.fromhex('06d63894224fc94cb479a793d411fd21') + b'\xa8\0'
            + entry('d82dd09720bd944caa78e7714d36ab2a', line)
            + entry('31f7ba442f3ad74b9af141e29169781d', initrd)
            + entry('3794e74dd2ab7f42b835d5b172d2045b', kernel) + bytes(8))


def test_hash_table_lies_where_the_firmware_looks(launched, command):
    arguments, _ = launched()
    memory = _objects(arguments)['memory-backend-file']
    table = _table(command.kernel, command.initrd, _LINE.encode() + b'\0')
    descriptor = int(memory['mem-path'].rsplit('/', 1)[1])
    assert os.pread(descriptor, len(table), 0x80cc00) == table


def test_kernel_without_initrd_and_line(launched, command, connect):
    arguments, _ = launched(**{'-initrd': False, '-append': False})
    assert sum(option == '-fw_cfg' for option, _ in arguments.options) == 2
    record, = connect().call('status')['launches']
    table = _table(command.kernel, b'', b'\0')
    assert record['digest'] == hashlib.sha256(
        command.firmware + table).hexdigest()


@pytest.mark.parametrize('setting', [False, None, 'off'])
def test_kernel_is_left_alone_without_hashes(launched, command, connect,
                                             setting):
    if setting is None:
        del command.sev['kernel-hashes']
    else:
        command.sev['kernel-hashes'] = setting
    arguments, _ = launched()
    assert arguments.has('-kernel') and not arguments.has('-fw_cfg')
    record, = connect().call('status')['launches']
    assert record['digest'] == hashlib.sha256(command.firmware).hexdigest()


def test_measurement_is_taken_before_the_guest_runs(launched, connect):
    _, answers = launched()
    blob = answers.answer('query-sev-launch-measure', {})['data']
    assert len(base64.b64decode(blob)) == 48


def test_start_without_pause_is_a_run(launched, connect):
    launched(**{'-S': False})
    record, = connect().call('status')['launches']
    assert record['instructions_run']


@pytest.fixture
def encrypted(launched, command, connect):
    """Launch an SEV-ES guest without a session; what was measured of it."""
    def launch(**changes):
        command.sev['policy'] = 0x3f
        for name in ('dh-cert-file', 'session-file'):
            del command.sev[name]
        launched(**changes)
        record, = connect().call('status')['launches']
        return record

    return launch


@pytest.mark.parametrize('smp, vcpus', [
    ('4,sockets=4,cores=1,threads=1', 4), ('cpus=2,maxcpus=8', 2), ('1', 1),
    (False, 1)])
def test_registers_of_every_cpu_are_measured(encrypted, command, smp, vcpus):
    record = encrypted(**{'-smp': smp, '-cpu': 'EPYC-Milan,x2apic=on'})
    pages = [vectors.read(f'virtee-sevctl/tests/data/vmsa{number}.bin')
             for number in (0, 1)]
    # The vectors' firmware starts its processors where this one does.
    assert record['digest'] == hashlib.sha256(
        command.firmware + _table(command.kernel, command.initrd,
                                  _LINE.encode() + b'\0')
        + pages[0] + (vcpus - 1) * pages[1]).hexdigest()
    assert record['vcpus'] == vcpus
    assert record['technology'] == 'amd-sev-es'


def test_host_cpu_is_the_emulated_chips(encrypted, command):
    record = encrypted(**{'-cpu': 'host,migratable=on'})
    page = vectors.read('virtee-sevctl/tests/data/vmsa0.bin')
    assert record['digest'] == hashlib.sha256(
        command.firmware + _table(command.kernel, command.initrd,
                                  _LINE.encode() + b'\0')
        + page).hexdigest()


@pytest.mark.parametrize('changes, text', [
    ({'-cpu': 'Nehalem'}, 'does not know CPU model Nehalem'),
    ({'-smp': 'sockets=2'}, 'needs -smp'), ({'-smp': 'two'}, 'needs -smp'),
    ({'-smp': '0'}, '0 CPUs'), ({'-smp': '4097'}, '4097 CPUs')])
def test_registers_that_are_not_known(encrypted, changes, text):
    with pytest.raises((qemu.UsageError, cpus.UnknownModel), match=text):
        encrypted(**changes)


def test_application_processors_need_a_start(encrypted, command):
    # The last bytes of a firmware tell; without them it tells nothing.
    (command.folder / 'firmware').write_bytes(bytes(4096))
    with pytest.raises(qemu.UsageError, match='one CPU only'):
        encrypted(**{'-smp': '2', '-kernel': False})


def test_firmware_in_flash_is_found(launched, command, connect):
    file = {'driver': 'file', 'filename': str(command.folder / 'firmware'),
            'node-name': 'flash-storage', 'read-only': True}
    raw = {'driver': 'raw', 'node-name': 'flash', 'file': 'flash-storage'}
    command.memory['x-use-canonical-path-for-ramblock-id'] = False
    words = ['-blockdev', json.dumps(file), '-blockdev', json.dumps(raw)]
    arguments = qemu.Arguments(words + command.words(**{
        '-bios': False, '-machine': 'q35,pflash0=flash'}))
    guest = qemu.SevGuest(arguments, command.sev)
    guest.launch(connect())
    record, = connect().call('status')['launches']
    table = _table(command.kernel, command.initrd, _LINE.encode() + b'\0')
    assert record['digest'] == hashlib.sha256(
        command.firmware + table).hexdigest()
    for descriptor in guest.opened.descriptors:
        os.close(descriptor)


def test_firmware_without_hash_area_is_refused(launched, command, connect):
    (command.folder / 'firmware').write_bytes(
        vectors.read('debian-ovmf/OVMF.fd.last4096'))
    with pytest.raises(qemu.firmware.FirmwareError, match='AmdSev'):
        launched()
    record, = connect().call('status')['launches']
    assert record['state'] != 'running'


def test_refused_session_starts_nothing(launched, command):
    command.sev['policy'] = 0x33
    with pytest.raises(channel.PlatformError, match='another policy'):
        launched()


@pytest.mark.parametrize('changes, text', [
    ({'-bios': False}, 'needs firmware'),
    ({'-bios': '/does/not/exist'}, 'firmware /does/not/exist'),
    ({'-kernel': '/does/not/exist'}, 'kernel /does/not/exist'),
    ({'-machine': 'q35,pflash0=gone', '-bios': False}, 'needs firmware'),
])
def test_guests_that_cannot_be_served_are_refused(launched, changes, text):
    with pytest.raises(qemu.UsageError, match=text):
        launched(**changes)


def test_memory_must_be_an_object(launched, command):
    command.memory['qom-type'] = 'memory-backend-epc'
    with pytest.raises(qemu.UsageError, match='memory backend'):
        launched()


def test_restored_guests_are_refused(command):
    with pytest.raises(qemu.UsageError, match='restored'):
        qemu.SevGuest(qemu.Arguments(command.words(
            **{'-incoming': 'defer'})), command.sev)


@pytest.mark.parametrize('text, read', [
    ('a,b=1,c', {'type': 'a', 'b': '1', 'c': 'on'}),
    ('type=a,x=b,,c', {'type': 'a', 'x': 'b,c'}),
    ('{"type": "a", "n": 1}', {'type': 'a', 'n': 1}),
])
def test_reads_properties(text, read):
    assert qemu.properties(text, 'type') == read


def test_sizes():
    for text, size in (('16M', 16 << 20), ('1g', 1 << 30), ('4096', 4096),
                       (4096, 4096), ('1k', 1024), ('7b', 7)):
        assert qemu._number(text) == size
    with pytest.raises(qemu.UsageError):
        qemu._number('many')


def test_arguments_survive_reading():
    words = ['-S', '-append', '-v --x', '-device', '{"driver": "x"}',
             '-nodefaults', '-msg', 'timestamp=on']
    assert qemu.Arguments(words).words() == words


class Program:
    """Runs the wrapper as libvirt does, with a program in QEMU's place."""

    def __init__(self, folder, platform):
        self.output = folder / 'output'
        self.binary = folder / 'qemu'
        self.binary.write_text(
            f'#!{sys.executable}\n'
            'import json, os, sys\n'
            'told = {"pid": os.getpid(), "words": sys.argv[1:],\n'
            '        "environment": dict(os.environ)}\n'
            f'fresh = {str(self.output)!r} + ".new"\n'
            'with open(fresh, "w") as out:\n'
            '    json.dump(told, out)\n'
            f'os.rename(fresh, {str(self.output)!r})\n'
            'if os.environ.get("LINGER"):\n'
            '    sys.stdin.read()\n')
        self.binary.chmod(0o755)
        self._platform = platform

    def run(self, words, keep=(), linger=False):
        line = [sys.executable, '-m', 'nova_sev_attest.emulator', 'qemu',
                '--platform', self._platform, '--binary', str(self.binary),
                '--', *words]
        environment = dict(os.environ, LD_PRELOAD='',
                           PYTHONPATH=os.getcwd())
        if linger:
            environment['LINGER'] = '1'
        return subprocess.Popen(line, pass_fds=keep, env=environment,
                                stdin=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def told(self):
        return json.loads(self.output.read_text())


@pytest.fixture
def program(tmp_path, server):
    return Program(tmp_path, server.server_address)


def test_other_guests_are_left_as_they_are(program):
    words = ['-machine', 'q35', '-accel', 'kvm', '-cpu', 'host']
    process = program.run(words)
    assert process.communicate()[1] == ''
    told = program.told()
    assert told['words'] == words and told['pid'] == process.pid
    assert not {'LD_PRELOAD', 'PYTHONPATH'} & set(told['environment'])


def test_refusal_is_told_and_nothing_started(program, command):
    command.sev['policy'] = 0x33
    with socket.socket(socket.AF_UNIX) as listener:
        process = program.run([*command.words(), *_monitor(listener)],
                              keep=[listener.fileno()])
        error = process.communicate(timeout=20)[1]
    assert process.returncode == 1
    assert error.startswith('qemu-system-x86_64: SEV: BAD_MEASUREMENT')
    assert 'Traceback' not in error
    assert not program.output.exists()


def _monitor(listener):
    return ['-chardev', f'socket,id=charmonitor,fd={listener.fileno()},'
                        'server=on,wait=off',
            '-mon', 'chardev=charmonitor,id=monitor,mode=control']


def test_becomes_qemu_and_ends_with_it(program, command, connect, tmp_path):
    path = str(tmp_path / 'monitor')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        process = program.run([*command.words(), *_monitor(listener)],
                              keep=[listener.fileno()], linger=True)
    _wait(program.output.exists)
    told = program.told()
    assert told['pid'] == process.pid
    chardev = next(word for word in told['words'] if 'charmonitor' in word)
    assert chardev.endswith('server=on,wait=off')
    record, = connect().call('status')['launches']
    assert record['state'] == 'launch-secret'
    # However QEMU ends, its launch and its proxy end with it.
    process.kill()
    process.communicate()
    _wait(lambda: connect().call('status')['launches'][0]['state']
          == 'ended')
    with pytest.raises(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_probe_is_answered(program, tmp_path):
    path = str(tmp_path / 'qmp')
    process = program.run(['-machine', 'none,accel=kvm:tcg', '-qmp',
                           f'unix:{path},server=on,wait=off'])
    process.communicate(timeout=20)
    words = program.told()['words']
    assert words[:2] == ['-machine', 'none,accel=kvm:tcg']
    assert '-qmp' not in words and 'chardev=sevprobe,mode=control' in words
    assert os.path.exists(path)


def test_without_a_platform_probes_fail(program, tmp_path, server):
    program._platform = str(tmp_path / 'nothing')
    process = program.run(['-machine', 'none', '-qmp',
                           f'unix:{tmp_path}/q,server=on,wait=off'])
    assert 'daemon running' in process.communicate(timeout=20)[1]
    assert process.returncode == 1


def _wait(function):
    deadline = time.monotonic() + 20
    while not function():
        assert time.monotonic() < deadline
        time.sleep(0.02)
