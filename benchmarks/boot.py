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

"""What attestation adds to a server's creation, in a lab that is up.

The same flavor, image and emulated platform, once under this project's driver
and once under Nova's own: one of the lab's compute hosts runs the one, the
other the other, and at half time they change places. Servers are created in
pairs, one on each, in alternating order, and timed from the request to the
moment at which Nova writes that they are ACTIVE.

    python -m benchmarks.boot --json

Then 20 servers are created at once on either, and at last the key service is
stopped (SIGSTOP) while servers wait for it, to see whether nova-compute's
reports and other servers wait, too.
"""

import argparse
import calendar
import contextlib
import itertools
import json
import os
import random
import re
import signal
import statistics
import sys
import threading
import time

from openstack import exceptions as sdk_exceptions
import pymysql

from devstack.lab import credentials
from devstack.lab import layout as lab_layout
from devstack.lab import owner as lab_owner
from tests.lab import computes
from tests.lab import standing
from tests.lab import victims

ATTESTING, STOCK = 'attesting', 'stock'
_DRIVERS = {ATTESTING: 'sev_attest.LibvirtDriver',
            STOCK: 'libvirt.LibvirtDriver'}
# The driver's own default.
_LAUNCH_SECONDS = 60
_POLL = 0.1
# Seconds between two looks into the database.
_LOOK = 0.01
_SECONDS = 180
_RESAMPLES = 5000
_REQUEST = re.compile(
    r'"PUT /v1/launches/[0-9a-f-]+(/\w+)? HTTP/1\.1" \d+ (\d+) ms')


