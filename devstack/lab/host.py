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

"""What is really on the compute host, seen past Nova's reports."""

import pathlib
import re

import libvirt

from devstack.lab import compute_root


class Host:
    """The lab's compute hosts together, as their administrator sees them.

    :param layout: the lab (:class:`devstack.lab.layout.Layout`).
    """

    def __init__(self, layout):
        self._layout = layout

    def domains(self):
        """UUIDs of all of libvirt's domains, running or not."""
        found = set()
        for host in self._layout.computes:
            connection = libvirt.openReadOnly(host.libvirt_uri)
            try:
                found |= {domain.UUIDString()
                          for domain in connection.listAllDomains()}
            finally:
                connection.close()
        return found

    def processes(self, server):
        """Command lines of a server's hypervisor processes."""
        found = []
        for entry in pathlib.Path('/proc').glob('[0-9]*'):
            try:
                line = (entry / 'cmdline').read_bytes()
            except OSError:
                continue
            if server.encode() in line and b'qemu-system' in line:
                found.append(line.replace(b'\0', b' ').decode())
        return found

    def files(self, server):
        """Files of a server: its folder, its memory, its console."""
        folders = (self._layout.nova / 'instances',
                   *(host.run for host in self._layout.computes))
        return sorted(path for folder in folders
                      for path in folder.rglob(f'*{server}*'))

    def leftovers(self, server):
        """Whatever of a server is on the host, by kind."""
        return {
            'domain': [uuid for uuid in self.domains() if uuid == server],
            'process': self.processes(server),
            'file': [str(path) for path in self.files(server)],
        }

    def launches(self, server):
        """What the emulated platforms saw of a server, oldest first."""
        seen = [launch for host in self._layout.computes
                for launch in compute_root.status(host.run)['launches']
                if launch['uuid'] == server]
        return sorted(seen, key=lambda launch: launch['events'][0]['at'])

    def payload_reads(self, secret):
        """How often a secret's payload was asked of Barbican.

        Counted in Barbican's access log, whoever asked.
        """
        asked = re.compile(
            rf'"GET /v1/secrets/{re.escape(secret)}/payload[ ?]')
        return sum(len(asked.findall(path.read_text(errors='replace')))
                   for path in self._layout.log.glob('barbican*'))
