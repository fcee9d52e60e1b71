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

"""What Nova's placement is told: which hosts attest.

A flavor asks for such a host with ``trait:CUSTOM_SEV_ATTEST=required``, or
for one technology with ``trait:CUSTOM_SEV_ATTEST_AMD_SEV_ES=required``.
"""

ATTESTS = 'CUSTOM_SEV_ATTEST'


def of(technology):
    """The trait of one technology, 'amd-sev' and so on."""
    return f'{ATTESTS}_{technology.upper().replace("-", "_")}'


def update(provider_tree, node, attested, known):
    """Put a compute node's traits right.

    :param provider_tree: nova.compute.provider_tree.ProviderTree
    :param attested: technologies that this host launches and attests
    :param known: technologies that have an attester
    """
    wanted = {of(technology) for technology in attested}
    if wanted:
        wanted.add(ATTESTS)
    ours = {ATTESTS} | {of(technology) for technology in known}
    provider_tree.add_traits(node, *sorted(wanted))
    provider_tree.remove_traits(node, *sorted(ours - wanted))
