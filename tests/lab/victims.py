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

"""What dies in the middle of a launch, and how it is brought back."""

import collections.abc
import dataclasses
import os
import pathlib
import signal
import socket
import time

from devstack.lab import namespace
from devstack.lab import services
from devstack.lab import supervision

_PROC = pathlib.Path('/proc')
_SECONDS = 150
_POLL = 0.3
# They reconnect by themselves.
_ALL_OF_NOVA = ('nova-conductor', 'nova-scheduler', 'nova-api',
                'nova-compute', 'nova-compute-2')


@dataclasses.dataclass(frozen=True)
class Victim:
    """Something that can be killed.

    :ivar name: for the table.
    :ivar pids: called with (layout, server), the processes to kill.
    :ivar service: the service that has to be started again, None where
        nobody does that: another process sees to it, or it is a guest.
    :ivar affects: services that have to work again afterwards, beside it.
    """

    name: str
    pids: collections.abc.Callable
    service: str | None = None
    affects: tuple = ()

    def kill(self, layout, server):
        """Kill it with SIGKILL and wait until it is gone.

        :returns: how many processes that were.
        """
        pids = self.pids(layout, server)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                # It ended with one that was killed before it.
                continue
        deadline = time.monotonic() + _SECONDS
        while any(_alive(pid) for pid in pids):
            assert time.monotonic() < deadline, f'{pids} do not end'
            time.sleep(0.01)
        return len(pids)


def recover(layout, victim, since):
    """Start again what was killed; wait until what it affects works.

    What ended with the victim, and would have been started again by the
    machine's own supervisor, is started, too.

    :param since: seconds since the epoch, of the kill; a compute host has to
        have reported after that.
    :returns: names of the services that were not running.
    """
    ended = []
    if victim.service is not None:
        _wait(lambda: _state(layout, victim.service) != 'RUNNING',
              f'supervisord does not notice the end of {victim.service}')
        port = services.table(layout)[victim.service].port
        # Its workers may live a little longer.
        _wait(lambda: port is None or not _listens(port),
              f'{victim.service} left somebody at its port')
    for name, state in supervision.states(layout).items():
        if state['statename'] != 'RUNNING':
            ended.append(name)
            supervision.start_service(layout, name)
    wait_for(layout, {*ended, *victim.affects}, since)
    return ended


def wait_for(layout, names, since):
    """Wait until services work; recover() says since when."""
    table = services.table(layout)
    for name in names:
        _wait(lambda: table[name].probe(since) is None,
              f'{name} does not come back')


def _wait(condition, text):
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, text
        time.sleep(_POLL)


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


def _state(layout, service):
    return supervision.states(layout)[service]['statename']


def main_pid(layout, service):
    """Pid, seen from outside, of a service's process."""
    inside = supervision.states(layout)[service]['pid']
    return namespace.outer_pids(layout)[inside]


def tree(pid):
    """A process and all that it started, directly or not."""
    found = [pid]
    parents = {}
    for entry in _PROC.glob('[0-9]*'):
        try:
            stat = (entry / 'stat').read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents.setdefault(int(stat.rpartition(')')[2].split()[1]),
                           []).append(int(entry.name))
    for parent in found:
        found.extend(parents.get(parent, ()))
    return found


def hypervisors(server):
    """Pids of a server's QEMU; before it is that, of what becomes it."""
    processes = []
    for entry in _PROC.glob('[0-9]*'):
        try:
            words = (entry / 'cmdline').read_bytes().split(b'\0')
            program = os.readlink(entry / 'exe')
        except OSError:
            continue
        if server.encode() in words and any(
                b'qemu-system' in word for word in words):
            processes.append((int(entry.name), program))
    real = [pid for pid, program in processes if 'qemu-system' in program]
    return real or [pid for pid, _ in processes]


def _alive(pid):
    try:
        stat = (_PROC / str(pid) / 'stat').read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(')')[2].split()[0] not in 'ZX'


def _whole(service):
    return lambda layout, server: tree(main_pid(layout, service))


def _main(service):
    return lambda layout, server: [main_pid(layout, service)]


ALL = (
    Victim('nova-compute', _whole('nova-compute'), 'nova-compute'),
    Victim('key service', _main('attestation'), 'attestation'),
    # The master starts others.
    Victim('its workers', lambda layout, server: tree(
        main_pid(layout, 'attestation'))[1:], affects=('attestation',)),
    # Guests are no children of libvirtd's, and outlive it.
    Victim('libvirtd', _main('libvirtd'), 'libvirtd'),
    Victim('QEMU', lambda layout, server: hypervisors(server)),
    Victim('RabbitMQ', _whole('rabbitmq'), 'rabbitmq',
           affects=_ALL_OF_NOVA),
    Victim('MariaDB', _whole('mariadb'), 'mariadb',
           affects=('keystone', 'attestation', *_ALL_OF_NOVA)),
)