class Cloud:
    """The lab's two hosts, an availability zone each.

    :param project: :class:`standing.Standing`.
    """

    def __init__(self, project):
        self._project = project
        self._layout = project.layout
        self._nova = project.owner.cloud.compute
        self._admin = project.admin.cloud.compute
        self._flavors = {}
        self._plain = project.owner.upload_image(
            'plain', project.guest.disk, 'raw')
        self._database = pymysql.connect(
            host='127.0.0.1', port=self._layout.port('mariadb'), user='lab',
            password=credentials.load(self._layout)['database'],
            database='nova', autocommit=True)

    @contextlib.contextmanager
    def zones(self, hosts):
        """Have hosts in zones, their nova-compute with the zone's driver.

        :param hosts: zone -> ComputeHost.
        """
        with contextlib.ExitStack() as stack:
            for zone, host in hosts.items():
                stack.enter_context(computes.configured(host, {
                    'DEFAULT': {'compute_driver': _DRIVERS[zone]},
                    # The lab's is shorter than many servers at once take.
                    'sev_attest': {'launch_timeout': str(_LAUNCH_SECONDS)}}))
                stack.enter_context(self._zone(zone, host))
            yield

    @contextlib.contextmanager
    def without_quota(self):
        """Let the project have any number of servers for a while."""
        project = self._project.owner.cloud.current_project_id
        cloud = self._project.admin.cloud
        cloud.set_compute_quotas(project, instances=-1, cores=-1, ram=-1)
        try:
            yield
        finally:
            cloud.delete_compute_quotas(project)

    @contextlib.contextmanager
    def _zone(self, name, host):
        aggregate = self._admin.create_aggregate(
            name=lab_owner.unique(name), availability_zone=name)
        try:
            self._admin.add_host_to_aggregate(aggregate, host.name)
            try:
                yield
            finally:
                self._admin.remove_host_from_aggregate(aggregate, host.name)
        finally:
            self._admin.delete_aggregate(aggregate)

    def create(self, zone, plain=False):
        """Ask for a server; returns its id."""
        flavor = 'm1.plain' if plain else lab_owner.FLAVOR
        if flavor not in self._flavors:
            self._flavors[flavor] = self._nova.find_flavor(
                flavor, ignore_missing=False).id
        return self._nova.create_server(
            name=lab_owner.unique('boot'), networks='none',
            image_id=self._plain if plain else self._project.images.disk,
            flavor_id=self._flavors[flavor], availability_zone=zone,
            metadata={'attestation_policy':
                      self._project.policy['name']}).id

    def _rest(self, server):
        """Wait until Nova has written that a server is at rest.

        Its API shows so from then on. To ask that would be a part of what is
        measured: each answer takes Nova and Neutron 55 ms.
        """
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            with self._database.cursor() as cursor:
                cursor.execute('SELECT vm_state FROM instances '
                               'WHERE uuid = %s', [server])
                if cursor.fetchone() in (('active',), ('error',)):
                    return
            time.sleep(_LOOK)
        raise lab_owner.OwnerError(
            f'server {server} is not at rest after {_SECONDS} s')

    def wait(self, server, status='ACTIVE'):
        """Wait until a server is at rest; returns how it is then."""
        deadline = time.monotonic() + _SECONDS
        while True:
            shown = self._nova.get_server(server)
            if shown.status in (status, 'ERROR'):
                return shown
            if time.monotonic() > deadline:
                raise lab_owner.OwnerError(
                    f'server {server} is {shown.status} after {_SECONDS} s')
            time.sleep(_POLL)

    def delete(self, *servers):
        """Delete servers and wait until they are gone."""
        for server in servers:
            self._nova.delete_server(server)
        deadline = time.monotonic() + _SECONDS
        for server in servers:
            with contextlib.suppress(sdk_exceptions.NotFoundException):
                while True:
                    self._nova.get_server(server)
                    if time.monotonic() > deadline:
                        raise lab_owner.OwnerError(
                            f'server {server} is not gone after '
                            f'{_SECONDS} s')
                    time.sleep(_POLL)

    def boot(self, zone, plain=False):
        """Milliseconds from the request for a server to ACTIVE."""
        begun = time.monotonic()
        server = self.create(zone, plain)
        self._rest(server)
        seconds = time.monotonic() - begun
        shown = self._nova.get_server(server)
        self.delete(server)
        if shown.status != 'ACTIVE':
            raise lab_owner.OwnerError(
                f'{zone}: {(shown.fault or {}).get("message")}')
        return 1000 * seconds

    def together(self, zone, count):
        """Create many at once.

        :returns: seconds until all are at rest, and how many are ACTIVE.
        """
        begun = time.monotonic()
        servers = []
        try:
            for _ in range(count):
                servers.append(self.create(zone))
            shown = [self.wait(server) for server in servers]
            return {'seconds': round(time.monotonic() - begun, 1),
                    'active': sum(server.status == 'ACTIVE'
                                  for server in shown)}
        finally:
            self.delete(*servers)

    def report_age(self, host):
        """Seconds since a host's nova-compute last reported, by Nova."""
        service, = self._admin.services(binary='nova-compute',
                                        host=host.name)
        seen = time.strptime(service.updated_at[:19], '%Y-%m-%dT%H:%M:%S')
        return max(0.0, time.time() - calendar.timegm(seen))


class Reports:
    """Watches how old a host's last report gets."""

    def __init__(self, cloud, host):
        self._cloud = cloud
        self._host = host
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.oldest = 0.0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _watch(self):
        while not self._done.wait(0.5):
            self.oldest = max(self.oldest,
                              self._cloud.report_age(self._host))


def compare(pairs):
    """Median ratio and difference of pairs, each with a 95 % interval.

    :param pairs: (attested, stock) in milliseconds.
    """
    def ratio(some):
        return (statistics.median(pair[0] for pair in some) /
                statistics.median(pair[1] for pair in some))

    def extra(some):
        return statistics.median(one - other for one, other in some)

    chance = random.Random(1)
    samples = [chance.choices(pairs, k=len(pairs))
               for _ in range(_RESAMPLES)]

    def interval(of):
        values = sorted(map(of, samples))
        return [values[int(share * (_RESAMPLES - 1))]
                for share in (0.025, 0.975)]

    return {
        'pairs': len(pairs),
        'attested_ms': round(statistics.median(
            pair[0] for pair in pairs)),
        'stock_ms': round(statistics.median(pair[1] for pair in pairs)),
        'ratio': round(ratio(pairs), 3),
        'ratio_interval': [round(value, 3) for value in interval(ratio)],
        'extra_ms': round(extra(pairs)),
        'extra_ms_interval': [round(value) for value in interval(extra)],
    }


