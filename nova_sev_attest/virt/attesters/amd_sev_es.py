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

"""AMD SEV-ES through libvirt.

For the host the same as SEV, but that the guest's registers are encrypted,
too, and the initial ones measured (AMD, "Secure Encrypted Virtualization
API", chapter 6, LAUNCH_UPDATE_VMSA); libvirt tells them apart by the policy's
bit ES.
"""

from nova_sev_attest.virt.attesters import amd_sev


class AmdSevEsAttester(amd_sev.AmdSevAttester):
    """SEV with encrypted registers: policy bit ES set."""

    wants_es = True

    def is_offered_by(self, host):
        return host.supports_amd_sev_es
