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

"""Run a command where the kernel seems to have SEV.

Nova reads ``/sys/module/kvm_amd/parameters`` to learn what the kernel can
do. The command gets a /sys/module of its own, in a mount namespace of its
own, in which that folder says what the emulated platform offers; all other
modules are seen as they are. It replaces this program and keeps its pid.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

_MODULES = pathlib.Path('/sys/module')
_INSIDE = '--in-own-namespace'
# Where the real folder stays reachable, below the one that covers it.
_REAL = '.machine'


def command_line(command, sev_es=False):
    """The argument vector that runs a command with the overlay.

    :param sev_es: say that SEV-ES guests can be run, too.
    """
    return [sys.executable, str(pathlib.Path(__file__).resolve()),
            *(['--sev-es'] if sev_es else []), '--', *map(str, command)]


def _mount(*arguments):
    subprocess.run(['mount', *map(str, arguments)], check=True)


def _overlay(sev_es):
    cover = pathlib.Path(tempfile.mkdtemp(prefix='modules-'))
    _mount('-t', 'tmpfs', '-o', 'mode=755', 'modules', cover)
    (cover / _REAL).mkdir()
    _mount('--rbind', _MODULES, cover / _REAL)
    for module in os.listdir(_MODULES):
        if module != 'kvm_amd':
            (cover / module).symlink_to(f'{_REAL}/{module}')
    parameters = cover / 'kvm_amd' / 'parameters'
    parameters.mkdir(parents=True)
    # SNP hides SEV-ES, from Nova as on real hosts.
    for name, value in (('sev', True), ('sev_es', sev_es),
                        ('sev_snp', False)):
        (parameters / name).write_text('Y\n' if value else 'N\n')
    _mount('--rbind', cover, _MODULES)
    # Only the view over /sys/module stays.
    subprocess.run(['umount', '--lazy', cover], check=True)
    cover.rmdir()


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] != [_INSIDE]:
        os.execvp('unshare', [
            'unshare', '--mount', '--propagation', 'private', '--',
            sys.executable, os.path.abspath(__file__), _INSIDE, *arguments])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sev-es', action='store_true')
    parser.add_argument('command', nargs='+')
    options = parser.parse_args(arguments[1:])
    try:
        _overlay(options.sev_es)
        os.execvp(options.command[0], options.command)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f'kvm_amd: {error}')


if __name__ == '__main__':
    main()
