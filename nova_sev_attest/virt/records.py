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

"""Launches under way, on disk, for the next nova-compute.

nova-compute may die at any moment. What it was doing is then in this folder:
one file for each server, with the id and the token of its launch, readable by
nova-compute alone. The token proves to the key service, beside the host's
credential, that a report on the launch comes from who opened it; it opens
nothing else.
"""

import dataclasses
import json
import os
import urllib.parse

from oslo_log import log as logging
from oslo_utils import uuidutils

from nova_sev_attest.client import launches

LOG = logging.getLogger(__name__)

_SUFFIX = '.json'
_MAX_SIZE = 4096


@dataclasses.dataclass(frozen=True)
class Record:
    """:ivar identity: LaunchIdentity"""

    server_id: str
    identity: launches.LaunchIdentity


class LaunchRecords:
    """The folder.

    :param state_path: where nova-compute keeps what outlives it
    :param host: this compute host's name; hosts may share the state path
    """

    def __init__(self, state_path, host):
        self._folder = os.path.join(state_path, 'sev_attest',
                                    urllib.parse.quote(host, safe=''))

    def _path(self, server_id):
        return os.path.join(self._folder, f'{server_id}{_SUFFIX}')

    def open(self, server_id, identity):
        """Note that a launch of a server begins, in the place of the last.

        :raises OSError: it cannot be written
        """
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        path = self._path(server_id)
        made = f'{path}.new'
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
                             0o600)
        with open(descriptor, 'w', encoding='ascii') as file:
            json.dump({'launch': identity.id, 'token': identity.token}, file)
        os.replace(made, path)

    def close(self, server_id, launch_id):
        """Note that a launch is over; a later one of the server stays."""
        try:
            record = self._read(server_id)
            if record is None or record.identity.id == launch_id:
                os.unlink(self._path(server_id))
        except FileNotFoundError:
            return
        except OSError as error:
            LOG.warning('The record of launch %(launch)s stays: %(error)s',
                        {'launch': launch_id, 'error': error})

    def left(self):
        """The Records of all launches that were not closed."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []
        records = []
        for name in names:
            server_id = name.removesuffix(_SUFFIX)
            if server_id == name or not uuidutils.is_uuid_like(server_id):
                continue
            try:
                record = self._read(server_id)
            except OSError as error:
                LOG.warning('The record of a launch of server %(server)s '
                            'cannot be read: %(error)s',
                            {'server': server_id, 'error': error})
                continue
            if record is not None:
                records.append(record)
        return records

    def _read(self, server_id):
        """The Record of a server, None for a file that holds none.

        :raises OSError: there is no file, or it cannot be read
        """
        with open(self._path(server_id), encoding='ascii',
                  errors='replace') as file:
            text = file.read(_MAX_SIZE)
        try:
            document = json.loads(text)
            identity = launches.LaunchIdentity(
                str(document['launch']), str(document['token']))
        except (ValueError, TypeError, KeyError):
            LOG.warning('The record of a launch of server %s is damaged.',
                        server_id)
            return None
        return Record(server_id, identity)
