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

import hashlib
import pickle

import hypothesis
from hypothesis import strategies
import pytest

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import errors
from nova_sev_attest.trust import platform_policy
from tests.unit.launch import platforms
from tests.unit.launch import test_chain


def verified(chip_id=None, platform=None):
    platform = platform or platforms.platform()
    found = platform.parse()
    if chip_id is not None:
        found = found.of_chip(
            chip_id, certificates.SevCertificate.parse(platform.cek))
    return found.verify([platforms.anchor()])


def policy(**changes):
    return platform_policy.PlatformPolicy(
        **{'roots': frozenset(['emulated'])} | changes)


def refused(message, made, platform):
    with pytest.raises(platform_policy.PlatformNotAllowed,
                       match=message) as exc:
        made.admit(platform)
    assert exc.value.code == 'platform_not_allowed'
    assert isinstance(exc.value, errors.VerificationError)
    copied = pickle.loads(pickle.dumps(exc.value))
    assert (copied.rule, str(copied)) == (exc.value.rule, str(exc.value))
    return exc.value.rule


def fingerprints(*certificates_):
    return frozenset(hashlib.sha256(data).digest() for data in certificates_)


def test_any_platform_of_the_root():
    assert not policy().needs_chip
    policy().admit(verified())
    policy().admit(verified(b'c' * 64))


@pytest.mark.parametrize('roots', ((), ('amd-rome', 'amd-milan')))
def test_root(roots):
    assert refused('root is emulated, which the policy does not trust',
                   policy(roots=frozenset(roots)),
                   verified()) == 'trusted_roots'


def test_real_generation():
    platform = test_chain.naples().parse().verify(test_chain.amd_anchors())
    policy(roots=frozenset(['amd-naples'])).admit(platform)
    refused('root is amd-naples', policy(roots=frozenset(['amd-rome'])),
            platform)


class TestFirmware:

    def test_version_of_the_certificates_tells_nothing(self):
        """The made platform's PDH names API 1.51."""
        policy(min_firmware=(1, 52, 0)).admit(verified())

    def test_build(self):
        made = policy(min_firmware=(1, 51, 4))
        made.admit_firmware((1, 51), 4)
        made.admit_firmware((1, 52), 0)
        with pytest.raises(platform_policy.PlatformNotAllowed,
                           match='is 1.51.3, older than the policy') as exc:
            made.admit_firmware((1, 51), 3)
        assert exc.value.rule == 'min_api_version'

    @hypothesis.given(*[strategies.tuples(
        *[strategies.integers(0, 255)] * 3)] * 2)
    def test_order_of_versions(self, least, version):
        made = policy(min_firmware=least)
        number = [major * 65536 + minor * 256 + build
                  for major, minor, build in (least, version)]
        try:
            made.admit_firmware(version[:2], version[2])
        except platform_policy.PlatformNotAllowed:
            assert number[1] < number[0]
        else:
            assert number[1] >= number[0]


class TestChips:

    def test_listed(self):
        platform = platforms.platform()
        made = policy(chips=fingerprints(platform.cek, b'another'))
        assert made.needs_chip
        made.admit(verified(b'c' * 64, platform))

    def test_what_the_host_shows_never_counts(self):
        platform = platforms.platform()
        assert refused(
            r'^the policy lists the chips that it allows, and the '
            r"platform's CEK is only the one that the host shows; the host "
            r'must tell its chip id \(cpu0-id\), and the CEK signed for it '
            r"must be in the operator's store or on AMD's key server$",
            policy(chips=fingerprints(platform.cek)),
            verified(platform=platform)) == 'allowed_chips'

    @pytest.mark.parametrize('listed', ((), (b'another',)))
    def test_not_listed(self, listed):
        platform = platforms.platform()
        assert refused(
            f'CEK of chip {"63" * 64} has SHA-256 '
            f'{hashlib.sha256(platform.cek).hexdigest()}',
            policy(chips=fingerprints(*listed)),
            verified(b'c' * 64, platform)) == 'allowed_chips'


class TestOwner:

    def test_listed(self):
        platform = platforms.platform()
        policy(owners=fingerprints(b'x', platform.oca)).admit(
            verified(platform=platform))

    @pytest.mark.parametrize('listed', ((), (b'another',)))
    def test_not_listed(self, listed):
        assert refused(
            r'owner certificate \(OCA\) has SHA-256 [0-9a-f]{64}, which',
            policy(owners=fingerprints(*listed)),
            verified()) == 'allowed_owners'
