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

"""Where everything of a lab is: folders, ports, addresses."""

import dataclasses
import hashlib
import os
import pathlib
import uuid

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]

# Offsets from the base port, one for each server.
PORTS = {
    'keystone': 0,
    'placement': 1,
    'nova-api': 2,
    'glance': 3,
    'neutron': 4,
    'barbican': 5,
    'attestation': 6,
    'mariadb': 7,
    'rabbitmq': 8,
    'epmd': 9,
    'rabbitmq-distribution': 10,
}
DEFAULT_PORT_BASE = 25000
DEFAULT_COMPUTES = 2
_MOST_COMPUTES = 9
# How compute hosts reach the key service.
TRANSPORTS = ('http', 'rpc')


@dataclasses.dataclass(frozen=True)
class Layout:
    """The places of one lab; several may live on one machine.

    :ivar lab_dir: everything that the lab writes, except sockets.
    :ivar venv: the Python environment that the services run from.
    :ivar port_base: the first of the loopback ports.
    :ivar compute_count: how many compute hosts it has.
    :ivar transport: by which they reach the key service, of TRANSPORTS.
    """

    lab_dir: pathlib.Path
    venv: pathlib.Path
    port_base: int
    compute_count: int = DEFAULT_COMPUTES
    transport: str = TRANSPORTS[0]

    @classmethod
    def from_environment(cls, environment=None):
        """Read LAB_DIR, LAB_VENV, LAB_PORT_BASE, LAB_COMPUTES, LAB_TRANSPORT.

        :raises ValueError: when LAB_PORT_BASE is not a usable port number,
            LAB_COMPUTES not a number of hosts, or LAB_TRANSPORT none of
            TRANSPORTS.
        """
        environment = os.environ if environment is None else environment
        transport = environment.get('LAB_TRANSPORT') or TRANSPORTS[0]
        if transport not in TRANSPORTS:
            raise ValueError(f'LAB_TRANSPORT must be one of '
                             f'{", ".join(TRANSPORTS)}, not {transport!r}')
        return cls(
            lab_dir=pathlib.Path(environment.get('LAB_DIR')
                                 or CHECKOUT / '.lab').absolute(),
            venv=pathlib.Path(environment.get('LAB_VENV')
                              or CHECKOUT / '.venv').absolute(),
            port_base=_number(environment, 'LAB_PORT_BASE',
                              DEFAULT_PORT_BASE, 1024,
                              65535 - max(PORTS.values())),
            compute_count=_number(environment, 'LAB_COMPUTES',
                                  DEFAULT_COMPUTES, 1, _MOST_COMPUTES),
            transport=transport)

    @property
    def run_dir(self):
        """Folder of the sockets, whose paths may have only 107 bytes."""
        digest = hashlib.sha256(str(self.lab_dir).encode()).hexdigest()
        return pathlib.Path(f'/run/nova-sev-attest-lab-{digest[:8]}')

    @property
    def cache(self):
        """Downloads and other things that a reset keeps."""
        return self.lab_dir / 'cache'

    @property
    def services_root(self):
        return self.lab_dir / 'roots' / 'services'

    @property
    def compute_root(self):
        return self.lab_dir / 'roots' / 'compute'

    @property
    def log(self):
        return self.lab_dir / 'log'

    @property
    def etc(self):
        return self.lab_dir / 'etc'

    @property
    def data(self):
        return self.lab_dir / 'data'

    @property
    def emulator(self):
        """Keys of the emulated platform, and its published root."""
        return self.lab_dir / 'emulator'

    @property
    def emulated_root(self):
        """The emulated platform's own ASK and ARK, for the key service."""
        return self.emulator / 'ask_ark.cert'

    @property
    def sealing_keys(self):
        """The key service's keys, which stay outside of its database."""
        return self.data / 'attestation' / 'sealing-keys'

    @property
    def audit_keys(self):
        """The keys that sign its audit."""
        return self.data / 'attestation' / 'audit-keys'

    @property
    def tools(self):
        """Programs that nova-compute needs and the machine may not have."""
        return self.etc / 'bin'

    @property
    def nova(self):
        """What hosts, Nova and QEMU share: instances and their images."""
        return self.data / 'nova'

    @property
    def computes(self):
        """The compute hosts."""
        return tuple(ComputeHost(self, number)
                     for number in range(1, self.compute_count + 1))

    @property
    def supervisor_socket(self):
        return self.run_dir / 'supervisor.sock'

    @property
    def clouds(self):
        """Credentials of every user, in the form the OpenStack SDK reads."""
        return self.lab_dir / 'clouds.yaml'

    @property
    def openrc(self):
        return self.lab_dir / 'openrc'

    def port(self, server):
        return self.port_base + PORTS[server]

    def url(self, server):
        return f'http://127.0.0.1:{self.port(server)}'

    def bin(self, name):
        """A console script of the Python environment."""
        return self.venv / 'bin' / name


@dataclasses.dataclass(frozen=True)
class ComputeHost:
    """The places of one compute host: all that two of them do not share.

    :ivar number: 1 for the first.
    """

    layout: Layout
    number: int

    @property
    def name(self):
        """What Nova, libvirt and placement know it by."""
        return f'compute{self.number}'

    @property
    def user(self):
        """The user as which its driver asks the key service."""
        return f'nova-sev-attest-{self.name}'

    def service(self, kind):
        """The name of one of its services, such as nova-compute."""
        return kind if self.number == 1 else f'{kind}-{self.number}'

    @property
    def uuid(self):
        """As libvirt knows it: the machine's own may be in use."""
        return uuid.uuid5(uuid.NAMESPACE_URL,
                          f'{self.layout.lab_dir}/{self.name}')

    @property
    def chip(self):
        """Its emulated processor, under the root that all share."""
        return f'chip{self.number - 1}'

    @property
    def run(self):
        """Sockets of its libvirt and its emulated platform."""
        return self.layout.run_dir / self.name

    @property
    def platform_socket(self):
        """Where its emulated platform listens."""
        return self.run / 'sev' / 'platform.sock'

    @property
    def libvirt_uri(self):
        socket = self.run / 'libvirt' / 'libvirt-sock'
        return f'qemu+unix:///system?socket={socket}'

    @property
    def state(self):
        """What its libvirt remembers, and its nova-compute."""
        return self.layout.data / self.name

    @property
    def log(self):
        """Logs of libvirt and of its guests' hypervisors."""
        return self.layout.log / self.name

    @property
    def configuration(self):
        """What is its nova-compute's alone; nova.conf comes before."""
        return (self.layout.etc / 'nova' /
                f'{self.service("nova-compute")}.conf')


def _number(environment, name, default, lowest, highest):
    text = environment.get(name) or str(default)
    if not text.isdecimal() or not lowest <= int(text) <= highest:
        raise ValueError(f'{name} must be a number from {lowest} to '
                         f'{highest}, not {text!r}')
    return int(text)
