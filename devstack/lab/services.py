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

"""The servers of the lab: how each is started and when it is ready."""

import collections.abc
import dataclasses
import sys

from devstack.lab import chroot
from devstack.lab import kvm_amd
from devstack.lab import layout as lab_layout
from devstack.lab import probes

_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
# nova_sev_attest.messaging.TOPIC, whose import takes longer than a "status".
_RPC_QUEUE = 'sev-attest'
_HERE = lab_layout.CHECKOUT / 'devstack' / 'lab'


@dataclasses.dataclass(frozen=True)
class Service:
    """One process under the supervisor.

    :ivar needs: names of the services and tasks that come first.
    :ivar probe: called with the time of the start (seconds since the epoch)
        until it returns None; see :mod:`probes`.
    :ivar port: what it listens on, or None.
    :ivar stop_seconds: how long it may take to end by itself.
    :ivar stops_as_group: whether its children are told to end as well.
    """

    name: str
    command: tuple
    probe: collections.abc.Callable[[float], str | None]
    needs: tuple = ()
    environment: dict = dataclasses.field(default_factory=dict)
    port: int | None = None
    stop_seconds: int = 10
    stops_as_group: bool = True


def table(layout):
    """All services of a lab, by name, in the order of a status display."""
    found = [
        _mariadb(layout),
        _epmd(layout),
        _rabbitmq(layout),
        _wsgi(layout, 'keystone', 'keystone.wsgi.api', '/v3',
              needs=('databases', 'identity'),
              OS_KEYSTONE_CONFIG_DIR=layout.etc / 'keystone'),
        _wsgi(layout, 'placement', 'placement.wsgi.api', '/',
              needs=('databases',),
              OS_PLACEMENT_CONFIG_DIR=layout.etc / 'placement'),
        _wsgi(layout, 'glance', 'glance.wsgi.api', '/versions',
              needs=('databases',),
              OS_GLANCE_CONFIG_DIR=layout.etc / 'glance'),
        _wsgi(layout, 'neutron', 'neutron.wsgi.api', '/',
              needs=('databases', 'rabbitmq'),
              OS_NEUTRON_CONFIG_DIR=layout.etc / 'neutron',
              OS_NEUTRON_CONFIG_FILES='neutron.conf'),
        _wsgi(layout, 'barbican',
              f'paste:{layout.venv}/etc/barbican/barbican-api-paste.ini',
              '/', needs=('databases',)),
        _attestation(layout),
        *([_attestation_rpc(layout)] if layout.transport == 'rpc' else ()),
        _nova(layout, 'nova-conductor', queue='conductor'),
        _nova(layout, 'nova-scheduler', queue='scheduler'),
        _wsgi(layout, 'nova-api', 'nova.wsgi.osapi_compute', '/',
              needs=('databases', 'rabbitmq', 'catalog'),
              OS_NOVA_CONFIG_DIR=layout.etc / 'nova',
              OS_NOVA_CONFIG_FILES=';'.join((
                  str(layout.venv / 'etc' / 'nova' / 'api-paste.ini'),
                  'nova.conf', 'nova-db.conf'))),
    ]
    for host in layout.computes:
        found += [_platform(host), _libvirtd(host), _nova_compute(host)]
    return {service.name: service for service in found}


def _python_environment(layout):
    return {'HOME': layout.etc / 'home'}


def _wsgi(layout, name, target, path, *, needs, **environment):
    return Service(
        name=name,
        command=(layout.bin('python'), '-P', _HERE / 'wsgi.py', target,
                 '--port', layout.port(name)),
        probe=lambda since: probes.http(layout, name, path),
        needs=needs,
        environment=_python_environment(layout) | environment,
        port=layout.port(name),
        # What some leave running in threads needs no end of its own.
        stop_seconds=3)


def _attestation(layout):
    """The key service as in production, by its sample configuration."""
    return Service(
        name='attestation',
        command=(layout.bin('uwsgi'), '--ini',
                 lab_layout.CHECKOUT / 'etc/nova-sev-attest/uwsgi.ini'),
        probe=lambda since: probes.http(layout, 'attestation',
                                        '/healthcheck'),
        needs=('attestation-database', 'attestation-accounts', 'platform'),
        environment=_python_environment(layout) | {
            'NOVA_SEV_ATTEST_CONFIG_FILE':
                layout.etc / 'attestation' / 'attestation.conf',
            'NOVA_SEV_ATTEST_LISTEN':
                f'127.0.0.1:{layout.port("attestation")}',
            'NOVA_SEV_ATTEST_WORKERS': 2,
            'NOVA_SEV_ATTEST_THREADS': 8,
        },
        port=layout.port('attestation'),
        # Its master lets the workers finish what they are at.
        stops_as_group=False)


