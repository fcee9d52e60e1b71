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

"""Unpack Debian packages into a folder, without installing anything.

The machine's own package state is never touched: apt runs with a private
state, an empty status file and private lists and archives, and the packages'
maintainer scripts are not run. The mirror is the one that the machine itself
is configured with; what comes from it is believed only when it is signed by
a key of the machine's debian-archive-keyring.

The standard library is all this needs, because it runs before there is a
virtual environment.
"""

import argparse
import collections
import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

KEYRING = pathlib.Path('/usr/share/keyrings/debian-archive-keyring.gpg')
RELEASE = 'trixie'
# The suite of the packages that RELEASE does not have.
DATA_RELEASE = 'forky'
STAMP = '.debroot.json'
# Raise it when a tree made by an older version of this file must be rebuilt.
_RECIPE = 3
# What nothing in a lab reads; a third of the size of a tree.
_EXCLUDED = ('./usr/share/doc', './usr/share/man', './usr/share/locale',
             './usr/share/info', './usr/share/lintian')
_MERGED = ('bin', 'lib', 'lib64', 'sbin')
_PASSWD = {'root': (0, '/root'), 'nobody': (65534, '/nonexistent')}
_GROUPS = {'root': 0, 'tty': 5, 'nogroup': 65534}
_NSSWITCH = 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n'
_HOSTS = '127.0.0.1 localhost\n::1 localhost\n'


class DebRootError(Exception):
    """A tree could not be made; the message says what to do."""


def build(root, packages, *, cache, forky_packages=(), users=None,
          finish=None, recipe='', say=print):
    """Make a folder that holds packages and all they depend on.

    Nothing happens when the folder was already made from the same package
    names by the same recipe. The tree appears at once: it is built beside
    its place and then renamed into it.

    :param root: the folder to make (what was there is replaced).
    :param packages: names taken from Debian's ``trixie``.
    :param cache: folder of apt's private state and of the archives; many
        trees may share one, also at the same time.
    :param forky_packages: names taken from ``forky``; only these come from
        there, their dependencies do not.
    :param users: name -> number of the users (and groups of the same name)
        to add beside root and nobody.
    :param finish: called with the unfinished tree's path, last.
    :param recipe: text that changes when ``finish`` does other things.
    :param say: called with one line for each step.
    :returns: True when the tree was made, False when it was there already.
    :raises DebRootError: when a package, the mirror or a tool cannot be had.
    """
    root = pathlib.Path(root).absolute()
    stamp = {
        'recipe': [_RECIPE, recipe],
        'packages': sorted(packages),
        'forky_packages': sorted(forky_packages),
        'users': sorted((users or {}).items()),
    }
    stamp = json.loads(json.dumps(stamp))
    if _stamp_of(root) == stamp:
        return False
    _require_tools()
    root.parent.mkdir(parents=True, exist_ok=True)
    archives = download(packages, cache=cache,
                        forky_packages=forky_packages, say=say)
    fresh = root.with_name(f'{root.name}.new-{os.getpid()}')
    _remove_tree(fresh)
    fresh.mkdir()
    try:
        say(f'{root.name}: unpacking {len(archives)} packages')
        _unpack(fresh, archives)
        _configure(fresh, users or {})
        if finish is not None:
            finish(fresh)
        (fresh / STAMP).write_text(json.dumps(stamp, indent=1))
        _replace(fresh, root)
    finally:
        _remove_tree(fresh)
    return True


