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

"""Make a guest: kernel, initramfs, and a disk with a secret of this run."""

import argparse
import dataclasses
import hashlib
import pathlib
import secrets
import sys
import tempfile

from devstack.lab.guest import disk
from devstack.lab.guest import initramfs
from devstack.lab.guest import tree

# iomem=relaxed lets the initramfs read the launch secret through /dev/mem.
# Only the emulated platform needs that (see secret-area.sh). panic=-1 ends
# the guest where it would otherwise wait.
COMMAND_LINE = 'console=ttyS0 iomem=relaxed panic=-1 quiet'
_MODULES = ('virtio_blk', 'dm_crypt', 'xts')
_FOLDERS = ('dev', 'proc', 'root', 'run/cryptsetup', 'sys', 'tmp')
_APPLETS = ('cat', 'cmp', 'dd', 'insmod', 'mount', 'od', 'poweroff', 'rm',
            'sed', 'sh', 'sleep', 'switch_root', 'tr', 'xxd')
_CRYPTSETUP = 'usr/sbin/cryptsetup'
_BUSYBOX = 'usr/bin/busybox'
_ROOT_SIZE = 8 << 20
_HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Guest:
    """What was made.

    :ivar kernel: path.
    :ivar initramfs: path; equal for equal packages.
    :ivar disk: path; another one in each run.
    :ivar command_line: text, as measured (without the terminating NUL).
    :ivar passphrase: what opens the disk, 64 bytes of text. It is in no
        file.
    :ivar marker_sha256: SHA-256 of the marker on the disk, in hex.
    """

    kernel: pathlib.Path
    initramfs: pathlib.Path
    disk: pathlib.Path
    command_line: str
    passphrase: bytes = dataclasses.field(repr=False)
    marker_sha256: str


@dataclasses.dataclass(frozen=True)
class Root:
    """What is on the guest's disk.

    :ivar fill: called with the packages (:class:`tree.Tree`) and the folder
        to fill; the file ``marker`` is there.
    :ivar size: bytes of its file system, a multiple of 1024; None: half as
        much again as is in the folder, and 128 MiB.
    :ivar is_writable: whether the guest may write to it. What the host may
        do to an encrypted disk (see doc/source/owner/disks.rst) then hits
        what the guest wrote, too.
    """

    fill: object
    size: int | None = None
    is_writable: bool = False


def build(lab, folder, say=print, root=None):
    """Make a guest with a new disk.

    :param lab: the lab's state folder, for the Debian packages.
    :param folder: where to put kernel, initramfs and disk.
    :param root: the :class:`Root` of its disk; by default a busybox that
        shows the marker.
    :returns: a :class:`Guest`.
    :raises tree.GuestError: when the packages are not as expected.
    :raises devstack.lab.debroot.DebRootError: when they cannot be had.
    """
    root = root or Root(_busybox, _ROOT_SIZE)
    packages = tree.unpack(lab, say=say)
    folder = pathlib.Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    kernel = folder / 'kernel'
    kernel.write_bytes(packages.kernel()[0].read_bytes())
    ramdisk = folder / 'initramfs'
    ramdisk.write_bytes(_initramfs(packages, root))
    image = folder / 'disk'
    passphrase = secrets.token_hex(32).encode()
    marker_sha256 = _disk(packages, passphrase, image, root)
    say(f'guest: kernel {kernel.stat().st_size >> 10} KiB, initramfs '
        f'{ramdisk.stat().st_size >> 10} KiB, disk '
        f'{image.stat().st_size >> 10} KiB')
    return Guest(kernel, ramdisk, image, COMMAND_LINE, passphrase,
                 marker_sha256)


def _initramfs(packages, root):
    files = {'init': (_HERE / 'init').read_bytes(),
             'lib/secret-area.sh': (_HERE / 'secret-area.sh').read_bytes(),
             'etc/root-mode': b'rw\n' if root.is_writable else b'ro\n',
             'etc/luks2-shape': (_HERE / 'luks2-shape').read_bytes(),
             'bin/cryptsetup': packages.read(_CRYPTSETUP),
             'bin/busybox': packages.read(_BUSYBOX)}
    programs = {'init', 'bin/cryptsetup', 'bin/busybox'}
    for path, data in packages.libraries(_CRYPTSETUP).items():
        # The loader is where programs look for it, and so are libraries.
        name = path.removeprefix('usr/')
        files[name] = data
        programs.add(name)
    modules = packages.modules(_MODULES)
    for name, data in modules:
        files[f'lib/modules/{name}.ko'] = data
    files['etc/modules'] = ''.join(
        f'{name}\n' for name, _ in modules).encode()
    links = {f'bin/{applet}': 'busybox' for applet in _APPLETS}
    return initramfs.pack(files, programs=programs, links=links,
                          folders=_FOLDERS)


def _busybox(packages, folder):
    for name in ('bin', 'dev', 'proc', 'sbin', 'sys'):
        (folder / name).mkdir()
    (folder / 'bin/busybox').write_bytes(packages.read(_BUSYBOX))
    for applet in ('cut', 'sh', 'sha256sum', 'sleep'):
        (folder / 'bin' / applet).symlink_to('busybox')
    (folder / 'sbin/init').write_bytes((_HERE / 'root-init').read_bytes())
    for program in ('bin/busybox', 'sbin/init'):
        (folder / program).chmod(0o755)


def _disk(packages, passphrase, path, root):
    marker = secrets.token_hex(32).encode() + b'\n'
    # In memory: what is encrypted on the disk is never in clear on one.
    with tempfile.TemporaryDirectory(dir='/dev/shm') as scratch:
        scratch = pathlib.Path(scratch)
        folder = scratch / 'root'
        folder.mkdir()
        (folder / 'marker').write_bytes(marker)
        root.fill(packages, folder)
        clear = scratch / 'clear'
        clear.touch(0o600)
        packages.run('usr/sbin/mke2fs', '-q', '-t', 'ext4', '-m', '0',
                     *([] if root.is_writable else ['-O', '^has_journal']),
                     '-E', 'root_owner=0:0', '-d', str(folder), str(clear),
                     f'{(root.size or _size_for(folder)) >> 10}k')
        volume = disk.make_volume(packages, clear.read_bytes(), passphrase,
                                  scratch / 'volume')
    path.write_bytes(disk.make_disk(volume))
    return hashlib.sha256(marker).hexdigest()


def _size_for(folder):
    used = sum(path.lstat().st_blocks * 512 for path in folder.rglob('*'))
    return (used * 3 // 2 + (128 << 20)) >> 20 << 20


def main(arguments=None):
    """Make a guest by hand; the passphrase goes to standard output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--lab', type=pathlib.Path, required=True)
    parser.add_argument('folder', type=pathlib.Path)
    options = parser.parse_args(arguments)
    guest = build(options.lab, options.folder)
    print(guest, file=sys.stderr)
    print(guest.passphrase.decode())


if __name__ == '__main__':
    main()
