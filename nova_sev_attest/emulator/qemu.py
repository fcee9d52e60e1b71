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

"""The program that libvirt starts in the place of QEMU.

It becomes QEMU, with the same process id, after it did for an SEV guest what
QEMU does on a machine with SEV: start the launch, measure the firmware, the
hashes of the kernel and, for SEV-ES, the vCPUs' registers, and take the
measurement. What is measured is copied first and QEMU runs from the copies.
QEMU itself is told nothing of SEV: the object is taken out of its arguments,
guest memory becomes a memory file that the secure processor can write to, and
a proxy stands before its monitor.

QEMU without SEV would patch a kernel's header, which its hash then does not
match; so a measured kernel is handed over by firmware configuration files.
"""

import base64
import contextlib
import dataclasses
import fcntl
import json
import os
import re
import socket
import sys
import tempfile

from nova_sev_attest.emulator import channel
from nova_sev_attest.emulator import cpus
from nova_sev_attest.emulator import firmware
from nova_sev_attest.emulator import monitor
from nova_sev_attest.emulator import vmsa

# Of the options looked at, those with a value, which may begin with a dash.
_WITH_VALUE = frozenset((
    '-accel', '-append', '-bios', '-blockdev', '-chardev', '-cpu', '-initrd',
    '-incoming', '-kernel', '-m', '-machine', '-mon', '-name', '-object',
    '-overcommit', '-qmp', '-smp', '-uuid'))
_MEMORY_TYPES = ('memory-backend-ram', 'memory-backend-memfd',
                 'memory-backend-file')
# What a memory backend keeps when it becomes a memory file.
_MEMORY_KEPT = ('id', 'size', 'x-use-canonical-path-for-ramblock-id')
_ENCRYPTED_STATE = 1 << 2
# Of QEMU's machine q35.
_MOST_VCPUS = 4096
_LARGEST_FILE = 512 * 1024 * 1024
_SEALS = (fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
          | fcntl.F_SEAL_WRITE)
_OURS = ('LD_PRELOAD', 'PYTHONPATH', 'PYTHONDONTWRITEBYTECODE')


class UsageError(Exception):
    """Arguments of QEMU that the emulated platform cannot serve."""


class Arguments:
    """QEMU's arguments as a list of options and values."""

    def __init__(self, words):
        self.options = []
        words = list(words)
        while words:
            option = words.pop(0)
            if option.startswith('--'):
                option = option[1:]
            value = None
            if words and (option in _WITH_VALUE
                          or not words[0].startswith('-')):
                value = words.pop(0)
            self.options.append([option, value])

    def words(self):
        """The arguments as QEMU takes them."""
        return [word for pair in self.options for word in pair
                if word is not None]

    def has(self, option):
        """Whether the option is given."""
        return any(name == option for name, _ in self.options)

    def get(self, option):
        """The option's last value, or None."""
        values = [value for name, value in self.options if name == option]
        return values[-1] if values else None

    def remove(self, *options):
        """Take options out."""
        self.options = [pair for pair in self.options
                        if pair[0] not in options]

    def add(self, option, value):
        """Add an option at the end."""
        self.options.append([option, value])

    def objects(self):
        """Pairs of (option entry, properties) of all objects."""
        return [(pair, properties(pair[1], 'qom-type'))
                for pair in self.options if pair[0] == '-object']


def properties(text, implied):
    """Read an option's properties, written as JSON or ``key=value,...``.

    :param implied: the key of a first word without one.
    """
    if text.startswith('{'):
        return json.loads(text)
    found = {}
    # A comma in a value is doubled.
    for index, part in enumerate(re.split(r'(?<!,),(?!,)', text)):
        key, separator, value = part.replace(',,', ',').partition('=')
        if not separator:
            key, value = (implied, key) if index == 0 else (key, 'on')
        found[key] = value
    return found


def _text(values, first=None):
    """Write properties as ``key=value,...``."""
    pairs = [f'{key}={value}'.replace(',', ',,') if key != first
             else str(value).replace(',', ',,')
             for key, value in values.items()]
    return ','.join(pairs)


def _is_on(value):
    return value in (True, 'on', 'true', 'yes')


