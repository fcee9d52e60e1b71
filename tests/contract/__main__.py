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

"""Hold the running service to its OpenAPI document, as each role.

    python -m tests.contract [--requests N] [--seconds N] [--role NAME]
                             [--jobs N] [--seed N] [--keep FOLDER]

schemathesis asks a real service under uWSGI, as one role after the other, all
its checks on. Each request is made again as each of the other roles (those
that may change the victim's resources only where it was one of them that
asked), so that the same words are heard from everybody: no answer may tell a
role what belongs to another project, or a secret, and after the runs of roles
that may change nothing of the victim's project, nothing is changed.

Printed for each role: its requests, by status; "probes" are those that the
checks of schemathesis make themselves. The service's own log counts them all.
Ends with 1 after a failure or a 5xx, and with 2 when the time was over before
the requests were made.
"""

import argparse
import collections
from concurrent import futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from tests.contract import world

_DOCUMENT = (world.ROOT / 'nova_sev_attest/keyservice/openapi.yaml')

#: Of the runs as each role: their share of the requests, in hundredths. From
#: the least of the roles to the greatest.
SHARES = {'nobody': 2, 'other': 25, 'operator': 10, 'reader': 10,
          'compute': 25, 'owner': 28}
#: Longest run of schemathesis.
_SECONDS = 120
_WRITERS = ('owner', 'compute')
#: Which of the victim's Values are a leak.
_MARKERS = {'other': 'markers', 'nobody': 'markers',
            'compute': 'content', 'operator': 'content'}

_REQUEST = re.compile(r'"[A-Z]+ \S+ HTTP/[0-9.]+" ([0-9]{3}) ')

# Name of a dictionary of Values, and what of a request it is for.
_PARAMETERS = {
    'path.launch_id': 'launch_ids',
    'path.policy_id': 'policy_ids',
    'path.platform_id': 'platform_ids',
    'path.sha256': 'firmwares',
    'query.server_id': 'server_ids',
    'query.policy_id': 'policy_ids',
    'query.host': 'hosts',
    'header.If-Match': 'etags',
    'header.If-None-Match': 'etags',
    'header.X-Attestation-Launch-Token': 'tokens',
    'body.policy.firmwares[*]': 'firmwares',
    'body.policy.secrets[*].secret_ref': 'secrets',
    'body.launch.server_id': 'server_ids',
    'body.launch.host': 'hosts',
    'body.launch.platform.pdh': 'pdh',
    'body.launch.platform.cert_chain': 'cert_chain',
    'body.evidence.measurement': 'measurements',
    'body.session.dh_cert': 'dh_cert',
    'body.session.session': 'session',
}


