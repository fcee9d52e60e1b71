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

"""What Nova loads for ``compute_driver = sev_attest.LibvirtDriver``.

Nova resolves compute drivers below ``nova.virt`` only, so this package sits
beside Nova's own and hands over to ours. It has no siblings' ``__init__``
files: installing and removing it leaves Nova's files alone.
"""

from nova_sev_attest.virt.driver import LibvirtDriver

__all__ = ['LibvirtDriver']
