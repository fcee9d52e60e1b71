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

"""A daemon with the platform of the published sessions."""

import threading

from cryptography.hazmat.primitives.asymmetric import ec
import pytest

from nova_sev_attest.emulator import channel
from nova_sev_attest.emulator import daemon
from nova_sev_attest.emulator import platform
from tests import vectors

_FOLDER = 'session-ecdh/v1-policy-3b'


class Published:
    """The first published launch."""

    policy = 0x3b

    @staticmethod
    def read(name):
        return vectors.read(f'{_FOLDER}/{name}')

    @staticmethod
    def told(name):
        return vectors.expected('session-ecdh/EXPECTED.json')['vectors'][0][
            name]


@pytest.fixture
def published():
    return Published()


@pytest.fixture
def server(tmp_path, published):
    key = ec.derive_private_key(
        int(published.told('pdh_private_scalar_hex'), 16), ec.SECP384R1())
    identity = platform.Platform(
        pdh=published.read('pdh.cert'), cert_chain=b'chain' * 3,
        chip_id=bytes(64), key=key)
    with daemon.Daemon(tmp_path / 'platform.sock', identity) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture
def connect(server):
    """Connect to the daemon; closed at the end."""
    opened = []

    def to_daemon():
        opened.append(channel.Channel(server.server_address))
        return opened[-1]

    yield to_daemon
    for one in opened:
        one.close()