def service_times(text):
    """Median milliseconds of each request, by the key service's own log."""
    found = {}
    for below, taken in _REQUEST.findall(text):
        found.setdefault(below or '/', []).append(int(taken))
    return {below: round(statistics.median(taken))
            for below, taken in found.items()}


def in_pairs(cloud, hosts, count, say):
    """Boot pairs, the hosts changing places at half time."""
    pairs = []
    order = itertools.cycle([(ATTESTING, STOCK), (STOCK, ATTESTING)])
    for half, (one, other) in enumerate((hosts, hosts[::-1])):
        with cloud.zones({ATTESTING: one, STOCK: other}):
            for zone in (ATTESTING, STOCK):
                # The images reach the host, and all connections are made.
                cloud.boot(zone)
            for _ in range(count // 2 + (count % 2 and half)):
                taken = {zone: cloud.boot(zone) for zone in next(order)}
                pairs.append((taken[ATTESTING], taken[STOCK]))
                say(f'pair {len(pairs)}: attested {pairs[-1][0]:.0f} ms, '
                    f'stock {pairs[-1][1]:.0f} ms')
    return pairs


def stalled(cloud, layout, host, waiting, plain):
    """Other servers and the host's reports while the key service is stopped.

    :param waiting: how many servers wait for it.
    :param plain: how many others are created meanwhile.
    """
    def others():
        with Reports(cloud, host) as reports:
            taken = [cloud.boot(ATTESTING, plain=True)
                     for _ in range(plain)]
        return {'plain_ms': round(statistics.median(taken)),
                'plain_longest_ms': round(max(taken)),
                'oldest_report_s': round(reports.oldest, 1)}

    before = others()
    processes = victims.tree(victims.main_pid(layout, 'attestation'))
    servers = []
    try:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        servers = [cloud.create(ATTESTING) for _ in range(waiting)]
        meanwhile = others()
        shown = [cloud.wait(server) for server in servers]
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        cloud.delete(*servers)
    return {'waiting': waiting, 'before': before, 'meanwhile': meanwhile,
            'statuses': sorted(server.status for server in shown),
            'fault': (shown[0].fault or {}).get('message')}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.boot',
        description=__doc__.splitlines()[0])
    parser.add_argument('--json', action='store_true',
                        help='print the result as JSON, last')
    parser.add_argument('--pairs', type=int, default=30)
    parser.add_argument('--together', type=int, default=20,
                        help='servers created at once; 0: none')
    parser.add_argument('--waiting', type=int, default=4,
                        help='servers that wait for a key service that is '
                             'stopped; 0: leave that out')
    options = parser.parse_args(arguments)

    def say(text):
        print(text, file=sys.stderr if options.json else sys.stdout,
              flush=True)

    layout = lab_layout.Layout.from_environment()
    hosts = list(layout.computes[:2])
    log = layout.log / 'attestation.log'
    result = {}
    with standing.prepared(layout, say) as project:
        cloud = Cloud(project)
        if options.pairs:
            start = log.stat().st_size
            result = compare(in_pairs(cloud, hosts, options.pairs, say))
            result['service_ms'] = service_times(
                log.read_bytes()[start:].decode(errors='replace'))
        with (cloud.without_quota(),
                cloud.zones({ATTESTING: hosts[0], STOCK: hosts[1]})):
            if options.together:
                result['together'] = {'servers': options.together} | {
                    zone: cloud.together(zone, options.together)
                    for zone in (ATTESTING, STOCK)}
                say(f'together: {result["together"]}')
            if options.waiting:
                result['stalled'] = stalled(cloud, layout, hosts[0],
                                            options.waiting, plain=5)
                say(f'stalled: {result["stalled"]}')
    if options.json:
        print(json.dumps(result))
    else:
        say(json.dumps(result, indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())
