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

"""The openstack application, as much of it as a command uses."""

import io
import types

from tests.unit.client import fakes

URL = fakes.URL


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


class Compute:
    """Servers by name, as openstacksdk finds them."""

    def __init__(self, servers):
        self._servers = servers

    def find_server(self, name, ignore_missing=True):
        if name in self._servers:
            return types.SimpleNamespace(id=self._servers[name], name=name)
        return None

    def servers(self):
        return [types.SimpleNamespace(name=name) for name in self._servers]


class App:
    """:ivar stdout: what commands write to"""

    NAME = 'openstack'

    def __init__(self, stdout=None, servers=None):
        self.stdout = io.StringIO() if stdout is None else stdout
        self.client_manager = types.SimpleNamespace(
            attestation=fakes.make_client(max_retries=0),
            compute=Compute(servers or {}))
        self.command_manager = types.SimpleNamespace(namespace='')
        self.options = types.SimpleNamespace(verbose_level=1)

    def run(self, kind, *argv):
        """Run a command; returns its status."""
        command = kind(self, None)
        return command.run(command.get_parser('openstack x').parse_args(
            [str(word) for word in argv]))
