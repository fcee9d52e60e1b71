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

"""Holding a host's platform to a policy."""

from oslo_log import log as logging

from nova_sev_attest.keyservice.engine import requests
from nova_sev_attest.keyservice import errors
from nova_sev_attest.launch import errors as launch_errors
from nova_sev_attest.trust import chips as trust_chips
from nova_sev_attest.trust import kds
from nova_sev_attest.trust import platform_policy

LOG = logging.getLogger(__name__)


def wanted(content):
    """What a policy asks of platforms, as a PlatformPolicy."""
    return platform_policy.PlatformPolicy(
        roots=frozenset(content.trusted_roots),
        min_firmware=(*content.min_api, content.min_build or 0),
        chips=_digests(content.allowed_chips),
        owners=_digests(content.allowed_owners))


def _digests(listed):
    return listed and frozenset(bytes.fromhex(text) for text in listed)


class Platforms:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts

    def admit(self, request, content, certificates, project_id):
        """Hold a host to a policy.

        :param project_id: the project whose policy it is
        :returns: (VerifiedPlatform, the CEK that AMD signed as bytes where
            it took the place of the host's, else None)
        :raises Denied: the policy does not allow it
        """
        if request['technology'] not in content.technologies:
            raise errors.Denied(
                'technology_not_allowed',
                f'Policy {content.name!r} does not allow '
                f'{request["technology"]}.')
        trusted, platform = wanted(content), None
        try:
            certificates = self._identify(request, certificates,
                                          trusted.needs_chip)
            platform = certificates.verify(
                [anchor for anchor in self._parts.anchors
                 if anchor.name in content.trusted_roots])
            trusted.admit(platform)
        except launch_errors.VerificationError as exc:
            code = (exc.code
                    if isinstance(exc, platform_policy.PlatformNotAllowed)
                    else 'platform_untrusted')
            denial = errors.Denied(code, str(exc))
            self._parts.sightings.refused(request['host'], project_id,
                                          denial, platform)
            raise denial from exc
        signed = certificates.chip_id and certificates.cek.to_bytes()
        return platform, signed

    def _identify(self, request, certificates, needed):
        """Put the CEK that AMD signed for the chip in the host's place.

        A host whose own CEK leads to a root is left as it is, unless the
        policy tells chips apart.

        :param needed: whether it does
        :returns: PlatformCertificates
        :raises VerificationError: no CEK fits
        :raises Unavailable: the CEK cannot be had now
        """
        chip_id = request['platform'].get('cpu0_id')
        root = certificates.find_root(self._parts.anchors)
        if chip_id is None or (root is not None and not needed):
            return certificates
        chip_id = requests.decode(chip_id, 'platform_malformed', 'chip id')
        try:
            # AMD does not know the chips of emulated platforms.
            cek = self._parts.chips.get(
                chip_id, certificates.pek,
                may_ask=root is None or not root.emulated)
        except (kds.KeyServerUnavailable,
                trust_chips.ChipStoreUnusable) as exc:
            LOG.error('The CEK of a chip of host %(host)s cannot be had: '
                      '%(reason)s', {'host': request['host'], 'reason': exc})
            raise errors.Unavailable(
                'chip_certificate_unavailable',
                'The signed CEK of the host\'s chip cannot be had now; the '
                'key service\'s log says why. Try again later.') from exc
        return certificates.of_chip(chip_id, cek)
