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

"""Run a command inside an unpacked tree, with mounts that only it sees.

The command replaces this program, so that a supervisor that started this
has the command's own pid. The mounts live in a mount namespace of their
own and vanish with the command's last process.
"""

import argparse
import os
import pathlib
import shutil
import socket
import subprocess
import sys

_DEVICES = ('null', 'zero', 'full', 'random', 'urandom', 'tty')
_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
_INSIDE = '--in-own-namespace'


class ChrootError(Exception):
    """The tree cannot be entered; the message says why."""


def command_line(root, command, *, binds=(), nodes=(), environment=None,
                 host_name=None):
    """The argument vector that runs a command in a tree.

    :param root: the tree, as made by ``debroot.build``.
    :param binds: folders or files that appear inside, each a path (the same
        inside) or ``source:destination``.
    :param nodes: character devices to make inside, ``name:major:minor``.
    :param environment: variables of the command beside PATH and LC_ALL;
        nothing of the caller's environment goes inside.
    :param host_name: the machine's name as it is seen inside.
    """
    line = [sys.executable, str(pathlib.Path(__file__).resolve()), str(root)]
    for bind in binds:
        line += ['--bind', str(bind)]
    for node in nodes:
        line += ['--node', node]
    for name, value in (environment or {}).items():
        line += ['--env', f'{name}={value}']
    if host_name is not None:
        line += ['--host-name', host_name]
    return [*line, '--', *map(str, command)]


def _mount(*arguments):
    done = subprocess.run(['mount', *map(str, arguments)],
                          capture_output=True, text=True)
    if done.returncode:
        raise ChrootError(f'mount {" ".join(map(str, arguments))}: '
                          f'{done.stderr.strip()}')


def _bind(source, target):
    if not source.exists():
        raise ChrootError(f'{source} does not exist and cannot be bound '
                          f'into the tree')
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount('--rbind', source, target)


def _make_dev(dev, nodes):
    """A /dev with no device of the machine but the harmless ones."""
    _mount('-t', 'tmpfs', '-o', 'mode=755,size=64k', 'dev', dev)
    for name in _DEVICES:
        _bind(pathlib.Path('/dev') / name, dev / name)
    for node in nodes:
        name, major, minor = node.split(':')
        os.mknod(dev / name, 0o020666, os.makedev(int(major), int(minor)))
        (dev / name).chmod(0o666)
    (dev / 'shm').mkdir()
    _mount('-t', 'tmpfs', '-o', 'mode=1777', 'shm', dev / 'shm')
    # The machine's pseudo-terminals: a console is named by the path of one,
    # which has to mean the same outside. The kernel looks for "pts" beside
    # the node that was opened, so this one cannot be bound.
    _bind(pathlib.Path('/dev/pts'), dev / 'pts')
    os.mknod(dev / 'ptmx', 0o020666, os.makedev(5, 2))
    (dev / 'ptmx').chmod(0o666)
    (dev / 'fd').symlink_to('/proc/self/fd')


def _enter(options):
    root = options.root.resolve()
    if options.host_name is not None:
        socket.sethostname(options.host_name)
    for name in ('proc', 'sys'):
        _mount('--rbind', f'/{name}', root / name)
    _make_dev(root / 'dev', options.node)
    for bind in options.bind:
        source, _, target = bind.partition(':')
        _bind(pathlib.Path(source),
              root / (target or source).lstrip('/'))
    environment = {'PATH': _PATH, 'LC_ALL': 'C.UTF-8', 'HOME': '/root'}
    environment.update(pair.split('=', 1) for pair in options.env)
    os.chroot(root)
    os.chdir('/')
    os.execvpe(options.command[0], options.command, environment)


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] != [_INSIDE]:
        if shutil.which('unshare') is None:
            sys.exit('chroot: unshare (package util-linux) not found')
        os.execvp('unshare', [
            'unshare', '--mount', '--uts', '--propagation', 'private', '--',
            sys.executable, os.path.abspath(__file__), _INSIDE, *arguments])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('root', type=pathlib.Path)
    parser.add_argument('--bind', action='append', default=[],
                        metavar='PATH[:INSIDE]')
    parser.add_argument('--node', action='append', default=[],
                        metavar='NAME:MAJOR:MINOR')
    parser.add_argument('--env', action='append', default=[],
                        metavar='NAME=VALUE')
    parser.add_argument('--host-name', metavar='NAME')
    parser.add_argument('command', nargs='+')
    try:
        _enter(parser.parse_args(arguments[1:]))
    except (ChrootError, OSError) as error:
        sys.exit(f'chroot: {error}')


if __name__ == '__main__':
    main()
