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

from nova.compute import provider_tree
from oslo_utils import uuidutils
import pytest

from nova_sev_attest.virt import traits

KNOWN = ('amd-sev', 'amd-sev-es')


@pytest.fixture
def tree():
    made = provider_tree.ProviderTree()
    made.new_root('node', uuidutils.generate_uuid())
    made.add_traits('node', 'HW_CPU_X86_AMD_SEV', 'CUSTOM_OPERATORS')
    return made


def shown(tree):
    return sorted(tree.data('node').traits)


@pytest.mark.parametrize('attested, expected', [
    ((), []),
    (('amd-sev',), ['CUSTOM_SEV_ATTEST', 'CUSTOM_SEV_ATTEST_AMD_SEV']),
    (KNOWN, ['CUSTOM_SEV_ATTEST', 'CUSTOM_SEV_ATTEST_AMD_SEV',
             'CUSTOM_SEV_ATTEST_AMD_SEV_ES'])])
def test_what_is_attested(tree, attested, expected):
    traits.update(tree, 'node', attested, KNOWN)
    assert shown(tree) == sorted(
        ['HW_CPU_X86_AMD_SEV', 'CUSTOM_OPERATORS', *expected])


def test_what_is_no_more_is_taken_away(tree):
    traits.update(tree, 'node', KNOWN, KNOWN)
    traits.update(tree, 'node', ['amd-sev'], KNOWN)
    assert 'CUSTOM_SEV_ATTEST_AMD_SEV_ES' not in shown(tree)
    traits.update(tree, 'node', [], KNOWN)
    assert shown(tree) == ['CUSTOM_OPERATORS', 'HW_CPU_X86_AMD_SEV']
