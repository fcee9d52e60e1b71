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

"""Builds the guest owner that is made of virtee's sev library.

Debian packages the library and all it needs as source, librust-sev-dev. They
are unpacked into a folder of the lab and compiled there, offline, by the
machine's cargo against the machine's OpenSSL; nothing is installed.
"""

import os
import pathlib
import shutil
import subprocess

from devstack.lab import debroot

PACKAGE = 'librust-sev-dev'
# Where the library is found, the more settled suite first: what is in
# preparation for a release drops packages and takes them back.
SUITES = ('forky', 'sid')
_SOURCE = pathlib.Path(__file__).resolve().parent / 'owner'
_REGISTRY = 'usr/share/cargo/registry'


class OracleError(Exception):
    """It cannot be built here; the message says why."""


def _unpack(tree, cache, say):
    """The sources of the library and of all that it is built from."""
    reasons = []
    for suite in SUITES:
        try:
            debroot.unpack(tree, [PACKAGE], cache=cache, suite=suite,
                           wanted='librust-', say=say)
        except debroot.DebRootError as error:
            reasons.append(f'{suite}: {error}')
        else:
            return
    raise OracleError('\n'.join(reasons))


def build(folder, cache, say=print):
    """Compile the owner.

    :param folder: where sources and the program are put; kept between runs.
    :param cache: folder of the archives.
    :returns: path of the program.
    :raises OracleError: no cargo, no package, no root, no compiler.
    """
    for tool, package in (('cargo', 'cargo'), ('cc', 'gcc'),
                          ('pkg-config', 'pkg-config')):
        if shutil.which(tool) is None:
            raise OracleError(f'{tool} not found: install {package}')
    folder, cache = pathlib.Path(folder), pathlib.Path(cache)
    tree = folder / 'sources'
    if not (tree / _REGISTRY).is_dir():
        _unpack(tree, cache, say)
    work = folder / 'owner'
    shutil.copytree(_SOURCE, work, dirs_exist_ok=True)
    say('cargo: building the owner')
    # A home of its own: nothing of the user's cargo is used or changed.
    done = subprocess.run(
        ['cargo', 'build', '--release', '--offline', '--quiet',
         '--config', 'source.crates-io.replace-with="debian"',
         '--config', f'source.debian.directory="{tree / _REGISTRY}"'],
        cwd=work, capture_output=True, text=True,
        env=dict(os.environ, CARGO_HOME=str(folder / 'cargo'),
                 CARGO_TARGET_DIR=str(folder / 'target')))
    if done.returncode:
        raise OracleError(
            f'cargo cannot build it (is libssl-dev installed?):\n'
            f'{done.stderr[-2000:]}')
    return folder / 'target' / 'release' / 'owner'
