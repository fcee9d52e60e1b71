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

"""Compute hosts that reach RabbitMQ and no key service over HTTP.

    LAB_TRANSPORT=rpc python -m pytest -m by_command tests/lab/test_rpc.py

The key service's HTTP side is down while servers boot; owners have it before
and afterwards.
"""

import pytest

from tests.lab import meddler

pytestmark = pytest.mark.by_command


@pytest.fixture(autouse=True)
def over_rpc(layout):
    if layout.transport != 'rpc':
        pytest.fail('the lab is not one with LAB_TRANSPORT=rpc')


def test_server_boots_attested(layout, owner, host, guest, make_policy, boot):
    policy = make_policy()
    with meddler.stopped(layout):
        server = boot(policy)
        assert owner.wait(server, 'ACTIVE').status == 'ACTIVE'
        printed = owner.wait_for_console(server, 'marker-sha256: ')
    assert f'marker-sha256: {guest.marker_sha256}' in printed.splitlines()
    launch, = owner.launches(server)
    assert launch['status'] == 'running'
    seen, = host.launches(server)
    assert seen['instructions_run'] and seen['secrets']
    assert seen['digest'] == launch['verdict']['launch_digest']


def test_tampered_server_never_runs(
        layout, owner, make_policy, boot, tampered, assert_refused):
    policy = make_policy()
    with meddler.stopped(layout):
        server = boot(policy, tampered)
        # As over HTTP, and as helpful.
        assert_refused(server, 'initrd.*policy')
    launch, = owner.launches(server)
    assert launch['status'] == 'denied'
    assert launch['reason']['code'] == 'attestation.initrd_not_allowed'


def test_no_host_falls_back_to_http(layout, make_policy, boot,
                                    assert_refused):
    policy = make_policy()
    with meddler.stopped(layout, 'attestation-rpc'):
        assert_refused(boot(policy), 'key service')
