#!/usr/bin/env python3
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

"""A compute host of the lab: Debian 13's libvirt and QEMU in a folder.

``build`` unpacks the hypervisor; ``platform`` runs the emulated secure
processor and ``libvirtd`` the daemon that Nova talks to, both in the
foreground inside the folder; ``exec`` runs any command with libvirtd's view;
``status`` shows what the emulated platform saw.

Hosts share the folder and nothing else: all that differs between two of them
is in the arguments. The folder itself is not written to by a running host.
"""

import argparse
import hashlib
import inspect
import json
import os
import pathlib
import shutil
import subprocess
import sys
import uuid

HERE = pathlib.Path(__file__).resolve().parent
# Started by its path, as it is before there is anything else.
sys.path.insert(0, str(HERE.parents[1]))

from devstack.lab import chroot  # noqa: E402
from devstack.lab import debroot  # noqa: E402

EMULATOR = HERE.parents[1] / 'nova_sev_attest' / 'emulator'
PACKAGES = (
    'base-files', 'coreutils', 'dash', 'grep', 'libc-bin', 'mawk', 'procps',
    'sed',
    # The emulator, and the independent validator of measurements.
    'python3-minimal', 'python3-cryptography', 'python3-libvirt',
    'python3-lxml', 'libvirt-clients-qemu',
    # Not the network and nwfilter drivers: they abort libvirtd where there
    # is neither a firewall nor D-Bus.
    'libvirt-daemon', 'libvirt-daemon-driver-interface',
    'libvirt-daemon-driver-nodedev', 'libvirt-daemon-driver-qemu',
    'libvirt-daemon-driver-secret', 'libvirt-daemon-driver-storage',
    'libvirt-clients', 'qemu-system-x86', 'qemu-utils',
)
# Architecture-independent data, of which Debian 13 has no SEV build.
FIRMWARE_PACKAGES = ('ovmf-generic', 'ovmf-amdsev')
FIRMWARE = '/usr/share/ovmf/OVMF.amdsev.fd'
# The number Debian gives this user everywhere.
QEMU_USER = ('libvirt-qemu', 64055)

# Inside the tree. The first folder of libvirtd's PATH has the wrapper.
_WRAPPERS = '/usr/lib/sev-emulator/bin'
_PRELOAD = '/usr/lib/sev-emulator/preload.so'
_PYTHON_PATH = '/usr/lib/sev-emulator/python'
_SOCKET = '/run/sev/platform.sock'
_KVM_NODE = 'kvm:10:232'
# Bytes of a UNIX socket's path that Linux takes, less the longest name
# below the run folder.
_LONGEST_RUN = 107 - len('/libvirt/libvirt-admin-sock')

_QEMU_CONF = f'''\
user = "{QEMU_USER[0]}"
group = "{QEMU_USER[0]}"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
'''
_LIBVIRTD_CONF = '''\
host_uuid = "{host_uuid}"
unix_sock_dir = "/run/libvirt"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_level = 3
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
'''
_WRAPPER = f'''\
#!/bin/sh
# libvirt knows this by the name of QEMU; see the emulator's documentation.
export PYTHONPATH={_PYTHON_PATH} PYTHONDONTWRITEBYTECODE=1
exec /usr/bin/python3 -m nova_sev_attest.emulator qemu \\
    --platform {_SOCKET} --binary /usr/bin/qemu-system-x86_64 -- "$@"
'''


def build(root, cache, say=print):
    """Make the compute root; see :func:`debroot.build`.

    :raises debroot.DebRootError: when it cannot be made.
    """
    recipe = hashlib.sha256('\0'.join((
        inspect.getsource(_finish), _WRAPPER,
        (HERE / 'preload.c').read_text())).encode()).hexdigest()
    return debroot.build(
        root, PACKAGES, cache=cache, forky_packages=FIRMWARE_PACKAGES,
        users=dict([QEMU_USER]), finish=_finish, recipe=recipe, say=say)


def _finish(tree):
    descriptors = tree / 'usr/share/qemu/firmware'
    # Sorted before the generic firmware, it would be given to every UEFI
    # guest; it boots none but those with a measured kernel.
    (descriptors / '60-edk2-x86_64-amdsev.json').rename(
        descriptors / '70-edk2-x86_64-amdsev.json')
    wrapper = tree / _WRAPPERS.lstrip('/') / 'qemu-system-x86_64'
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text(_WRAPPER)
    wrapper.chmod(0o755)
    # Only the emulator is ever put here: it can import nothing else of
    # the package.
    (tree / _PYTHON_PATH.lstrip('/') / 'nova_sev_attest' / 'emulator').mkdir(
        parents=True)
    compiler = shutil.which('gcc') or shutil.which('cc')
    if compiler is None:
        raise debroot.DebRootError(
            'no C compiler found: install gcc and libc6-dev (a small library '
            'has to be compiled that answers for the SEV CPUID leaf)')
    done = subprocess.run(
        [compiler, '-shared', '-fPIC', '-O2', '-o',
         tree / _PRELOAD.lstrip('/'), HERE / 'preload.c'],
        capture_output=True, text=True)
    if done.returncode:
        raise debroot.DebRootError(
            f'preload.c cannot be compiled (are gcc and libc6-dev '
            f'installed?): {done.stderr.strip()}')


