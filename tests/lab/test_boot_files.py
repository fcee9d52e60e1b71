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

"""A kernel that a compute host has in part only is the host's fault."""

import hashlib


def test_it_is_fetched_again(layout, owner, host, guest, make_policy, boot):
    images = owner.upload_guest('fetched', guest)
    # Nova's name for it. A nova-compute that died over it leaves such.
    cached = (layout.data / 'nova' / 'instances' / '_base' /
              hashlib.sha1(images.kernel.encode(),
                           usedforsecurity=False).hexdigest())
    kernel = guest.kernel.read_bytes()
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(kernel[:len(kernel) // 2])

    server = boot(make_policy(), images)
    assert owner.wait(server, 'ACTIVE').status == 'ACTIVE'
    denied, running = owner.launches(server)
    assert denied['reason']['code'] == 'attestation.kernel_not_allowed'
    assert running['status'] == 'running'
    assert denied['host'] != running['host']
    assert [bool(launch['instructions_run']) for launch
            in host.launches(server)] == [False, True]
    assert cached.read_bytes() == kernel
