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

"""What an owner asks of a platform besides a chain to a trusted root.

Only a CEK that AMD's key server or the operator's store had under a chip's id
tells chips apart; the copy that a host shows does not. API version and build
are the firmware's own word, as honest as the chip's keys.
"""

import dataclasses

from nova_sev_attest.launch import errors


class PlatformNotAllowed(errors.VerificationError):
    """A genuine platform that the owner's policy does not allow.

    :ivar code: ``platform_not_allowed``.
    :ivar rule: which rule it broke, named as the field of the key service's
        policies: ``trusted_roots``, ``allowed_chips``, ``allowed_owners``, or
        ``min_api_version`` for the version of the firmware, build included.
    """

    code = 'platform_not_allowed'

    def __init__(self, rule, reason):
        super().__init__(reason)
        self.rule = rule

    def __reduce__(self):
        return type(self), (self.rule, *self.args)


@dataclasses.dataclass(frozen=True)
class PlatformPolicy:
    """Which platforms an owner trusts. An empty set allows none.

    :ivar roots: names of the anchors, hence generations, that are allowed.
    :ivar min_firmware: the oldest SEV firmware, (API major, API minor,
        build); a build counts only within its API version.
    :ivar chips: SHA-256 fingerprints (32 bytes) of the whole CEK
        certificates of the chips that are allowed; None: any chip.
    :ivar owners: SHA-256 fingerprints (32 bytes) of the whole OCA
        certificates of who may own the platform; None: anyone, the platform
        itself included.
    """

    roots: frozenset
    min_firmware: tuple = (0, 0, 0)
    chips: frozenset | None = None
    owners: frozenset | None = None

    @property
    def needs_chip(self):
        """Whether the CEK must be had by the chip's id."""
        return self.chips is not None

    def admit(self, platform):
        """Hold a platform to the policy.

        The firmware's version is not known before the evidence: see
        :meth:`admit_firmware`.

        :param platform: chain.VerifiedPlatform.
        :raises PlatformNotAllowed: the policy does not allow it.
        """
        if platform.anchor_name not in self.roots:
            raise PlatformNotAllowed(
                'trusted_roots',
                f'the platform\'s root is {platform.anchor_name}, which the '
                f'policy does not trust')
        if (self.owners is not None
                and platform.oca_fingerprint not in self.owners):
            raise PlatformNotAllowed(
                'allowed_owners',
                f'the platform\'s owner certificate (OCA) has SHA-256 '
                f'{platform.oca_fingerprint.hex()}, which the policy does '
                f'not list; it asks for a platform that is owned by one of '
                f'its own')
        if self.chips is None:
            return
        if platform.chip_id is None:
            raise PlatformNotAllowed(
                'allowed_chips',
                'the policy lists the chips that it allows, and the '
                'platform\'s CEK is only the one that the host shows; the '
                'host must tell its chip id (cpu0-id), and the CEK signed '
                'for it must be in the operator\'s store or on AMD\'s key '
                'server')
        if platform.cek_fingerprint not in self.chips:
            raise PlatformNotAllowed(
                'allowed_chips',
                f'the CEK of chip {platform.chip_id.hex()} has SHA-256 '
                f'{platform.cek_fingerprint.hex()}, which the policy does '
                f'not list')

    def admit_firmware(self, api, build):
        """Hold a platform's firmware to the policy.

        The measurement covers the version of the firmware that runs. The
        certificates name the version of the one that made the PDH, which an
        update may have left behind: they tell nothing against a platform.

        :param api: (major, minor) of the evidence.
        :param build: build number of the evidence.
        :raises PlatformNotAllowed: it is older than the policy asks for.
        """
        if (*api, build) < self.min_firmware:
            version = '.'.join(str(number) for number in (*api, build))
            raise PlatformNotAllowed(
                'min_api_version',
                f'the platform\'s SEV firmware is {version}, older than the '
                f'policy asks for; update the host\'s firmware')
