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

"""Fuzz the targets, guided by coverage (atheris and libFuzzer).

    python -m tests.fuzz.run [--seconds N] [--corpus FOLDER] [TARGET...]

Each target runs in a process of its own for the given time, from its seeds
and what an earlier run left in the corpus. A finding is written to the
folder, and ends that target. Printed for each: how many inputs were run, and
the edges that they covered.
"""

import argparse
import pathlib
import re
import subprocess
import sys

_MEMORY_MIB = 1024
_SLOWEST_INPUT = 10  # seconds
_STARTING = 120  # seconds that imports and seeds may take


def _fuzz(name, options):
    """Become libFuzzer for one target."""
    import atheris

    with atheris.instrument_imports(include=['nova_sev_attest']):
        from tests.fuzz import targets
    chosen = targets.TARGETS[name]
    folder = options.corpus / name
    seeds = folder / 'seeds'
    found = folder / 'found'
    for path in (seeds, found):
        path.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(chosen.seeds()):
        (seeds / f'{number}').write_bytes(seed)
    atheris.Setup([
        sys.argv[0], f'-max_total_time={options.seconds}',
        f'-max_len={chosen.largest}', '-len_control=0',
        f'-rss_limit_mb={_MEMORY_MIB}',
        f'-timeout={_SLOWEST_INPUT}', '-print_final_stats=1',
        f'-artifact_prefix={folder}/', str(found), str(seeds)],
        lambda data: chosen.run(data) and None)
    atheris.Fuzz()


def _run(name, options):
    """Fuzz one target in a process; returns (inputs run, whether it held)."""
    done = subprocess.run(
        [sys.executable, '-m', 'tests.fuzz.run', '--inside',
         '--corpus', str(options.corpus), '--seconds', str(options.seconds),
         name],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors='replace', timeout=options.seconds + _STARTING)
    count = re.search(r'stat::number_of_executed_units:\s+(\d+)',
                      done.stdout)
    edges = re.findall(r'\bcov: (\d+)', done.stdout)
    inputs = int(count[1]) if count else 0
    held = done.returncode == 0 and inputs > 0
    print(f'{name}: {inputs} inputs, {edges[-1] if edges else 0} edges, '
          f'{"no finding" if held else "FAILED"}', flush=True)
    if not held:
        print(done.stdout[-8000:], flush=True)
    return inputs, held


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=f'{_MEMORY_MIB} MiB of memory and {_SLOWEST_INPUT} seconds '
               f'for one input are findings, too.')
    parser.add_argument('--seconds', type=int, default=60,
                        help='time for each target')
    parser.add_argument('--corpus', type=pathlib.Path,
                        default=pathlib.Path('.fuzz'))
    parser.add_argument('--inside', action='store_true',
                        help=argparse.SUPPRESS)
    parser.add_argument('targets', nargs='*', metavar='TARGET')
    options = parser.parse_args()
    if options.inside:
        _fuzz(options.targets[0], options)
        return
    from tests.fuzz import targets
    unknown = set(options.targets) - set(targets.TARGETS)
    if unknown:
        parser.error(f'no target {", ".join(sorted(unknown))}; there are '
                     f'{", ".join(targets.TARGETS)}')
    results = [_run(name, options)
               for name in options.targets or targets.TARGETS]
    print(f'{sum(inputs for inputs, _ in results)} inputs in all')
    if not all(held for _, held in results):
        sys.exit(1)


if __name__ == '__main__':
    main()