def socket_path(run):
    """Where the emulated platform of a host is reached, seen from outside."""
    return pathlib.Path(run) / _SOCKET.removeprefix('/run/')


def libvirt_uri(run):
    """The libvirt URI of a host, seen from outside."""
    return f'qemu+unix:///system?socket={run}/libvirt/libvirt-sock'


def _check_readable():
    loose = [path for path in (EMULATOR, *EMULATOR.glob('*.py'))
             if not path.stat().st_mode & 0o004]
    if loose:
        raise debroot.DebRootError(
            f'{loose[0]} is not readable by the user of QEMU: '
            f'chmod -R a+rX {EMULATOR}')


def _inside(options, binds, command, nodes=(), host_name=None,
            **environment):
    """Become a command inside the root with this host's folders."""
    run = options.run.absolute()
    if len(str(run)) > _LONGEST_RUN:
        raise debroot.DebRootError(
            f'--run {run} is longer than {_LONGEST_RUN} characters: the '
            f'sockets below it could not be reached')
    run.mkdir(parents=True, exist_ok=True)
    _check_readable()
    line = chroot.command_line(
        options.root, command,
        binds=[f'{run}:/run',
               f'{EMULATOR}:{_PYTHON_PATH}/nova_sev_attest/emulator', *binds],
        nodes=nodes, host_name=host_name,
        environment=dict(PYTHONPATH=_PYTHON_PATH,
                         PYTHONDONTWRITEBYTECODE='1', **environment))
    os.execv(line[0], line)


def _libvirt_binds(options):
    state = options.state.absolute()
    # libvirt remembers the platform's certificates with QEMU's capabilities:
    # another platform, another memory.
    try:
        platform = hashlib.sha256((options.run / 'sev' / 'pdh.cert')
                                  .read_bytes()).hexdigest()[:16]
    except FileNotFoundError as error:
        raise debroot.DebRootError(
            f'no emulated platform runs for {options.run}: start "platform" '
            f'first') from error
    folders = {'etc': '/etc/libvirt', 'lib': '/var/lib/libvirt',
               f'cache-{platform}': '/var/cache/libvirt'}
    for name, place in folders.items():
        if not (state / name).exists():
            shutil.copytree(options.root / place.lstrip('/'), state / name,
                            symlinks=True)
    log = options.log.absolute()
    (log / 'qemu').mkdir(parents=True, exist_ok=True)
    return [*(f'{state}/{name}:{place}' for name, place in folders.items()),
            f'{log}:/var/log/libvirt', *options.bind]


def _build(options):
    made = build(options.root.absolute(), options.cache.absolute())
    print(f'{options.root}: {"made" if made else "already there"}')


def _platform(options):
    keys = options.keys.absolute()
    keys.mkdir(parents=True, exist_ok=True)
    _inside(options, [f'{keys}'], [
        '/usr/bin/python3', '-m', 'nova_sev_attest.emulator', 'daemon',
        '--socket', _SOCKET, '--socket-group', QEMU_USER[1], '--keys', keys,
        '--chip', options.chip])


def _libvirtd(options):
    binds = _libvirt_binds(options)
    (options.state / 'etc' / 'qemu.conf').write_text(_QEMU_CONF)
    (options.state / 'etc' / 'libvirtd.conf').write_text(
        _LIBVIRTD_CONF.format(host_uuid=options.host_uuid))
    _inside(options, binds, ['/usr/sbin/libvirtd'],
            nodes=[_KVM_NODE] if options.kvm else [],
            host_name=options.host_name,
            PATH=f'{_WRAPPERS}:/usr/sbin:/usr/bin', LD_PRELOAD=_PRELOAD)


def _exec(options):
    _inside(options, _libvirt_binds(options), options.command)


def status(run):
    """What the emulated platform of a host saw; see the emulator's status.

    :raises OSError: when no platform listens there.
    """
    from nova_sev_attest.emulator import channel
    return channel.status(str(socket_path(run)))


def _status(options):
    print(json.dumps(status(options.run), indent=1))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)

    def command(name, function, *needs):
        sub = commands.add_parser(name)
        sub.set_defaults(function=function)
        for need in needs:
            sub.add_argument(f'--{need}', type=pathlib.Path, required=True)
        return sub

    command('build', _build, 'root', 'cache')
    sub = command('platform', _platform, 'root', 'run', 'keys')
    sub.add_argument('--chip', default='chip0')
    for name, function in (('libvirtd', _libvirtd), ('exec', _exec)):
        sub = command(name, function, 'root', 'run', 'state', 'log')
        sub.add_argument('--bind', action='append', default=[],
                         metavar='PATH[:INSIDE]')
        if name == 'libvirtd':
            sub.add_argument('--host-uuid', type=uuid.UUID, required=True)
            sub.add_argument('--host-name',
                             help="what libvirt calls the host (default: the "
                                  "machine's own name)")
            sub.add_argument(
                '--kvm', action='store_true',
                help="offer domains of type kvm, too, where the machine has "
                     "KVM (SEV guests run on QEMU's CPU emulation anyway)")
        else:
            sub.add_argument('command', nargs='+')
    command('status', _status, 'run')
    options = parser.parse_args(arguments)
    try:
        options.function(options)
    except (chroot.ChrootError, debroot.DebRootError, OSError) as error:
        sys.exit(f'compute_root: {error}')


if __name__ == '__main__':
    main()