def unpack(root, packages, *, cache, suite, wanted=None, say=print):
    """Make a folder of packages, and all they depend on, of one suite.

    Unlike :func:`build` it makes no tree to run anything in: what the
    archives hold is unpacked, and that is all.

    :param root: the folder to make; replaced if it is there. It appears at
        once.
    :param packages: names of packages.
    :param cache: as in :func:`build`.
    :param suite: Debian's name of the suite that all of it is taken from.
    :param wanted: prefix of the names of the packages that are unpacked;
        None: all.
    :param say: as in :func:`build`.
    :raises DebRootError: as :func:`build`.
    """
    root = pathlib.Path(root).absolute()
    cache = pathlib.Path(cache).absolute()
    _require_tools()
    with _locked(cache):
        apt = _Apt(cache, [suite])
        say(f'apt: reading the package lists of {suite}')
        apt.update()
        archives = [path for path in apt.fetch(packages, (), say)
                    if path.name.startswith(wanted or '')]
    fresh = root.with_name(f'{root.name}.new-{os.getpid()}')
    _remove_tree(fresh)
    fresh.mkdir(parents=True)
    try:
        say(f'{root.name}: unpacking {len(archives)} packages')
        _unpack(fresh, archives)
        _replace(fresh, root)
    finally:
        _remove_tree(fresh)


def download(packages, *, cache, forky_packages=(), say=print):
    """Fetch packages and all they depend on; return the archives' paths.

    Arguments and errors as in :func:`build`.
    """
    _require_tools()
    cache = pathlib.Path(cache).absolute()
    with _locked(cache):
        apt = _Apt(cache, [RELEASE] + (
            [DATA_RELEASE] if forky_packages else []))
        say('apt: reading the package lists')
        apt.update()
        wanted = ([f'{name}/{RELEASE}' for name in packages]
                  + [f'{name}/{DATA_RELEASE}' for name in forky_packages])
        return apt.fetch(wanted, forky_packages, say)


class _Apt:
    """An apt that shares nothing with the machine's but its mirror."""

    def __init__(self, cache, suites):
        self.archives = cache / 'archives'
        self.suites = suites
        # One state for each set of suites: apt removes the lists of suites
        # that its sources no longer name.
        self.state = cache / '-'.join(['apt', *suites])
        for folder in (self.archives / 'partial',
                       self.state / 'lists' / 'partial',
                       self.state / 'none' / 'partial'):
            folder.mkdir(parents=True, exist_ok=True)
        (self.state / 'status').write_text('')
        self.mirror = mirror(cache)
        self.sources = self.state / 'debian.sources'
        self.sources.write_text('\n'.join(
            f'Types: deb\nURIs: {self.mirror}\nSuites: {suite}\n'
            f'Components: main\nSigned-By: {KEYRING}\n'
            # Release files of a suite in preparation live for a week; a
            # mirror that is a little behind would stop the lab.
            + ('Check-Valid-Until: no\n' if suite != RELEASE else '')
            for suite in self.suites))
        self.preferences = self.state / 'preferences'
        # From all but the first suite comes only what is asked for there.
        self.preferences.write_text('\n'.join(
            f'Package: *\nPin: release n={suite}\n'
            f'Pin-Priority: {-1 if at else 990}\n'
            for at, suite in enumerate(suites)))
        self.config = self.state / 'apt.conf'
        self.config.write_text(f'''
Dir::State "{self.state}";
Dir::State::lists "{self.state}/lists";
Dir::State::status "{self.state}/status";
Dir::State::extended_states "{self.state}/extended_states";
Dir::Cache "{self.state}";
Dir::Cache::archives "{self.archives}";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "{self.sources}";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "{self.preferences}";
Dir::Etc::preferencesparts "/dev/null";
Dir::Log "{self.state}";
Acquire::Languages "none";
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures {{ "amd64"; }};
APT::Install-Recommends "false";
APT::Keep-Downloaded-Packages "true";
APT::Sandbox::User "root";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
''')

    def update(self):
        done = self._run('update', '-o', 'APT::Update::Error-Mode=any')
        if done.returncode == 0:
            return
        hint = ''
        if 'NO_PUBKEY' in done.stderr or 'not signed' in done.stderr:
            hint = (f" The machine's {KEYRING} cannot verify "
                    f"{' or '.join(self.suites)}: install the newest "
                    f'debian-archive-keyring package.')
        raise DebRootError(
            f'the Debian package lists of {", ".join(self.suites)} cannot be '
            f'had from the mirror in the configuration of this machine\'s '
            f'apt.{hint} apt said:\n{_last_lines(done)}')

    def fetch(self, wanted, data_packages, say):
        if data_packages:
            names = ' '.join(data_packages)
            with self.preferences.open('a') as out:
                out.write(f'\nPackage: {names}\n'
                          f'Pin: release n={DATA_RELEASE}\n'
                          f'Pin-Priority: 995\n')
        install = ('install', '-y', '--download-only', *wanted)
        # The empty folder makes apt name every archive, also those that
        # are in the cache already.
        listed = self._run(
            '--print-uris', '-q', *install,
            '-o', f'Dir::Cache::archives={self.state}/none')
        archives = re.findall(r"^'[^']+' (\S+\.deb) \d+ ", listed.stdout,
                              re.MULTILINE)
        if listed.returncode or not archives:
            raise DebRootError(
                f'apt finds no way to have {" ".join(wanted)}: either a '
                f'package left the suite or the mirror lacks it. apt '
                f'said:\n{_last_lines(listed)}')
        say(f'apt: fetching {len(archives)} packages (what is in the cache '
            f'is kept)')
        done = self._run(*install)
        missing = [name for name in archives
                   if not (self.archives / name).is_file()]
        if done.returncode or missing:
            raise DebRootError(
                f'{len(missing)} packages could not be fetched '
                f'({" ".join(missing[:3])}...). apt said:\n'
                f'{_last_lines(done)}')
        return [self.archives / name for name in archives]

    def _run(self, *arguments):
        return _run('apt-get', '-c', str(self.config), *arguments)


