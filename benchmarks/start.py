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

"""How long the commands of owners take to start.

    python -m benchmarks.start [--json] [--pairs N]

Processes of their own, in pairs of alternating order; medians over all pairs,
in seconds. ``wall`` is the time that a user waits, ``cpu`` what the process
used of it, which other work on the machine changes less.

sev_attest_*
    ``sev-attest --help``. At most 0.5.
help_added_*, complete_added_*, other_added_*
    What our commands add to ``openstack --help`` and ``openstack complete``,
    which load all commands, and to ``openstack server list --help``, as any
    other command starts. Both sides have the same packages, but for ours. At
    most 0.2.
help_*, complete_*, other_*
    The whole of it, with ours.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time

TARGETS = {'sev_attest_wall': 0.5, 'help_added_wall': 0.2,
           'complete_added_wall': 0.2, 'other_added_wall': 0.2}
_PACKAGE = 'nova_sev_attest'
_OPENSTACK = 'import sys; from openstackclient import shell; ' \
             'sys.exit(shell.main())'
_SEV_ATTEST = f'import sys; from {_PACKAGE}.cmd.sev_attest import app; ' \
              f'sys.exit(app.main())'
_CASES = {'help': ['--help'], 'complete': ['complete'],
          'other': ['server', 'list', '--help']}
_LONGEST = 120  # seconds


class _Side:
    """An installation: a folder of links to the packages of this one.

    :param ours: whether this project is among them
    """

    def __init__(self, folder, ours):
        self._packages = folder / 'packages'
        self._packages.mkdir(parents=True)
        self._cache = folder / 'cache'
        site = pathlib.Path(sysconfig.get_path('purelib'))
        for path in site.iterdir():
            if not path.name.startswith(_PACKAGE) or (
                    ours and path.suffix == '.dist-info'):
                (self._packages / path.name).symlink_to(path)
        if ours:
            # As it is in this checkout.
            checkout = pathlib.Path(__file__).resolve().parents[1]
            (self._packages / _PACKAGE).symlink_to(checkout / _PACKAGE)

    def start(self, code, words):
        """Run a command; returns (seconds waited, seconds of processor)."""
        # Without the site module nothing else comes into the path.
        process = [sys.executable, '-S', '-c', code, *words]
        environment = {
            'PATH': os.environ['PATH'], 'PYTHONPATH': str(self._packages),
            'XDG_CACHE_HOME': str(self._cache), 'HOME': str(self._cache),
            'LANG': 'C.UTF-8', 'PYTHONWARNINGS': 'ignore'}
        before = os.times()
        started = time.perf_counter()
        subprocess.run(process, env=environment, cwd=self._packages.parent,
                       stdout=subprocess.DEVNULL, check=True,
                       timeout=_LONGEST)
        wall = time.perf_counter() - started
        after = os.times()
        return wall, (after.children_user - before.children_user
                      + after.children_system - before.children_system)


def _pairs(count, one, other):
    """Measure two functions in turn; yields what they return."""
    # What is cached on disk is, from now on.
    one(), other()
    for number in range(count):
        if number % 2:
            yield one(), other()
        else:
            second = other()
            yield one(), second


def _medians(name, taken):
    return {f'{name}_{what}': statistics.median(column)
            for what, column in zip(('wall', 'cpu'), zip(*taken))}


def run(count):
    """All figures, by their names."""
    figures = {'pairs': count}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with_ours = _Side(folder / 'with', True)
        without = _Side(folder / 'without', False)
        for name, words in _CASES.items():
            taken = list(_pairs(
                count, lambda: with_ours.start(_OPENSTACK, words),
                lambda: without.start(_OPENSTACK, words)))
            figures |= _medians(name, [ours for ours, _ in taken])
            figures |= _medians(f'{name}_added', [
                [mine - theirs for mine, theirs in zip(ours, other)]
                for ours, other in taken])
        with_ours.start(_SEV_ATTEST, ['--help'])
        figures |= _medians('sev_attest', [
            with_ours.start(_SEV_ATTEST, ['--help']) for _ in range(count)])
    figures['targets_missed'] = [
        name for name, most in TARGETS.items() if figures[name] > most]
    return figures


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--json', action='store_true')
    parser.add_argument('--pairs', type=int, default=15)
    options = parser.parse_args(arguments)
    figures = run(options.pairs)
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        print(f'{name:28} {value:.3f}' if isinstance(value, float)
              else f'{name:28} {value}')


if __name__ == '__main__':
    main()