def _number(value):
    """A size in bytes; in text a suffix may name the unit."""
    match = re.fullmatch(r'(\d+)([bkmgt]?)', str(value).lower())
    if match is None:
        raise UsageError(f'{value!r} is no size of memory')
    return int(match[1]) << (10 * ' kmgt'.index(match[2].replace('b', ' ')
                                                or ' '))


@dataclasses.dataclass
class _Opened:
    """Files that QEMU inherits, as paths it can open."""

    descriptors: list = dataclasses.field(default_factory=list)

    def path(self, descriptor):
        self.descriptors.append(descriptor)
        return f'/proc/self/fd/{descriptor}'


def _copy(name, data):
    """An unchangeable memory file with data."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, 'wb', closefd=False) as out:
        out.write(data)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


def _read(path, what):
    try:
        with open(path, 'rb') as source:
            data = source.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f'{what} {path}: {error.strerror}') from error
    if len(data) > _LARGEST_FILE:
        raise UsageError(f'{what} {path} is larger than {_LARGEST_FILE} '
                         f'bytes')
    return data


def _read_base64(path, what):
    try:
        return base64.b64decode(_read(path, what), validate=False)
    except ValueError as error:
        raise UsageError(f'{what} {path} is no base64') from error


class SevGuest:
    """An SEV guest as QEMU's arguments describe it.

    :param arguments: :class:`Arguments`; they are changed.
    :param options: the properties of its ``sev-guest`` object.
    :raises UsageError: the platform cannot serve such a guest.
    """

    def __init__(self, arguments, options):
        self._arguments = arguments
        self._options = options
        self.opened = _Opened()
        if arguments.has('-incoming'):
            raise UsageError('an SEV guest cannot be restored or migrated')

    def launch(self, platform):
        """Launch the guest on the platform, up to its measurement.

        :param platform: a fresh :class:`channel.Channel`.
        :returns: a :class:`monitor.Guest`.
        :raises channel.PlatformError: the platform refused.
        """
        image = self._take_firmware()
        found = firmware.parse(image)
        memory = self._take_memory()
        kernel = self._take_kernel()
        policy = _number(self._options['policy'])
        platform.call(
            'start', [memory], policy=policy,
            dh_cert=self._session_part('dh-cert-file'),
            session=self._session_part('session-file'),
            name=properties(self._arguments.get('-name') or '',
                            'guest').get('guest', ''),
            uuid=self._arguments.get('-uuid') or '')
        measured = _copy('firmware', image)
        platform.call('update', [measured])
        if kernel is not None:
            table = firmware.hash_table(found.hashes, *kernel)
            platform.call('update', address=found.hashes.base,
                          data=base64.b64encode(table).decode())
        if policy & _ENCRYPTED_STATE:
            for page in self._save_areas(found.reset):
                platform.call('update_vmsa',
                              page=base64.b64encode(page).decode())
        measurement = platform.call('measure')['measurement']
        self._hide_sev()
        if not self._arguments.has('-S'):
            platform.call('finish')
        return monitor.Guest(platform, measurement, found.secret)

    def _session_part(self, name):
        path = self._options.get(name)
        if path is None:
            return None
        return base64.b64encode(_read_base64(path, name)).decode()

    def _take_firmware(self):
        path = self._arguments.get('-bios')
        if path is not None:
            image = _read(path, 'firmware')
            copied = self.opened.path(_copy('firmware', image))
            for pair in self._arguments.options:
                if pair[0] == '-bios':
                    pair[1] = copied
            return image
        return _read(self._flash_path(), 'firmware')

    def _flash_path(self):
        nodes = {}
        for name, value in self._arguments.options:
            if name == '-blockdev':
                node = properties(value, 'driver')
                nodes[node.get('node-name')] = node
        machine = properties(self._arguments.get('-machine'), 'type')
        node = nodes.get(machine.get('pflash0'))
        # A format's node names the node with the file.
        while node is not None and 'filename' not in node:
            node = nodes.pop(node.get('file'), None)
        if node is None:
            raise UsageError('an SEV guest needs firmware: -bios, or a '
                             'machine with pflash0')
        return node['filename']

    def _take_memory(self):
        """Make the guest's memory a file; the first part, with NUMA."""
        for pair, values in self._arguments.objects():
            if values['qom-type'] not in _MEMORY_TYPES:
                continue
            memory = os.memfd_create('guest-memory', os.MFD_CLOEXEC)
            size = _number(values['size'])
            os.ftruncate(memory, size)
            kept = {key: values[key] for key in _MEMORY_KEPT
                    if key in values}
            pair[1] = json.dumps({
                **kept, 'qom-type': 'memory-backend-file', 'size': size,
                'mem-path': self.opened.path(memory), 'share': True})
            return memory
        raise UsageError('an SEV guest needs a memory backend object')

    def _take_kernel(self):
        """Kernel, initrd and command line, when they are to be hashed."""
        path = self._arguments.get('-kernel')
        if path is None or not _is_on(self._options.get('kernel-hashes')):
            return None
        initrd_path = self._arguments.get('-initrd')
        kernel = _read(path, 'kernel')
        initrd = _read(initrd_path, 'initrd') if initrd_path else b''
        command_line = os.fsencode(
            self._arguments.get('-append') or '') + b'\0'
        self._arguments.remove('-kernel', '-initrd', '-append')
        for name, data in (('kernel', kernel), ('initrd', initrd),
                           ('cmdline', command_line)):
            if data:
                file = self.opened.path(_copy(name, data))
                self._arguments.add('-fw_cfg',
                                    f'name=etc/boot/{name},file={file}')
        return kernel, initrd, command_line

    def _save_areas(self, reset):
        """The initial registers of each vCPU, the boot processor's first."""
        # Those that are plugged in later are not measured.
        told = properties(self._arguments.get('-smp') or '1', 'cpus')
        try:
            vcpus = int(told['cpus'])
        except (KeyError, ValueError) as error:
            raise UsageError('an SEV-ES guest needs -smp with a number of '
                             'CPUs') from error
        if not 1 <= vcpus <= _MOST_VCPUS:
            raise UsageError(f'{vcpus} CPUs, expected 1 to {_MOST_VCPUS}')
        if vcpus > 1 and not reset:
            raise UsageError('the firmware does not say where application '
                             'processors start: it can run one CPU only')
        features = properties(self._arguments.get('-cpu') or 'qemu64',
                              'cpu')
        signature = cpus.signature(features['cpu'], features)
        yield vmsa.save_area(vmsa.RESET_VECTOR, signature)
        for _ in range(vcpus - 1):
            yield vmsa.save_area(reset, signature)

    def _hide_sev(self):
        """Take out what QEMU without SEV and KVM would refuse."""
        self._arguments.options = [
            pair for pair in self._arguments.options
            if pair[0] != '-object'
            or properties(pair[1], 'qom-type')['qom-type'] != 'sev-guest']
        for pair in self._arguments.options:
            if pair[0] == '-machine':
                machine = properties(pair[1], 'type')
                machine.pop('confidential-guest-support', None)
                machine.pop('memory-encryption', None)
                if 'accel' in machine:
                    machine['accel'] = 'tcg'
                pair[1] = _text(machine, 'type')
            elif pair[0] == '-accel':
                pair[1] = 'tcg'
            elif pair[0] == '-cpu':
                pair[1] = re.sub(r'^host\b', 'max', pair[1])
            elif pair[0] == '-overcommit':
                # Locking may be forbidden here, and protects nothing.
                pair[1] = pair[1].replace('mem-lock=on', 'mem-lock=off')
        self._arguments.remove('-enable-kvm')


