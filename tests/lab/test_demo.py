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

"""The two servers of the demo, and the boots that follow a first one."""

import pytest

from devstack.lab import demo
from devstack.lab import owner as lab_owner


def test_the_demo_holds(layout, tmp_path):
    run = demo.Demo(layout)
    with lab_owner.Owner(layout) as owner:
        run.run(owner, tmp_path)
    assert demo.shortcomings(run.result) == []


@pytest.fixture
def server(owner, boot, make_policy):
    """An attested server that is up."""
    found = boot(make_policy())
    assert owner.wait(found, 'ACTIVE').status == 'ACTIVE'
    return found


def test_every_boot_is_a_launch_of_its_own(owner, host, guest, server):
    compute = owner.cloud.compute

    def stop_and_start():
        compute.stop_server(server)
        owner.wait(server, 'SHUTOFF')
        assert host.processes(server) == []
        compute.start_server(server)

    boots = [
        stop_and_start,
        lambda: compute.reboot_server(server, 'HARD'),
        # Nova's own would start the guest again without attestation.
        lambda: compute.reboot_server(server, 'SOFT'),
    ]
    seen = {launch['id'] for launch in owner.launches(server)}
    assert len(seen) == 1
    for number, boot_again in enumerate(boots, start=2):
        boot_again()
        assert owner.wait(server, 'ACTIVE').status == 'ACTIVE'
        *earlier, last = owner.launches(server)
        assert len(earlier) == number - 1
        assert {launch['id'] for launch in earlier} == seen
        assert last['status'] == 'running'
        seen.add(last['id'])
    assert len(host.launches(server)) == len(seen)
    assert f'marker-sha256: {guest.marker_sha256}' in owner.wait_for_console(
        server, 'marker-sha256: ')


def test_a_deleted_server_leaves_nothing(owner, host, server):
    owner.delete_server(server)
    assert host.leftovers(server) == {'domain': [], 'process': [], 'file': []}
