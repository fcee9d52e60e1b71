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

"""Nova's own tests of its libvirt driver, run with ours in its place.

    python -m tests.upstream [SUITE ...]

They come from the installed Nova's wheel and run under stestr, each worker
with the driver swapped before the first test is loaded. A run is good when
nothing failed and the totals are those that Nova's own driver had; the latter
are in totals.json, by Nova's version, and ``--driver stock --record`` writes
them anew.

``--driver sabotaged`` breaks the driver that is swapped in. It must fail: a
swap that did not take place would pass.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
TOTALS = HERE / 'totals.json'
COUNTS = ('Passed', 'Skipped', 'Expected Fail', 'Unexpected Success',
          'Failed')

UNIT = 'nova.tests.unit.virt.libvirt'
FUNCTIONAL = 'nova.tests.functional.libvirt'
SUITES = {
    'unit': [UNIT],
    'sev': [f'{FUNCTIONAL}.test_amd_sev'],
    'tdx': [f'{FUNCTIONAL}.test_intel_tdx'],
    'vtpm': [f'{FUNCTIONAL}.test_vtpm'],
    'rescue': [f'{FUNCTIONAL}.test_rescue_deleted_base'],
    'evacuate': [f'{FUNCTIONAL}.test_evacuate'],
    'reboot': [f'{FUNCTIONAL}.test_device_bus_migration',
               f'{FUNCTIONAL}.test_uefi'],
    'resize': [f'{FUNCTIONAL}.test_migration_addr',
               f'{FUNCTIONAL}.test_power_manage',
               f'{FUNCTIONAL}.test_vpmem'],
    'shelve': [f'{FUNCTIONAL}.test_machine_type',
               f'{FUNCTIONAL}.test_stateless_firmware'],
    # The whole package: all of these but 'unit', and the rest.
    'functional': [FUNCTIONAL],
}
IN_CI = ('unit', 'sev', 'tdx', 'vtpm')


def nova_version():
    return importlib.metadata.version('nova')


def run(suite, driver, workers, timeout):
    """One run of stestr in a folder of its own.

    :returns: its exit status, and its counts by the names of COUNTS
    """
    with tempfile.TemporaryDirectory(prefix='nova-upstream-') as folder:
        (pathlib.Path(folder) / '.stestr.conf').write_text(
            f'[DEFAULT]\ntest_path={HERE / "suite"}\n'
            f'top_dir={HERE / "suite"}\n')
        environment = dict(
            os.environ,
            PYTHON=sys.executable,
            UPSTREAM_MODULES=' '.join(SUITES[suite]),
            UPSTREAM_DRIVER=driver,
            OS_NOVA_DISABLE_EVENTLET_PATCHING=os.environ.get(
                'OS_NOVA_DISABLE_EVENTLET_PATCHING', '1'),
            OS_TEST_TIMEOUT='300')
        ended = subprocess.run(
            [sys.executable, '-m', 'stestr', 'run', '--concurrency',
             str(workers)],
            cwd=folder, env=environment, timeout=timeout,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return ended.returncode, ended.stdout, counts(ended.stdout)


def counts(output):
    """The totals that stestr prints at its end."""
    found = {}
    for name in COUNTS:
        match = re.search(rf'^ - {name}: (\d+)$', output, re.MULTILINE)
        found[name] = int(match[1]) if match else None
    return found


def judge(suite, driver, status, found):
    """Why a run is not good, None where it is."""
    if status != 0 or found['Failed'] != 0:
        return f'failed, with status {status}'
    if driver == 'stock':
        return None
    expected = recorded().get(nova_version(), {}).get(suite)
    if expected is None:
        return (f'no totals of Nova {nova_version()}\'s own driver are '
                f'recorded; run with --driver stock --record')
    if found != expected:
        return f'totals differ from those of Nova\'s own driver, {expected}'
    return None


def recorded():
    return json.loads(TOTALS.read_text()) if TOTALS.exists() else {}


def record(suite, found):
    totals = recorded()
    totals.setdefault(nova_version(), {})[suite] = found
    TOTALS.write_text(json.dumps(totals, indent=2, sort_keys=True) + '\n')


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog='python -m tests.upstream', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('suites', nargs='*', metavar='SUITE',
                        help=f'of {", ".join(SUITES)}; default: those of '
                             f'every CI run, {", ".join(IN_CI)}')
    parser.add_argument('--driver', default='attesting',
                        choices=['attesting', 'stock', 'sabotaged'])
    parser.add_argument('--record', action='store_true',
                        help='keep the totals of --driver stock')
    parser.add_argument('--workers', type=int, default=os.cpu_count())
    parser.add_argument('--timeout', type=float, default=3600,
                        help='seconds for each suite')
    options = parser.parse_args(arguments)
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f'no suite {", ".join(sorted(unknown))}')
    if options.record and options.driver != 'stock':
        parser.error('--record is for --driver stock')
    bad = False
    for suite in options.suites or IN_CI:
        status, output, found = run(suite, options.driver, options.workers,
                                    options.timeout)
        problem = judge(suite, options.driver, status, found)
        if problem:
            print(output)
            bad = True
        elif options.record:
            record(suite, found)
        print(f'{suite}, Nova {nova_version()}, {options.driver} driver: '
              f'{found}: {problem or "good"}', flush=True)
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
