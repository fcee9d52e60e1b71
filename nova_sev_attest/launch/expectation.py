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

"""Which launch digests are expected, and what each stands for.

A policy lists firmwares, kernels, initrds, command lines and launch profiles;
what it allows is every combination of them. The set is computed once and kept
for as long as lists and firmware stay the same: see :class:`Cache`.
"""

import collections
import dataclasses
import re
import threading
import types

from nova_sev_attest.launch import digest as launch_digest
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import profile as launch_profile

#: Most launch digests that one set of lists may stand for.
MAX_DIGESTS = 4096

NO_INITRD = kernel_hashes.NO_INITRD_SHA256.hex()
NO_COMMAND_LINE = kernel_hashes.command_line_sha256('').hex()

_SHA256 = re.compile('[0-9a-f]{64}')


class TooManyDigests(errors.LaunchError):
    """Lists that stand for more launch digests than are looked through.

    :ivar code: ``too_many_digests``.
    """

    code = 'too_many_digests'


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What one launch digest stands for.

    The hashes are SHA-256 in hexadecimal, 64 characters. Those of kernel,
    initrd and command line are None together: a launch without a measured
    kernel.

    :ivar command_line_sha256: of the text and its NUL.
    """

    firmware_sha256: str
    kernel_sha256: str | None = None
    initrd_sha256: str | None = None
    command_line_sha256: str | None = None
    profile: launch_profile.LaunchProfile = launch_profile.LaunchProfile.sev()

    def digest(self, firmware):
        """The launch digest, 32 bytes.

        :param firmware: the Firmware with that SHA-256.
        :raises FirmwareUnusable, VmsaMalformed: the firmware has no place
            for kernel hashes, or does not start more than one vCPU.
        """
        hashes = None
        if self.kernel_sha256 is not None:
            hashes = kernel_hashes.KernelHashes(
                bytes.fromhex(self.kernel_sha256),
                bytes.fromhex(self.initrd_sha256),
                bytes.fromhex(self.command_line_sha256))
        return launch_digest.launch_digest(
            firmware, hashes, self.profile.save_areas(firmware))

    def claims(self):
        """Named values, a dict, as verdicts have them."""
        return {'firmware_sha256': self.firmware_sha256,
                'kernel_sha256': self.kernel_sha256,
                'initrd_sha256': self.initrd_sha256,
                'command_line_sha256': self.command_line_sha256,
                **self.profile.claims()}


@dataclasses.dataclass(frozen=True)
class Lists:
    """What a policy allows of each input.

    Hashes are SHA-256 in hexadecimal. An empty list allows nothing, but for
    ``initrds``: there it stands for a kernel without one.

    :ivar command_lines: exact texts.
    :ivar profiles: LaunchProfiles.
    :ivar firmware_boot: whether a launch without a measured kernel is
        allowed, too.
    """

    firmwares: tuple = ()
    kernels: tuple = ()
    initrds: tuple = ()
    command_lines: tuple = ()
    profiles: tuple = (launch_profile.LaunchProfile.sev(),)
    firmware_boot: bool = False

    def __post_init__(self):
        for name in ('firmwares', 'kernels', 'initrds', 'command_lines',
                     'profiles'):
            object.__setattr__(
                self, name, tuple(dict.fromkeys(getattr(self, name))))
        for value in self.firmwares + self.kernels + self.initrds:
            if not _SHA256.fullmatch(value):
                raise errors.FormatError(
                    f'{value!r}: expected a SHA-256 in 64 lower-case '
                    f'hexadecimal digits')

    def allowed_initrds(self):
        """``initrds``, with what the empty list stands for."""
        return self.initrds or (NO_INITRD,)

    def command_line_hashes(self):
        """{SHA-256 in hexadecimal: text}."""
        return {kernel_hashes.command_line_sha256(text).hex(): text
                for text in self.command_lines}

    def count(self):
        """How many launch digests the lists stand for."""
        kernels = (len(self.kernels) * len(self.allowed_initrds()) *
                   len(self.command_lines))
        return (len(self.firmwares) * len(self.profiles) *
                (kernels + bool(self.firmware_boot)))

    def inputs(self):
        """Yield the Inputs of each."""
        lines = self.command_line_hashes()
        for firmware in self.firmwares:
            for profile in self.profiles:
                if self.firmware_boot:
                    yield Inputs(firmware, profile=profile)
                for kernel in self.kernels:
                    for initrd in self.allowed_initrds():
                        for line in lines:
                            yield Inputs(firmware, kernel, initrd, line,
                                         profile)


def expected_digests(lists, firmwares):
    """Compute the launch digests that lists stand for.

    :param lists: Lists.
    :param firmwares: iterable of the Firmware objects at hand. One that is
        listed and not at hand allows nothing.
    :returns: read-only mapping of digests, 32 bytes each, to Inputs.
    :raises TooManyDigests: more than 4096.
    :raises FirmwareUnusable, VmsaMalformed: see Inputs.digest.
    """
    count = lists.count()
    if count > MAX_DIGESTS:
        raise TooManyDigests(
            f'the lists allow {count} different launches, at most '
            f'{MAX_DIGESTS} are possible; list fewer kernels, initrds, '
            f'command lines or launch profiles')
    at_hand = {firmware.sha256.hex(): firmware for firmware in firmwares}
    return types.MappingProxyType({
        inputs.digest(at_hand[inputs.firmware_sha256]): inputs
        for inputs in lists.inputs() if inputs.firmware_sha256 in at_hand})


class Cache:
    """Sets of expected digests, kept by content.

    Usable by any number of threads. What was used longest ago goes first.

    :param max_digests: how many digests are kept in all, which bounds the
        memory: one with its Inputs takes less than 1 KiB.
    """

    def __init__(self, max_digests=16 * MAX_DIGESTS):
        self._max_digests = max_digests
        self._lock = threading.Lock()
        self._sets = collections.OrderedDict()
        self._count = 0

    def __len__(self):
        return self._count

    def expected_digests(self, lists, firmwares):
        """As the function of this name, remembering what it returned."""
        firmwares = tuple(firmwares)
        key = lists, frozenset(firmware.sha256 for firmware in firmwares)
        with self._lock:
            found = self._sets.get(key)
            if found is not None:
                self._sets.move_to_end(key)
                return found
        # Computed twice at worst, when two threads ask at once.
        found = expected_digests(lists, firmwares)
        with self._lock:
            if key not in self._sets and _weight(found) <= self._max_digests:
                self._sets[key] = found
                self._count += _weight(found)
                while self._count > self._max_digests:
                    _, dropped = self._sets.popitem(last=False)
                    self._count -= _weight(dropped)
        return found


def _weight(found):
    return max(1, len(found))  # an empty set takes room, too