def mirror(cache):
    """The URI of the Debian archive in the machine's apt configuration."""
    found = _mirrors()
    if not found:
        # The machine never read its lists, as fresh images have not: read
        # them into a folder of ours.
        scratch = cache / 'apt-machine'
        (scratch / 'lists' / 'partial').mkdir(parents=True, exist_ok=True)
        options = ('-o', f'Dir::State={scratch}',
                   '-o', f'Dir::State::lists={scratch}/lists',
                   '-o', 'APT::Sandbox::User=root')
        _run('apt-get', 'update', *options)
        found = _mirrors(*options)
    if not found:
        raise DebRootError(
            'apt of this machine has no source with Origin Debian and Label '
            'Debian ("apt-get indextargets" names none): the lab unpacks '
            'Debian packages, so configure a Debian mirror and run '
            '"apt-get update"')
    return collections.Counter(found).most_common(1)[0][0]


def _mirrors(*options):
    listed = _run('apt-get', 'indextargets', *options, '--format',
                  '$(ORIGIN)\t$(LABEL)\t$(REPO_URI)',
                  'Created-By: Packages')
    rows = (line.split('\t') for line in listed.stdout.splitlines())
    return [row[2] for row in rows
            if len(row) == 3 and row[:2] == ['Debian', 'Debian']]


def _unpack(root, archives):
    (root / 'usr').mkdir()
    for name in _MERGED:
        (root / 'usr' / name).mkdir()
        (root / name).symlink_to(f'usr/{name}')
    exclude = [f'--exclude={pattern}' for pattern in _EXCLUDED]
    for archive in archives:
        with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', archive],
                              stdout=subprocess.PIPE) as package:
            unpacked = subprocess.run(
                ['tar', '-x', '-C', root, '--numeric-owner',
                 '--keep-directory-symlink', *exclude],
                stdin=package.stdout, capture_output=True, text=True)
        if package.returncode or unpacked.returncode:
            raise DebRootError(
                f'{archive} cannot be unpacked: {_last_lines(unpacked)} '
                f'Remove the file and try again; see also the free space.')


