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

"""The registers that a vCPU of an SEV-ES guest starts with.

A host with SEV-ES hands the secure processor one page for each vCPU, the
VMCB's state save area (AMD64 Architecture Programmer's Manual, volume 2,
appendix B, table B-4), little-endian. Its values are those of a processor
after reset (volume 2, section 14.1.3), as QEMU and KVM set them before the
first entry. This is a host with KVM's first SEV-ES interface, KVM_SEV_ES_INIT,
under which the control words of the FPU (MXCSR, FCW) are left zero.
"""

import struct

SIZE = 4096
#: The first instruction of the boot processor.
RESET_VECTOR = 0xfffffff0

# Selector, attributes, limit, base.
_SEGMENT = '<HHIQ'
_LIMIT = 0xffff
_READ_WRITE, _EXECUTE_READ, _LDT, _BUSY_TSS = 0x93, 0x9b, 0x82, 0x8b
_RESET_CS = 0xf000


def save_area(start, signature):
    """The page of one vCPU.

    :param start: address of its first instruction, 32 bits: CS begins at
        the 64 KiB below it.
    :param signature: CPUID function 1 EAX of its model, 32 bits, which RDX
        holds after reset.
    :returns: 4096 bytes.
    """
    page = bytearray(SIZE)

    def segment(offset, attributes, selector=0, base=0):
        struct.pack_into(_SEGMENT, page, offset, selector, attributes,
                         _LIMIT, base)

    def register(offset, value):
        struct.pack_into('<Q', page, offset, value)

    segment(0x000, _READ_WRITE)                             # ES
    segment(0x010, _EXECUTE_READ, _RESET_CS, start & ~0xffff)
    segment(0x020, _READ_WRITE)                             # SS
    segment(0x030, _READ_WRITE)                             # DS
    segment(0x040, _READ_WRITE)                             # FS
    segment(0x050, _READ_WRITE)                             # GS
    segment(0x060, 0)                                       # GDTR
    segment(0x070, _LDT)                                    # LDTR
    segment(0x080, 0)                                       # IDTR
    segment(0x090, _BUSY_TSS)                               # TR
    register(0x0d0, 1 << 12)                # EFER: SVME, the host's
    register(0x148, 1 << 6)                 # CR4: MCE, the host's
    register(0x158, 1 << 4)                 # CR0: ET
    register(0x160, 0x400)                  # DR7
    register(0x168, 0xffff0ff0)             # DR6
    register(0x170, 1 << 1)                 # RFLAGS: the bit that is one
    register(0x178, start & 0xffff)         # RIP
    register(0x268, 0x0007040600070406)     # PAT
    register(0x310, signature)              # RDX
    register(0x3e8, 1)                      # XCR0: x87
    return bytes(page)
