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

"""A compute host of the lab that is configured otherwise for a while."""

import configparser
import contextlib
import time

from devstack.lab import credentials
from devstack.lab import services
from devstack.lab import supervision


@contextlib.contextmanager
def configured(host, changes):
    """Run a host's nova-compute with other options.

    It is restarted at both ends; its servers run on.

    :param host: :class:`devstack.lab.layout.ComputeHost`.
    :param changes: {group: {option: value, as text}}.
    """
    original = host.configuration.read_text()
    config = configparser.RawConfigParser(strict=False)
    config.read_string(original)
    config.read_dict(changes)
    try:
        with host.configuration.open('w') as out:
            config.write(out)
        restart(host)
        yield
    finally:
        credentials.write_private(host.configuration, original)
        restart(host)


def restart(host, seconds=120):
    """Restart a host's nova-compute and wait until it is ready."""
    name = host.service('nova-compute')
    supervision.stop_service(host.layout, name)
    since = time.time()
    supervision.start_service(host.layout, name)
    probe = services.table(host.layout)[name].probe
    deadline = time.monotonic() + seconds
    while (missing := probe(since)) is not None:
        assert time.monotonic() < deadline, f'{name}: {missing}'
        time.sleep(0.3)
