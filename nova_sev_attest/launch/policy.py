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

"""The SEV guest policy word.

AMD SEV API specification (publication 55766), chapter 3: a 32-bit word, bits
0 to 5 flags, bits 6 to 15 reserved, byte 2 and byte 3 the minimum major and
minor API version of the platform's firmware.
"""

import dataclasses
import enum

from nova_sev_attest.launch import errors


class Flag(enum.IntFlag):
    """The bits of a policy word: what the host may not do."""

    NODBG = 1 << 0   # the host may not debug the guest
    NOKS = 1 << 1    # keys may not be shared with another guest
    ES = 1 << 2      # SEV-ES required
    NOSEND = 1 << 3  # the guest may not be sent to another platform
    DOMAIN = 1 << 4  # ... nor outside the platform's domain
    SEV = 1 << 5     # ... nor to one without SEV


_ALL_FLAGS = (Flag.NODBG | Flag.NOKS | Flag.ES | Flag.NOSEND | Flag.DOMAIN |
              Flag.SEV)
_STRICT = _ALL_FLAGS & ~Flag.ES

#: Technology -> the flags that an attested guest of it always has.
_FLAGS = {'amd-sev': _STRICT, 'amd-sev-es': _STRICT | Flag.ES}


@dataclasses.dataclass(frozen=True)
class LaunchPolicy:
    """A guest policy.

    :ivar flags: the flags that are set.
    :ivar min_api: (major, minor), each 0 to 255; (0, 0) asks for nothing.
    """

    flags: Flag
    min_api: tuple = (0, 0)

    def __post_init__(self):
        if not 0 <= self.flags <= _ALL_FLAGS:
            raise errors.PolicyMalformed(
                f'policy flags {int(self.flags):#x}: bits 6 to 15 are '
                f'reserved and must be zero')
        if len(self.min_api) != 2 or not all(
                0 <= part <= 0xff for part in self.min_api):
            raise errors.PolicyMalformed(
                f'minimum API version {self.min_api}: expected a major and '
                f'a minor number from 0 to 255')

    @classmethod
    def parse(cls, word):
        """Split a policy word, an int of 32 bits; raises PolicyMalformed."""
        if not 0 <= word <= 0xffffffff:
            raise errors.PolicyMalformed(
                f'policy word {word:#x} does not fit 32 bits')
        return cls(Flag(word & 0xffff),
                   ((word >> 16) & 0xff, (word >> 24) & 0xff))

    @classmethod
    def for_technology(cls, technology, min_api=(0, 0)):
        """The policy of an attested guest: everything forbidden.

        :param technology: ``amd-sev`` (word 0x3b) or ``amd-sev-es`` (0x3f).
        :param min_api: (major, minor) of the oldest firmware accepted.
        :raises PolicyMalformed: unknown technology or version.
        """
        flags = _FLAGS.get(technology)
        if flags is None:
            raise errors.PolicyMalformed(
                f'technology {technology!r} has no SEV guest policy; '
                f'expected one of {", ".join(sorted(_FLAGS))}')
        return cls(flags, tuple(min_api))

    @property
    def word(self):
        """The policy as an int of 32 bits."""
        return (int(self.flags) | self.min_api[0] << 16 |
                self.min_api[1] << 24)

    def to_bytes(self):
        """The word as 4 bytes, little-endian."""
        return self.word.to_bytes(4, 'little')
