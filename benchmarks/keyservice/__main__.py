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

"""How much a key service takes, and what it loses: nothing.

    python -m benchmarks.keyservice --database postgresql|mysql|sqlite
        [--launches N] [--clients N] [--workers N] [--barbican N]
        [--stored N] [--faults LIST] [--json]

Starts everything itself on loopback: the database from Debian's packages
(root; below LAB_DIR), the service under uWSGI by its sample configuration,
keystone and Nova as cheap stand-ins, and a real Barbican for some of the
launches. Each launch is whole, with evidence that the emulated platform made
for it, and its released secret is decrypted and compared.

errors
    Launches that did not end with the right secret; what was wrong.
double_releases
    Launches that got more than one ciphertext. One launch in ten sends its
    evidence three times at once, and once more.
lost
    Launches whose client got the secret and that are not so in the
    database, or whose release is not in the audit.
launches_per_s, seconds
    Of whole launches: three requests each.
step_ms
    Percentiles of each request that was answered, as its client saw it.
engine_per_s, ratio_to_engine
    The launch core alone (session, verification, packing) in as many
    processes in the same run, and the service's throughput over it; and
    with the platform's certificates verified for each launch, as the
    service does.
cpu_s, client_cpu_s
    Seconds of CPU of each part while the load ran.
stored
    With --stored: medians of list, show and evidence before and after so
    many old launches were put into the database, and the growth.
faults
    With --faults: what was done during the load, and when.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time

from benchmarks.keyservice import engine
from benchmarks.keyservice import faults
from benchmarks.keyservice import load
from benchmarks.keyservice import owner
from benchmarks.keyservice import stored
from benchmarks.keyservice import surroundings

_ENGINE_SECONDS = 5
_PERCENTILES = (50, 90, 95, 99)


def _options(arguments):
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.keyservice',
        description=__doc__.splitlines()[0])
    parser.add_argument('--database', default='postgresql',
                        choices=('postgresql', 'mysql', 'sqlite'))
    parser.add_argument('--launches', type=int, default=500)
    parser.add_argument('--clients', type=int, default=50)
    parser.add_argument('--workers', type=int, default=4,
                        help='processes of the key service in all')
    parser.add_argument('--threads', type=int, default=16,
                        help='of each worker; default: %(default)s')
    parser.add_argument('--nodes', type=int, default=1,
                        help='uWSGI servers that share the workers')
    parser.add_argument('--barbican', type=int, default=0, metavar='N',
                        help='launches whose secret is in a real Barbican')
    parser.add_argument('--duplicated', type=int, default=10, metavar='N',
                        help='each Nth launch sends its evidence several '
                             'times; 0: none; default: %(default)s')
    parser.add_argument('--expiry', type=int, default=120,
                        help='[launches] expiry; default: %(default)s')
    parser.add_argument('--stored', type=int, default=0, metavar='N')
    parser.add_argument('--faults', type=faults.parse, default=(),
                        metavar='LIST',
                        help=f'of {",".join(faults.NAMES)}, with commas')
    parser.add_argument('--config', type=argparse.FileType(),
                        help='file of further lines for the key service\'s '
                             'configuration')
    parser.add_argument('--logs', metavar='FOLDER',
                        help='copy the logs there at the end')
    parser.add_argument('--json', action='store_true')
    options = parser.parse_args(arguments)
    options.config = options.config.read() if options.config else ''
    options.say = (lambda text: None) if options.json else _say
    options.skew = 0
    if 'clock' in options.faults:
        options.nodes, options.skew = 2, faults.SKEW
    return options


def _say(text):
    print(text, file=sys.stderr, flush=True)


def _percentiles(seconds):
    ordered = sorted(seconds)
    return {f'p{part}': round(1000 * ordered[
        min(len(ordered) * part // 100, len(ordered) - 1)], 1)
        for part in _PERCENTILES} | {'max': round(1000 * ordered[-1], 1)}


def _plan(options):
    """Policies of the launches, those of Barbican spread over all."""
    every = options.barbican and max(options.launches // options.barbican, 1)
    left, plan = options.barbican, []
    for number in range(options.launches):
        of_barbican = bool(left) and number % every == 0
        left -= of_barbican
        plan.append('of-barbican' if of_barbican else 'of-fake')
    return plan


def run(options):
    """All figures, by their names."""
    figures = {
        'database': options.database, 'launches': options.launches,
        'clients': options.clients, 'workers': options.workers,
        'threads': options.threads, 'nodes': options.nodes,
        'barbican_launches': options.barbican,
        'machine': f'{os.cpu_count()} CPUs, {platform.platform()}'}
    with surroundings.start(options) as around:
        payloads = owner.prepare(around)
        made = load.Load([node.url for node in around.nodes],
                         around.platform, payloads)
        options.say('warming up')
        asyncio.run(load.Load([node.url for node in around.nodes],
                              around.platform, payloads).run(
            ['of-fake'] * 4 * options.workers, options.workers, 0))
        options.say(f'{options.launches} launches')
        before, started = around.cpu_seconds(), time.monotonic()
        plan = faults.Plan(around, options.faults, options.launches)
        asyncio.run(made.run(_plan(options), options.clients,
                             options.duplicated, plan.done))
        seconds = time.monotonic() - started
        figures |= {'faults': plan.finish()} if options.faults else {}
        after = around.cpu_seconds()
        figures |= _of_load(made.figures, seconds, options)
        figures['cpu_s'] = {name: round(after[name] - before[name], 1)
                            for name in after}
        figures['client_cpu_s'] = figures['cpu_s']['client']
        figures['lost'] = stored.count_lost(around.database,
                                            made.figures.released)
        options.say('the engine alone')
        warm, cold = engine.launches_per_second(
            around.folder / 'platform', options.workers, _ENGINE_SECONDS)
        figures |= {
            'engine_per_s': round(warm, 1),
            'engine_with_chain_per_s': round(cold, 1),
            'ratio_to_engine': round(
                figures['launches_per_s'] / warm, 4),
            'ratio_to_engine_with_chain': round(
                figures['launches_per_s'] / cold, 4)}
        if options.stored:
            figures['stored'] = stored.growth(around, made, options)
    return figures


def _of_load(seen, seconds, options):
    return {
        'seconds': round(seconds, 1),
        'launches_per_s': round(options.launches / seconds, 2),
        'errors': len(seen.errors),
        'errors_seen': sorted(set(seen.errors))[:10],
        'double_releases': seen.double_releases,
        'duplicated_launches': seen.duplicates,
        'step_ms': {step: _percentiles(taken)
                    for step, taken in seen.seconds.items()},
        'retries': dict(seen.retries),
        'transient': dict(seen.transient),
    }


def main(arguments=None):
    options = _options(arguments)
    figures = run(options)
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        for name, value in figures.items():
            print(f'{name:28} {value}')
    return int(bool(figures['errors'] or figures['double_releases']
                    or figures['lost']))


if __name__ == '__main__':
    sys.exit(main())
