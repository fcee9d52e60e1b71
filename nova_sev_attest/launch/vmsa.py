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

"""The initial save areas (VMSA) of a SEV-ES guest's vCPUs.

A save area is one page of 4096 bytes with a vCPU's registers, and each one is
measured. Layout: AMD64 Architecture Programmer's Manual volume 2 (publication
24593), appendix B, "Layout of VMCB"; values: the reset state that QEMU and KVM
give a vCPU (QEMU ``target/i386/cpu.c``, ``x86_cpu_reset_hold``).

What KVM puts there differs with the interface that QEMU starts the guest by,
hence :class:`Profile`: which one a host uses is an input, not a constant.
"""

import dataclasses
import struct

from nova_sev_attest.launch import errors

SIZE = 4096
#: Where the boot processor starts.
RESET_EIP = 0xfffffff0
#: More vCPUs than any SEV-ES guest can have.
MAX_VCPUS = 4096

_SEGMENT = struct.Struct('<HHIQ')  # selector, attributes, limit, base
_DATA_SEGMENT = (0, 0x93, 0xffff, 0)

#: Offset -> selector, attributes, limit, base. CS depends on the vCPU.
_SEGMENTS = {
    0x00: _DATA_SEGMENT,             # ES
    0x20: _DATA_SEGMENT,             # SS
    0x30: _DATA_SEGMENT,             # DS
    0x40: _DATA_SEGMENT,             # FS
    0x50: _DATA_SEGMENT,             # GS
    0x60: (0, 0, 0xffff, 0),         # GDTR
    0x70: (0, 0x82, 0xffff, 0),      # LDTR
    0x80: (0, 0, 0xffff, 0),         # IDTR
    0x90: (0, 0x8b, 0xffff, 0),      # TR
}

#: Offset -> 8 bytes that are the same in every vCPU.
_REGISTERS = {
    0x0d0: 0x1000,                   # EFER: SVME
    0x148: 0x40,                     # CR4: MCE
    0x158: 0x10,                     # CR0: ET
    0x160: 0x400,                    # DR7
    0x168: 0xffff0ff0,               # DR6
    0x170: 0x2,                      # RFLAGS
    0x268: 0x0007040600070406,       # G_PAT
    0x3e8: 0x1,                      # XCR0
}

_CS, _RIP, _RDX = 0x10, 0x178, 0x310
_SEV_FEATURES, _MXCSR, _FCW = 0x3b0, 0x408, 0x410


@dataclasses.dataclass(frozen=True)
class Profile:
    """What of a save area depends on the host's software.

    :ivar name: stable name; another content gets another name.
    :ivar mxcsr: u32.
    :ivar fcw: x87 control word, u16.
    :ivar sev_features: SEV_FEATURES, u64: what the guest is launched with
        besides encryption.
    """

    name: str
    mxcsr: int
    fcw: int
    sev_features: int = 0


_DEBUG_SWAP = 1 << 5  # the guest has debug registers of its own

#: KVM_SEV_ES_INIT: KVM left the FPU's control words out.
LEGACY = Profile('qemu-legacy-1', mxcsr=0, fcw=0)
#: KVM_SEV_INIT2: KVM puts them in.
INIT2 = Profile('qemu-init2-1', mxcsr=0x1f80, fcw=0x37f)
#: The same with DebugSwap, which some releases of KVM before KVM_SEV_INIT2
#: turned on by themselves (kvm_amd's ``debug_swap``), and QEMU can ask for
#: since.
LEGACY_DEBUG_SWAP = dataclasses.replace(
    LEGACY, name='qemu-legacy-debug-swap-1', sev_features=_DEBUG_SWAP)
INIT2_DEBUG_SWAP = dataclasses.replace(
    INIT2, name='qemu-init2-debug-swap-1', sev_features=_DEBUG_SWAP)

PROFILES = {profile.name: profile for profile in (
    LEGACY, INIT2, LEGACY_DEBUG_SWAP, INIT2_DEBUG_SWAP)}


def cpu_signature(family, model, stepping):
    """CPUID leaf 1 EAX of a CPU, which a vCPU's RDX starts with.

    :param family: 0 to 270, such as 25 for Milan.
    :param model: 0 to 255.
    :param stepping: 0 to 15.
    :raises VmsaMalformed: a number out of range.
    """
    if not (0 <= family <= 0xf + 0xff and 0 <= model <= 0xff and
            0 <= stepping <= 0xf):
        raise errors.VmsaMalformed(
            f'CPU family {family}, model {model}, stepping {stepping}: '
            f'expected at most 270, 255 and 15')
    base = min(family, 0xf)
    return ((family - base) << 20 | (model >> 4) << 16 | base << 8 |
            (model & 0xf) << 4 | stepping)


def save_areas(profile, vcpus, signature, ap_eip):
    """The pages that are measured for a guest.

    :param profile: Profile of the host.
    :param vcpus: how many, 1 to 4096.
    :param signature: CPUID signature of the guest's CPU model, u32.
    :param ap_eip: where the application processors start, u32: the
        firmware's ``reset_eip``.
    :returns: list of one page of 4096 bytes for each vCPU, the boot
        processor's first, as digest.launch_digest takes them.
    :raises VmsaMalformed: a number out of range.
    """
    if not 1 <= vcpus <= MAX_VCPUS:
        raise errors.VmsaMalformed(
            f'{vcpus} vCPUs, expected 1 to {MAX_VCPUS}')
    boot = _save_area(profile, RESET_EIP, signature)
    if vcpus == 1:
        return [boot]
    if ap_eip is None:
        raise errors.VmsaMalformed(
            'the firmware does not say where application processors start; '
            'use firmware that does, or one vCPU')
    if not 0 <= ap_eip <= 0xffffffff:
        raise errors.VmsaMalformed(
            f'the start of application processors, {ap_eip:#x}, is out of '
            f'range: expected 32 bits')
    return [boot] + (vcpus - 1) * [_save_area(profile, ap_eip, signature)]


def _save_area(profile, eip, signature):
    page = bytearray(SIZE)
    try:
        for offset, segment in _SEGMENTS.items():
            _SEGMENT.pack_into(page, offset, *segment)
        _SEGMENT.pack_into(page, _CS, 0xf000, 0x9b, 0xffff,
                           eip & 0xffff0000)
        for offset, value in _REGISTERS.items():
            struct.pack_into('<Q', page, offset, value)
        struct.pack_into('<Q', page, _RIP, eip & 0xffff)
        struct.pack_into('<I', page, _RDX, signature)
        struct.pack_into('<Q', page, _SEV_FEATURES,
                         profile.sev_features)
        struct.pack_into('<I', page, _MXCSR, profile.mxcsr)
        struct.pack_into('<H', page, _FCW, profile.fcw)
    except struct.error as exc:
        raise errors.VmsaMalformed(
            f'a register of the save area is out of range: {exc}') from exc
    return bytes(page)