def _configure(root, users):
    etc = root / 'etc'
    etc.mkdir(exist_ok=True)
    passwd = dict(_PASSWD, **{name: (number, '/nonexistent')
                              for name, number in users.items()})
    groups = dict(_GROUPS, **users)
    (etc / 'passwd').write_text(''.join(
        f'{name}:x:{number}:{number}:{name}:{home}:/bin/sh\n'
        for name, (number, home) in passwd.items()))
    (etc / 'group').write_text(''.join(
        f'{name}:x:{number}:\n' for name, number in groups.items()))
    (etc / 'nsswitch.conf').write_text(_NSSWITCH)
    (etc / 'hosts').write_text(_HOSTS)
    for name in ('dev', 'proc', 'run', 'sys', 'tmp', 'var/tmp', 'root'):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ('tmp', 'var/tmp'):
        (root / name).chmod(0o1777)
    # A folder of the machine that lies in /root is bound at the same place,
    # and the tree's other users have to get there.
    (root / 'root').chmod(0o711)
    # A folder in the package, made a link by base-files' own script.
    if not (root / 'var/run').is_symlink():
        with contextlib.suppress(FileNotFoundError):
            (root / 'var/run').rmdir()
        (root / 'var/run').symlink_to('../run')
    if (root / 'usr/sbin/ldconfig').exists():
        done = _run('chroot', root, '/usr/sbin/ldconfig')
        if done.returncode:
            raise DebRootError(f'ldconfig failed in the new tree: '
                               f'{_last_lines(done)}')


def _replace(fresh, root):
    old = root.with_name(f'{root.name}.old-{os.getpid()}')
    if root.exists():
        root.rename(old)
    fresh.rename(root)
    _remove_tree(old)


def _remove_tree(folder):
    if not folder.exists():
        return
    # Deleting through a mount would delete what is mounted.
    mounts = pathlib.Path('/proc/self/mountinfo').read_text().splitlines()
    below = [line.split()[4] for line in mounts
             if line.split()[4].startswith(f'{folder}/')]
    if below:
        raise DebRootError(f'{folder} is in use ({below[0]} is a mount): '
                           f'stop the lab first')
    shutil.rmtree(folder)


def _stamp_of(root):
    try:
        return json.loads((root / STAMP).read_text())
    except (FileNotFoundError, ValueError):
        return None


@contextlib.contextmanager
def _locked(cache):
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _require_tools():
    missing = [tool for tool in ('apt-get', 'dpkg-deb', 'tar', 'chroot')
               if shutil.which(tool) is None]
    if missing:
        raise DebRootError(f'{", ".join(missing)} not found: the lab needs '
                           f'a Debian machine')
    if os.geteuid():
        raise DebRootError('a tree with its owners can only be unpacked by '
                           'root')
    if not KEYRING.exists():
        raise DebRootError(f'{KEYRING} not found: install '
                           f'debian-archive-keyring; nothing is taken from '
                           f'a mirror unverified')


def _run(*command):
    environment = dict(os.environ, LC_ALL='C',
                       DEBIAN_FRONTEND='noninteractive')
    return subprocess.run(command, capture_output=True, text=True,
                          env=environment, stdin=subprocess.DEVNULL)


def _last_lines(done):
    lines = (done.stdout + done.stderr).strip().splitlines()
    return '\n'.join(lines[-12:])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('root', type=pathlib.Path)
    parser.add_argument('packages', nargs='*')
    parser.add_argument('--forky', action='append', default=[],
                        metavar='PACKAGE')
    parser.add_argument('--cache', type=pathlib.Path, required=True)
    options = parser.parse_args(arguments)
    try:
        made = build(options.root, options.packages, cache=options.cache,
                     forky_packages=options.forky)
    except DebRootError as error:
        sys.exit(f'debroot: {error}')
    print(f'{options.root}: {"made" if made else "already there"}')


if __name__ == '__main__':
    main()