def _private_monitor():
    """A listening socket without a name, and how to connect to it."""
    folder = tempfile.mkdtemp(prefix='sev-')
    path = os.path.join(folder, 'qmp')
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        listener.listen(1)
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.rmdir(folder)

    def connect():
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f'/proc/self/fd/{handle}')
        return connection

    return listener, handle, connect


def _monitor_of_guest(arguments):
    """Swap the guest's control monitor; the socket libvirt connects to."""
    for _, value in (pair for pair in arguments.options
                     if pair[0] == '-mon'):
        mon = properties(value, 'chardev')
        if mon.get('mode') != 'control':
            continue
        for pair in arguments.options:
            if pair[0] != '-chardev':
                continue
            chardev = properties(pair[1], 'backend')
            if chardev.get('id') != mon['chardev']:
                continue
            if chardev.get('backend') != 'socket' or 'fd' not in chardev:
                raise UsageError('the monitor of an SEV guest must be a '
                                 'listening socket given by its descriptor')
            listener = socket.socket(fileno=int(chardev['fd']))
            return listener, pair, chardev
    raise UsageError('an SEV guest needs a control monitor')


def _become(binary, arguments, inherited):
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)
    environment = {name: value for name, value in os.environ.items()
                   if name not in _OURS}
    os.execve(binary, [binary, *arguments.words()], environment)


