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

"""Make a guest whose encrypted root is a whole Debian.

    python -m devstack.lab.guest.debian --lab .lab FOLDER

puts kernel, initramfs and disk into the folder, and the disk's passphrase on
standard output. Kernel and initramfs are the small guest's own, so that a
policy measures all that runs before the root is unlocked; the root is Debian
with systemd, without an agent or anything else that would listen to the host.
Needs root and mmdebstrap; doc/source/owner/disks.rst tells the rest.
"""

import argparse
import hashlib
import pathlib
import shutil
import subprocess
import sys

from devstack.lab import debroot
from devstack.lab.guest import build
from devstack.lab.guest import tree

SUITE = 'trixie'
PACKAGES = ('kmod', 'login', 'passwd', 'systemd-sysv', 'udev')
_SECONDS = 1200
_UNIT = '''\
[Unit]
Description=Show which disk this is

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/show-marker

[Install]
WantedBy=multi-user.target
'''
_SHOW_MARKER = '''\
#!/bin/sh
echo "marker-sha256: $(sha256sum < /marker | cut -d ' ' -f 1)" > /dev/ttyS0
'''


def make(lab, folder, say=print):
    """Make the guest; returns a :class:`devstack.lab.guest.build.Guest`.

    :param lab: the lab's state folder, where the packages are kept.
    :raises tree.GuestError: when Debian cannot be bootstrapped.
    """
    archive = _bootstrap(pathlib.Path(lab).absolute() / 'cache', say)

    def fill(packages, root):
        subprocess.run(['tar', '--numeric-owner', '-xpf', archive, '-C', root],
                       check=True, timeout=_SECONDS)
        modules = packages.kernel()[1]
        shutil.copytree(modules, root / 'usr/lib/modules' / modules.name,
                        symlinks=True, dirs_exist_ok=True)
        (root / 'etc/hostname').write_text('guest\n')
        (root / 'etc/machine-id').write_text('')
        program = root / 'usr/local/sbin/show-marker'
        program.write_text(_SHOW_MARKER)
        program.chmod(0o755)
        units = root / 'etc/systemd/system'
        (units / 'marker.service').write_text(_UNIT)
        wanted = units / 'multi-user.target.wants'
        wanted.mkdir(exist_ok=True)
        (wanted / 'marker.service').symlink_to('../marker.service')

    return build.build(lab, folder, say=say,
                       root=build.Root(fill, is_writable=True))


def _bootstrap(cache, say):
    """The archive of a bootstrapped Debian, made once."""
    recipe = hashlib.sha256(repr((SUITE, PACKAGES)).encode()).hexdigest()
    archive = cache / f'debian-{SUITE}-{recipe[:12]}.tar'
    if archive.exists():
        return archive
    if shutil.which('mmdebstrap') is None:
        raise tree.GuestError('mmdebstrap is missing: apt-get install '
                              'mmdebstrap')
    cache.mkdir(parents=True, exist_ok=True)
    say(f'bootstrapping Debian {SUITE} (one to three minutes)')
    fresh = archive.with_suffix('.new.tar')
    done = subprocess.run(
        ['mmdebstrap', '--mode=root', '--variant=minbase', '--format=tar',
         f'--include={",".join(PACKAGES)}',
         '--aptopt=Acquire::Check-Valid-Until "false"', SUITE, fresh,
         debroot.mirror(cache)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=_SECONDS)
    if done.returncode:
        last = '\n'.join(done.stderr.splitlines()[-10:])
        raise tree.GuestError(f'mmdebstrap ended with {done.returncode}:\n'
                              f'{last}')
    fresh.replace(archive)
    return archive


def main(arguments=None):
    """Make a guest by hand; the passphrase goes to standard output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--lab', type=pathlib.Path, required=True)
    parser.add_argument('folder', type=pathlib.Path)
    options = parser.parse_args(arguments)
    try:
        guest = make(options.lab, options.folder,
                     say=lambda text: print(text, file=sys.stderr))
    except (tree.GuestError, debroot.DebRootError) as error:
        sys.exit(f'debian: {error}')
    print(f'command line: {guest.command_line}\n'
          f'marker: {guest.marker_sha256}', file=sys.stderr)
    print(guest.passphrase.decode())


if __name__ == '__main__':
    main()
