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

"""The launch digest of SEV and SEV-ES: what the platform hashes.

SHA-256 over the memory that the host asked to be encrypted, in this order:
the firmware, the padded table of kernel hashes if there is one and, for
SEV-ES, each vCPU's initial save area. Guest addresses are not part of it.
AMD SEV API specification (publication 55766), LAUNCH_UPDATE_DATA and
LAUNCH_UPDATE_VMSA. The HMAC over it is the *measurement*: see
:mod:`nova_sev_attest.launch.measurement`.
"""

from nova_sev_attest.launch import errors
from nova_sev_attest.launch import vmsa

DIGEST_SIZE = 32


def launch_digest(firmware, hashes=None, vmsas=()):
    """Compute a launch digest.

    :param firmware: a Firmware.
    :param hashes: KernelHashes of a directly booted kernel, or None.
    :param vmsas: for SEV-ES, one page of 4096 bytes for each vCPU, the boot
        processor's first (see :func:`vmsa.save_areas`); for SEV, empty.
    :returns: 32 bytes.
    :raises FirmwareUnusable: kernel hashes for firmware that has no place
        for them.
    :raises VmsaMalformed: a save area of another size, or too many.
    """
    if len(vmsas) > vmsa.MAX_VCPUS:
        raise errors.VmsaMalformed(
            f'{len(vmsas)} vCPUs, expected at most {vmsa.MAX_VCPUS}')
    hasher = firmware.hasher()
    if hashes is not None:
        firmware.require_hash_table()
        hasher.update(hashes.table())
    for page in vmsas:
        if len(page) != vmsa.SIZE:
            raise errors.VmsaMalformed(
                f"a vCPU's save area has {vmsa.SIZE} bytes, got {len(page)}")
        hasher.update(page)
    return hasher.digest()