class Run:
    """The requests of schemathesis as one role.

    :param around: World, started
    :param folder: a folder of this run
    """

    def __init__(self, around, role, folder):
        self._around = around
        self._role = role
        self._folder = folder
        folder.mkdir()
        self.failed = False
        self._counts = folder / 'counts.txt'
        self._counts.touch()
        values = around.values
        (folder / 'plan.json').write_text(json.dumps({
            'role': role,
            'token': around.tokens[role],
            'counts': str(self._counts),
            'hidden': around.hidden,
            'others': {} if role == 'nobody' else {
                other: around.tokens[other] for other in SHARES
                if other != role and (role in _WRITERS
                                      or other not in _WRITERS)},
            'markers': {other: getattr(values, _MARKERS[other])
                        if other in _MARKERS else [] for other in SHARES}}))
        (folder / 'schemathesis.toml').write_text(self._settings())

    def by_role(self):
        """{role: Counter of statuses} of the requests that hooks saw."""
        found = collections.defaultdict(collections.Counter)
        for line in self._counts.read_text().splitlines():
            role, status = line.split()
            found[role][status] += 1
        return found

    @property
    def requests(self):
        return sum(statuses.total() for statuses in self.by_role().values())

    def until(self, wanted, give_up_at, seed):
        """Ask until so many requests were answered, or the time is over."""
        before = self._around.snapshot()
        phases = 'examples,coverage,fuzzing,stateful'
        while self.requests < wanted and not self.failed:
            left = give_up_at - time.monotonic()
            if left < 10:
                break
            self._once(phases, min(_SECONDS, int(left)), seed)
            # The others ask the same again, whatever the seed.
            phases = 'fuzzing,stateful'
            seed += 1
        if self._role not in _WRITERS and (
                self._around.snapshot() != before):
            self._fail('the victim\'s resources are not what they were')

    def _once(self, phases, seconds, seed):
        output = self._folder / f'{seed}.txt'
        with output.open('w') as stream:
            status = subprocess.run(
                [pathlib.Path(sys.executable).with_name('schemathesis'),
                 '--config-file', self._folder / 'schemathesis.toml',
                 '--no-color', 'run', _DOCUMENT, '--url', self._around.url,
                 '--checks', 'all', '--phases', phases, '--workers', '1',
                 '--seed', str(seed), '--max-time', str(seconds),
                 '--continue-on-failure', '--no-shrink'],
                stdout=stream, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, timeout=seconds + 600,
                cwd=self._folder, env=os.environ | {
                    'PYTHONPATH': str(world.ROOT),
                    'SCHEMATHESIS_HOOKS': 'tests.contract.hooks',
                    'NOVA_SEV_ATTEST_CONTRACT': str(
                        self._folder / 'plan.json')}).returncode
        if status:
            self._fail(f'schemathesis ended with {status}: {output}')

    def _fail(self, text):
        self.failed = True
        print(f'as {self._role}: {text}', flush=True)

    def _settings(self):
        """The configuration of schemathesis, in TOML."""
        lines, token = [], self._around.tokens[self._role]
        for name in sorted(set(_PARAMETERS.values())):
            values = getattr(self._around.values, name)
            lines += [f'[dictionaries.{name}]', f'values = {values!r}']
        lines.append('[parameters]')
        lines += [f'"{where}" = {{dictionary = "{name}", probability = 0.5}}'
                  for where, name in _PARAMETERS.items()]
        if token is not None:
            lines += ['[auth.openapi.token]', f'api_key = "{token}"']
        lines += [
            '[checks.negative_data_rejection]',
            'expected-statuses = ["400", "401", "403", "404", "405", "409", '
            '"411", "412", "413", "415", "428"]',
            '[checks.positive_data_acceptance]',
            'expected-statuses = ["2xx", "3xx", "400", "401", "403", "404", '
            '"409", "412", "428"]',
        ]
        return '\n'.join(lines) + '\n'


def run(options, folder):
    """All roles; returns the exit status."""
    around = world.World(folder)
    give_up_at = time.monotonic() + options.seconds
    roles = options.role or SHARES
    share = sum(SHARES[role] for role in roles)
    runs = []

    def drive(role):
        started = time.monotonic()
        found = Run(around, role, folder / role)
        runs.append(found)
        found.until(-(-options.requests * SHARES[role] // share), give_up_at,
                    options.seed)
        print(f'driven as {role}: {found.requests} requests in '
              f'{time.monotonic() - started:.0f} s', flush=True)

    try:
        around.start()
        # Those that change the victim's resources only after the others.
        for writers in (False, True):
            with futures.ThreadPoolExecutor(options.jobs) as executor:
                list(executor.map(drive, (
                    role for role in SHARES
                    if role in roles and (role in _WRITERS) == writers)))
    finally:
        around.stop()
    return _report(around, runs, options.requests)


def _report(around, runs, wanted):
    """Print the requests of each role; returns the exit status."""
    roles = collections.defaultdict(collections.Counter)
    for found in runs:
        for role, statuses in found.by_role().items():
            roles[role] += statuses
    total = collections.Counter(
        _REQUEST.findall(around.log.read_text(errors='replace')))
    roles['probes'] = total - sum(roles.values(), collections.Counter())
    roles['all'] = total
    for role, statuses in roles.items():
        print(f'{role + ":":10}{statuses.total():7} requests: ' + ', '.join(
            f'{statuses[status]} x {status}' for status in sorted(statuses)))
    failures = sum(total[status] for status in total if status >= '500')
    if failures or any(found.failed for found in runs):
        print(f'{failures} answers of 5xx; see above for what failed')
        return 1
    return 0 if total.total() >= wanted else 2


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--requests', type=int, default=50000)
    parser.add_argument('--seconds', type=int, default=5400)
    parser.add_argument('--role', action='append', choices=SHARES)
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--keep', type=pathlib.Path, metavar='FOLDER')
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True)
        sys.exit(run(options, options.keep.resolve()))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(run(options, pathlib.Path(folder)))


if __name__ == '__main__':
    main()
