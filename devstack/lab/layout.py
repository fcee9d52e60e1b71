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
# The name under which nova-compute, libvirt and placement know the host.
COMPUTE_HOST = 'compute1'


@dataclasses.dataclass(frozen=True)
class Layout:
    """The places of one lab; several may live on one machine.

    :ivar lab_dir: everything that the lab writes, except sockets.
    :ivar venv: the Python environment that the services run from.
    :ivar port_base: the first of the loopback ports.
    """

    lab_dir: pathlib.Path
    venv: pathlib.Path
    port_base: int

    @classmethod
    def from_environment(cls, environment=None):
        """Read LAB_DIR, LAB_VENV and LAB_PORT_BASE.

        :raises ValueError: when LAB_PORT_BASE is not a usable port number.
        """
        environment = os.environ if environment is None else environment
        text = environment.get('LAB_PORT_BASE') or str(DEFAULT_PORT_BASE)
        highest = 65535 - max(PORTS.values())
        if not text.isdecimal() or not 1024 <= int(text) <= highest:
            raise ValueError(f'LAB_PORT_BASE must be a number from 1024 to '
                             f'{highest}, not {text!r}')
        return cls(
            lab_dir=pathlib.Path(environment.get('LAB_DIR')
                                 or CHECKOUT / '.lab').absolute(),
            venv=pathlib.Path(environment.get('LAB_VENV')
                              or CHECKOUT / '.venv').absolute(),
            port_base=int(text))

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
    def tools(self):
        """Programs that nova-compute needs and the machine may not have."""
        return self.etc / 'bin'

    @property
    def nova(self):
        """What Nova and QEMU share: instances and their images."""
        return self.data / 'nova'

    @property
    def compute_run(self):
        """Sockets of the compute host's libvirt and emulated platform."""
        return self.run_dir / COMPUTE_HOST

    @property
    def platform_socket(self):
        """Where the compute host's emulated platform listens."""
        return self.compute_run / 'sev' / 'platform.sock'

    @property
    def libvirt_uri(self):
        socket = self.compute_run / 'libvirt' / 'libvirt-sock'
        return f'qemu+unix:///system?socket={socket}'

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
