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

"""Unpacking of Debian packages, with an apt that is played here."""

import os
import pathlib
import shutil
import subprocess

import pytest

from devstack.lab import debroot

_MIRROR = 'http://mirror.invalid/debian/'


class Apt:
    """Answers for apt-get; other programs are the real ones."""

    def __init__(self, archive, monkeypatch):
        self.archive = archive
        self.calls = []
        self.mirrors = f'Debian\tDebian\t{_MIRROR}\n'
        self.update = (0, '')
        self.listed = (0, f"'{_MIRROR}x' {archive.name} 10 SHA256:0\n")
        self.fetched = True
        self._real = debroot._run
        monkeypatch.setattr(debroot, '_run', self.run)

    def run(self, *command):
        if command[0] != 'apt-get':
            return self._real(*command)
        self.calls.append(command)
        code, out = 0, ''
        if 'indextargets' in command:
            out = self.mirrors
        elif 'update' in command:
            code, out = self.update
        elif '--print-uris' in command:
            code, out = self.listed
        elif self.fetched:
            state = pathlib.Path(command[2]).parent
            shutil.copy(self.archive, state.parent / 'archives')
        return subprocess.CompletedProcess(command, code, out, out)


@pytest.fixture
def archive(tmp_path):
    """A Debian package, made here."""
    if shutil.which('dpkg-deb') is None or os.geteuid():
        pytest.skip('needs dpkg-deb and root, as the lab does')
    folder = tmp_path / 'package'
    for path in ('usr/bin/tool', 'usr/share/doc/tool/README', 'bin/old'):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    (folder / 'DEBIAN').mkdir()
    (folder / 'DEBIAN' / 'control').write_text(
        'Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\n'
        'Description: for a test\n')
    (folder / 'DEBIAN' / 'postinst').write_text('#!/bin/sh\nfalse\n')
    (folder / 'DEBIAN' / 'postinst').chmod(0o755)
    made = tmp_path / 'tool_1_all.deb'
    subprocess.run(['dpkg-deb', '--build', '--root-owner-group', folder,
                    made], check=True, capture_output=True)
    return made


@pytest.fixture
def apt(archive, monkeypatch, tmp_path):
    keyring = tmp_path / 'keyring'
    keyring.touch()
    monkeypatch.setattr(debroot, 'KEYRING', keyring)
    return Apt(archive, monkeypatch)


@pytest.fixture
def build(tmp_path, apt):
    def run(packages=('tool',), **changes):
        arguments = {'cache': tmp_path / 'cache', 'say': lambda line: None,
                     **changes}
        return debroot.build(tmp_path / 'root', packages, **arguments)
    return run


def test_unpacks_without_scripts(build, tmp_path):
    assert build(users={'somebody': 110})
    root = tmp_path / 'root'
    assert (root / 'usr/bin/tool').read_text() == 'usr/bin/tool'
    # What packages still put into /bin lands below /usr.
    assert (root / 'bin').is_symlink()
    assert (root / 'usr/bin/old').read_text() == 'bin/old'
    assert not (root / 'usr/share/doc').exists()
    assert (root / 'etc/passwd').read_text().splitlines()[-1].startswith(
        'somebody:x:110:110:')
    assert 'somebody:x:110:' in (root / 'etc/group').read_text()
    assert os.readlink(root / 'var/run') == '../run'


def test_the_same_is_not_made_twice(build, apt):
    assert build()
    calls = len(apt.calls)
    assert not build()
    assert len(apt.calls) == calls
    assert build(recipe='another')
    assert build(('tool', 'more'), recipe='another')
    assert len(apt.calls) > calls


def test_a_broken_stamp_is_made_anew(build, tmp_path):
    build()
    (tmp_path / 'root' / debroot.STAMP).write_text('{')
    assert build()


def test_packages_of_one_suite_as_they_are(apt, tmp_path):
    root = tmp_path / 'sources'

    def unpack(**changes):
        debroot.unpack(root, ['tool'], cache=tmp_path / 'cache',
                       **{'suite': 'sid', 'say': lambda line: None,
                          **changes})

    unpack()
    assert (root / 'usr/bin/tool').exists()
    assert not (root / 'etc').exists()
    state = tmp_path / 'cache' / 'apt-sid'
    sources = (state / 'debian.sources').read_text()
    assert 'Suites: sid\n' in sources and debroot.RELEASE not in sources
    # What is in preparation is a little old on some mirrors.
    assert 'Check-Valid-Until: no' in sources
    unpack(wanted='librust-')
    assert not (root / 'usr/bin/tool').exists()