def _attestation_rpc(layout):
    """The same key service for compute hosts that reach RabbitMQ only."""
    return Service(
        name='attestation-rpc',
        command=(layout.bin('nova-sev-attest-rpc'), '--config-file',
                 layout.etc / 'attestation' / 'attestation.conf'),
        probe=lambda since: probes.consumer(layout, _RPC_QUEUE),
        needs=('attestation-database', 'attestation-accounts', 'platform',
               'rabbitmq'),
        environment=_python_environment(layout))


def _mariadb(layout):
    return Service(
        name='mariadb',
        command=tuple(chroot.command_line(
            layout.services_root,
            ['mariadbd',
             f'--defaults-file={layout.etc}/mariadb/mariadb.cnf'],
            binds=database_binds(layout))),
        probe=lambda since: probes.database(layout),
        port=layout.port('mariadb'),
        stop_seconds=20)


def database_binds(layout):
    """What MariaDB's programs see of the lab, at the same paths."""
    return (layout.etc / 'mariadb', layout.data / 'mariadb', layout.run_dir)


def _epmd(layout):
    return Service(
        name='epmd',
        command=tuple(chroot.command_line(
            layout.services_root,
            ['epmd', '-address', '127.0.0.1', '-port',
             layout.port('epmd')])),
        probe=lambda since: probes.tcp(layout, 'epmd'),
        port=layout.port('epmd'))


def _rabbitmq(layout):
    folder = layout.data / 'rabbitmq'
    return Service(
        name='rabbitmq',
        command=tuple(chroot.command_line(
            layout.services_root, ['/usr/lib/rabbitmq/bin/rabbitmq-server'],
            binds=(folder, layout.etc / 'rabbitmq'),
            environment={
                # The cookie is made there, by Erlang, at the first start.
                'HOME': folder,
                'ERL_EPMD_ADDRESS': '127.0.0.1',
                'ERL_EPMD_PORT': layout.port('epmd'),
                'RABBITMQ_NODENAME': 'lab@localhost',
                'RABBITMQ_DIST_PORT': layout.port('rabbitmq-distribution'),
                'RABBITMQ_CONFIG_FILE':
                    layout.etc / 'rabbitmq' / 'rabbitmq.conf',
                'RABBITMQ_ENABLED_PLUGINS_FILE': folder / 'enabled_plugins',
                'RABBITMQ_MNESIA_BASE': folder / 'mnesia',
                'RABBITMQ_LOG_BASE': folder / 'log',
                'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS':
                    '-kernel inet_dist_use_interface {127,0,0,1}',
            })),
        probe=lambda since: probes.broker(layout),
        needs=('epmd',),
        port=layout.port('rabbitmq'),
        stop_seconds=20)


def _nova(layout, name, queue):
    folder = layout.etc / 'nova'
    return Service(
        name=name,
        command=(layout.bin(name), '--config-file', folder / 'nova.conf',
                 '--config-file', folder / 'nova-db.conf'),
        probe=lambda since: probes.consumer(layout, queue),
        # Both ask placement when they start, and give it up for good when
        # the catalog does not have it.
        needs=('databases', 'rabbitmq', 'catalog', 'placement'),
        environment=_python_environment(layout),
        stop_seconds=10)


def _platform(host):
    layout = host.layout
    return Service(
        name=host.service('platform'),
        command=(sys.executable, _HERE / 'compute_root.py', 'platform',
                 '--root', layout.compute_root, '--run', host.run,
                 '--keys', layout.emulator, '--chip', host.chip),
        probe=lambda since: probes.platform(host))


def _libvirtd(host):
    layout = host.layout
    return Service(
        name=host.service('libvirtd'),
        command=(sys.executable, _HERE / 'compute_root.py', 'libvirtd',
                 '--root', layout.compute_root, '--run', host.run,
                 '--state', host.state, '--log', host.log,
                 '--host-uuid', host.uuid, '--host-name', host.name,
                 '--bind', layout.nova),
        probe=lambda since: probes.hypervisor(host),
        needs=(host.service('platform'),))


def _nova_compute(host):
    layout = host.layout
    return Service(
        name=host.service('nova-compute'),
        command=tuple(kvm_amd.command_line(
            [layout.bin('nova-compute'),
             '--config-file', layout.etc / 'nova' / 'nova.conf',
             '--config-file', host.configuration], sev_es=True)),
        probe=lambda since: probes.compute(host, since),
        needs=(host.service('libvirtd'), 'nova-conductor', 'nova-api',
               'placement', 'neutron', 'glance',
               'attestation-accounts'),
        environment=_python_environment(layout) | {
            'PATH': f'{layout.tools}:{layout.venv}/bin:{_PATH}'},
        stop_seconds=15)
