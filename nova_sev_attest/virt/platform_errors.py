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

"""Reading what libvirt says when the platform refused a command.

libvirt passes QEMU's message on: as an internal error, of the driver for
QEMU, it holds what QEMU wrote before it exited, or the reason for which a QMP
command failed. The numbers in it are the firmware's and stable (AMD, "Secure
Encrypted Virtualization API", section "Status codes"); QEMU prints them as
"LAUNCH_START ret=1 fw_error=11 'Bad measurement'" (target/i386/sev.c).
"""

import dataclasses
import re

from nova.virt.libvirt import guest as libvirt_guest

INVALID_PLATFORM_STATE = 0x01
ASID_OWNED = 0x0c
INVALID_ASID = 0x0d
WBINVD_REQUIRED = 0x0e
DFFLUSH_REQUIRED = 0x0f
HWERROR_PLATFORM = 0x13
HWERROR_UNSAFE = 0x14
RESOURCE_LIMIT = 0x17

# What is wrong with the host, and not with what it was given.
_OF_THE_HOST = frozenset([
    INVALID_PLATFORM_STATE, ASID_OWNED, INVALID_ASID, WBINVD_REQUIRED,
    DFFLUSH_REQUIRED, HWERROR_PLATFORM, HWERROR_UNSAFE, RESOURCE_LIMIT])

_NUMBER = re.compile(r'\bfw_error=(0x[0-9a-fA-F]{1,8}|\d{1,9})\b')
# QEMU's functions and commands, and the prefix of its other messages.
_NAMED = re.compile(r'\bsev_\w+|\bsev-\w[\w-]*|\bSEV\b:?')


@dataclasses.dataclass(frozen=True)
class PlatformRefusal:
    """The platform would not do a command.

    :ivar code: the firmware's status, None where QEMU told none
    """

    code: int | None

    @property
    def is_of_the_host(self):
        """Whether another host could well do the same."""
        return self.code in _OF_THE_HOST


def refusal_of(error):
    """The PlatformRefusal that an exception tells of, None for any other.

    :param error: an exception; only libvirt's can be one
    """
    libvirt = libvirt_guest.libvirt
    if not isinstance(error, libvirt.libvirtError):
        return None
    if (error.get_error_domain() != libvirt.VIR_FROM_QEMU or
            error.get_error_code() not in (libvirt.VIR_ERR_INTERNAL_ERROR,
                                           libvirt.VIR_ERR_OPERATION_FAILED)):
        return None
    text = error.get_error_message() or ''
    number = _NUMBER.search(text)
    if number is not None:
        code = int(number[1], 0)
        # Without a code of the firmware's it is the kernel's refusal.
        return PlatformRefusal(code or None)
    return PlatformRefusal(None) if _NAMED.search(text) else None
