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

"""The commands of two pages, in a lab that is up."""

import os
import re
import subprocess

from devstack.lab import layout as lab_layout
from devstack.lab import owner as lab_owner
from tests import documented

PAGE = 'doc/source/lab.rst'
# One would end the lab of the other tests, the other a compute host.
_LEFT_OUT = (
    'tools/lab down', 'tools/lab reset', 'tools/lab stop nova-compute',
    'openstack compute service set', 'openstack server evacuate',
    'LAB_TRANSPORT=')


def _run(layout, commands):
    environment = os.environ | {
        'PATH': f'{layout.bin("python").parent}:{os.environ["PATH"]}'}
    subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', '\n'.join(commands).replace(
            '.lab/', f'{layout.lab_dir}/')],
        cwd=lab_layout.CHECKOUT, env=environment, check=True, timeout=300)


def test_the_page_of_the_lab(layout):
    found = [command.text for command in documented.commands()
             if command.page == PAGE
             and not command.text.startswith(_LEFT_OUT)]
    assert len(found) >= 6
    try:
        _run(layout, found)
    finally:
        subprocess.run(['tools/lab', 'start', 'attestation'],
                       cwd=lab_layout.CHECKOUT, check=True, timeout=300)


def test_a_flavor_can_demand_a_host_that_attests(
        layout, owner, make_policy, boot):
    command, = (command.text for command in documented.commands()
                if command.page == 'doc/source/operator/compute.rst')
    demands = re.findall(r'--property (\S+)=required', command)
    assert len(demands) == 2
    as_admin = 'source .lab/openrc admin'
    _run(layout, [as_admin, command])
    try:
        server = boot(make_policy())
    finally:
        _run(layout, [as_admin, f'openstack flavor unset {lab_owner.FLAVOR} '
                      + ' '.join(f'--property {name}' for name in demands)])
    assert owner.wait(server, 'ACTIVE').status == 'ACTIVE'