def test_a_suite_without_the_package_leaves_what_was_there(apt, tmp_path):
    root = tmp_path / 'sources'
    root.mkdir()
    apt.listed = (100, 'E: Unable to locate package tool')
    with pytest.raises(debroot.DebRootError, match='Unable to locate'):
        debroot.unpack(root, ['tool'], cache=tmp_path / 'cache',
                       suite='forky', say=lambda line: None)
    assert root.is_dir() and not list(tmp_path.glob('sources.*'))


def test_finish_comes_before_the_tree_appears(build, tmp_path):
    def fail(tree):
        assert (tree / 'usr/bin/tool').exists()
        raise debroot.DebRootError('no')

    with pytest.raises(debroot.DebRootError, match='no'):
        build(finish=fail)
    assert not list(tmp_path.glob('root*'))


def test_failure_keeps_the_old_tree(build, apt, tmp_path):
    build()
    apt.update = (100, 'E: no route')
    with pytest.raises(debroot.DebRootError, match='no route'):
        build(recipe='new')
    assert (tmp_path / 'root/usr/bin/tool').exists()


def test_apt_shares_nothing_with_the_machines(build, apt, tmp_path):
    build(forky_packages=['data'])
    state = tmp_path / 'cache' / 'apt-trixie-forky'
    config = (state / 'apt.conf').read_text()
    assert f'Dir::State "{state}";' in config
    assert f'Dir::State::status "{state}/status";' in config
    assert (state / 'status').read_text() == ''
    sources = (state / 'debian.sources').read_text()
    assert sources.count(f'Signed-By: {debroot.KEYRING}') == 2
    assert f'URIs: {_MIRROR}' in sources
    # Only where a release file may be stale.
    first, second = sources.split('\n\n')
    assert 'Suites: trixie' in first and 'Valid-Until' not in first
    assert 'Suites: forky' in second and 'Check-Valid-Until: no' in second
    assert 'trusted' not in (sources + config).lower()
    assert 'Package: data\nPin: release n=forky' in (
        state / 'preferences').read_text()
    assert all(call[1] == '-c' for call in apt.calls
               if 'indextargets' not in call)


@pytest.mark.parametrize('said, hint', [
    ('NO_PUBKEY 1234', 'install the newest debian-archive-keyring'),
    ("The repository is not signed.", 'install the newest'),
    ('Temporary failure resolving', 'Temporary failure'),
])
def test_lists_that_cannot_be_had_are_explained(build, apt, said, hint):
    apt.update = (100, said)
    with pytest.raises(debroot.DebRootError, match=hint):
        build()


def test_a_missing_package_is_named(build, apt):
    apt.listed = (100, "E: Release 'forky' for 'gone' was not found")
    with pytest.raises(debroot.DebRootError, match='gone/forky'):
        build(forky_packages=['gone'])


def test_an_archive_that_did_not_come_is_named(build, apt):
    apt.fetched = False
    with pytest.raises(debroot.DebRootError, match='tool_1_all.deb'):
        build()


def test_a_broken_archive_is_named(build, apt):
    apt.archive.write_bytes(b'rubbish')
    with pytest.raises(debroot.DebRootError, match='cannot be unpacked'):
        build()


def test_the_mirror_is_debians(build, apt, tmp_path):
    apt.mirrors = ('Other\tOther\thttp://other.invalid/\n'
                   'Debian\tDebian-Security\thttp://security.invalid/\n'
                   f'Debian\tDebian\t{_MIRROR}\n')
    build()
    sources = (tmp_path / 'cache/apt-trixie/debian.sources').read_text()
    assert _MIRROR in sources and 'security' not in sources


def test_no_mirror_is_explained(build, apt):
    apt.mirrors = 'Other\tOther\thttp://other.invalid/\n'
    with pytest.raises(debroot.DebRootError, match='configure a Debian'):
        build()
    # It was looked for once more, with lists read on purpose.
    assert [call[1] for call in apt.calls] == [
        'indextargets', 'update', 'indextargets']


def test_without_a_keyring_nothing_is_taken(build, monkeypatch, apt,
                                            tmp_path):
    monkeypatch.setattr(debroot, 'KEYRING', tmp_path / 'none')
    with pytest.raises(debroot.DebRootError, match='unverified'):
        build()
    assert not apt.calls


def test_only_root_can(build, monkeypatch):
    monkeypatch.setattr(os, 'geteuid', lambda: 1000)
    with pytest.raises(debroot.DebRootError, match='root'):
        build()


def test_missing_tools_are_named(build, monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    with pytest.raises(debroot.DebRootError, match='apt-get, dpkg-deb'):
        build()
