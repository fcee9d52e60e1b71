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

"""The tree of Debian packages that the guest is made from."""

import lzma
import pathlib
import re
import subprocess

from devstack.lab import debroot

PACKAGES = ('linux-image-cloud-amd64', 'busybox-static', 'cryptsetup-bin',
            'e2fsprogs')
_LIBRARIES = 'usr/lib/x86_64-linux-gnu'
_LOADER = 'usr/lib64/ld-linux-x86-64.so.2'


class GuestError(Exception):
    """The guest could not be made; the message says what to do."""


class Tree:
    """Debian packages, unpacked and not installed.

    :param root: the folder that :func:`unpack` made.
    """

    def __init__(self, root):
        self.root = pathlib.Path(root)

    def read(self, path):
        """The bytes of a file of the tree."""
        return (self.root / path).read_bytes()

    def kernel(self):
        """The kernel image and the folder of its modules."""
        images = sorted((self.root / 'boot').glob('vmlinuz-*'))
        if len(images) != 1:
            raise GuestError(f'{self.root}/boot has {len(images)} kernels '
                             f'where one was expected: remove the folder '
                             f'{self.root} and try again')
        version = images[0].name.removeprefix('vmlinuz-')
        return images[0], self.root / 'usr/lib/modules' / version

    def modules(self, names):
        """Kernel modules and all they need, in the order of loading.

        :returns: list of (name, uncompressed bytes).
        :raises GuestError: when the kernel has no such module.
        """
        _, folder = self.kernel()
        paths = {path.name.split('.')[0].replace('-', '_'): path
                 for path in folder.rglob('*.ko*')}
        found = {}

        def add(name):
            name = name.replace('-', '_')
            if name in found:
                return
            if name not in paths:
                raise GuestError(f'the kernel in {self.root} has no module '
                                 f'{name}')
            data = paths[name].read_bytes()
            if paths[name].suffix == '.xz':
                data = lzma.decompress(data)
            needs = re.search(rb'\0depends=([^\0]*)\0', data)
            if needs is None:
                raise GuestError(f'{paths[name]} does not tell which modules '
                                 f'it depends on')
            for needed in filter(None, needs[1].decode().split(',')):
                add(needed)
            found[name] = data

        for name in names:
            add(name)
        return list(found.items())

    def libraries(self, program):
        """The loader and the libraries of a program: path -> bytes."""
        listed = self.run('--list', self.root / program)
        libraries = {_LOADER: self.read(_LOADER)}
        for line in listed.decode().splitlines():
            named = re.match(r'\s*([^/\s]+) => (\S+) ', line)
            if named and named[2].startswith(str(self.root)):
                libraries[f'{_LIBRARIES}/{named[1]}'] = pathlib.Path(
                    named[2]).read_bytes()
        return libraries

    def command(self, program, *arguments):
        """The command line of a program of the tree, for this machine.

        It runs under the tree's own loader and libraries, which needs
        neither a chroot nor the program installed.

        :param program: path in the tree, or an option of the loader.
        """
        if not program.startswith('-'):
            program = self.root / program
        return [self.root / _LOADER, '--library-path',
                self.root / _LIBRARIES, program, *arguments]

    def run(self, *arguments, stdin=b'', keep=()):
        """Run a program of the tree on this machine.

        :param arguments: as in :meth:`command`.
        :param stdin: bytes for standard input.
        :param keep: file descriptors that the program gets.
        :returns: the bytes of standard output.
        :raises GuestError: when it fails.
        """
        done = subprocess.run(
            self.command(*arguments), input=stdin, pass_fds=keep,
            capture_output=True, cwd=self.root)
        if done.returncode:
            said = done.stderr.decode(errors='replace').strip()
            raise GuestError(f'{" ".join(map(str, arguments[:2]))} failed '
                             f'({done.returncode}): {said}')
        return done.stdout


def unpack(lab, say=print):
    """Make or find the tree of a lab.

    :param lab: the lab's state folder.
    :returns: the :class:`Tree`.
    :raises devstack.lab.debroot.DebRootError: when a package cannot be had.
    """
    lab = pathlib.Path(lab).absolute()
    root = lab / 'roots' / 'guest'
    debroot.build(root, PACKAGES, cache=lab / 'cache', say=say)
    return Tree(root)