def _leave_proxy(listener, answers, private, kept=()):
    """Fork the proxy; returns, in QEMU's process, what QEMU must inherit."""
    qemu_listener, handle, connect = private
    lifeline, held_by_qemu = os.pipe()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os.close(lifeline)
        listener.close()
        return [held_by_qemu, qemu_listener.fileno()]
    # Twice, so that QEMU has no child it does not know.
    if os.fork():
        os._exit(0)
    status = 1
    try:
        os.setsid()
        os.chdir('/')
        # Not QEMU's listener and end of the pipe, which live as QEMU does,
        # nor libvirt's pipes, whose end it waits for.
        mine = {listener.fileno(), handle, lifeline, *kept}
        for descriptor in map(int, os.listdir('/proc/self/fd')):
            if descriptor not in mine:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        monitor.Proxy(listener, connect, answers, lifeline).run()
        status = 0
    finally:
        os._exit(status)


def _run_probe(arguments, platform_path, binary):
    """libvirt asks what QEMU can do."""
    with contextlib.closing(channel.Channel(platform_path)) as platform:
        answers = monitor.Probe(platform.call('capabilities'))
    private = _private_monitor()
    for pair in arguments.options:
        if pair[0] == '-qmp':
            path = re.fullmatch(r'unix:([^,]+),server=on,wait=off', pair[1])
            if path is None:
                raise UsageError(f'-qmp {pair[1]}: not understood')
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path[1])
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path[1])
            listener.listen(1)
            pair[:] = ['-chardev', f'socket,id=sevprobe,server=on,wait=off,'
                                   f'fd={private[0].fileno()}']
    arguments.add('-mon', 'chardev=sevprobe,mode=control')
    _become(binary, arguments, _leave_proxy(listener, answers, private))


def _run_guest(arguments, options, platform_path, binary):
    """libvirt starts an SEV guest."""
    guest = SevGuest(arguments, options)
    platform = channel.Channel(platform_path)
    listener, pair, chardev = _monitor_of_guest(arguments)
    answers = guest.launch(platform)
    private = _private_monitor()
    chardev['fd'] = private[0].fileno()
    pair[1] = _text(chardev, 'backend')
    inherited = _leave_proxy(listener, answers, private,
                             kept=[2, platform.fileno()])
    platform.close()
    _become(binary, arguments, [*inherited, *guest.opened.descriptors])


def run(words, platform_path, binary):
    """Become QEMU with the arguments given; does not return.

    :param words: arguments without the program's name.
    :param platform_path: socket of the platform's daemon.
    :param binary: path of the real QEMU.
    """
    arguments = Arguments(words)
    try:
        sev = [values for _, values in arguments.objects()
               if values.get('qom-type') == 'sev-guest']
        if sev:
            _run_guest(arguments, sev[0], platform_path, binary)
        elif arguments.has('-qmp') and re.match(
                r'none\b', arguments.get('-machine') or ''):
            _run_probe(arguments, platform_path, binary)
        else:
            _become(binary, arguments, [])
    except (channel.PlatformError, cpus.UnknownModel,
            firmware.FirmwareError, UsageError, OSError) as error:
        # Said while the monitor's socket is still open: once it closes,
        # libvirt reads the log.
        print(f'qemu-system-x86_64: SEV: {error}', file=sys.stderr,
              flush=True)
        sys.exit(1)
