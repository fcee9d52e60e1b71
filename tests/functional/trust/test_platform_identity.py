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

"""The key service with a host whose own CEK nobody signed, as real ones."""

import hashlib
import os

import pytest

from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.unit.launch import platforms

error = harness.error
CHIP = bytes(range(64))


@pytest.fixture(scope='module')
def cloud():
    cloud = fakes.Cloud()
    yield cloud
    cloud.stop()


@pytest.fixture
def keyservice(cloud, amd, tmp_path):
    cloud.reset()
    (tmp_path / 'store').mkdir()
    service = harness.KeyService(
        cloud, tmp_path, trust=(
            f'chip_certificates = {tmp_path}/store\n'
            f'chip_cache = {tmp_path}/cache\n'
            f'key_server = {amd.url}\n'
            f'key_server_deadline = 3\n'))
    yield service
    service.stop()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Host(harness.Host):
    """Shows a CEK without AMD's signature.

    :ivar signed: the CEK as AMD has it
    """

    def __init__(self, keyservice, **kwargs):
        platform = platforms.platform()
        self.signed = platform.cek
        platform.cek = self.signed[:0x414] + 2 * platforms.EMPTY_SLOT
        super().__init__(keyservice, platform=platform, **kwargs)

    def request(self, chip=CHIP, **changes):
        request = super().request(**changes)
        if chip is not None:
            request['platform']['cpu0_id'] = harness.b64(chip)
        return request


def release(host):
    """The whole launch; returns the launch as its owner sees it."""
    host.launch()
    evidence = host.measure()
    response = host.send(evidence)
    assert response.status_code == 200, response.text
    assert harness.PASSPHRASE in host.inject(
        response.json()['release'], evidence).values()
    return host.show()


def test_cek_of_the_key_server(keyservice, amd):
    keyservice.policy()
    host = Host(keyservice)
    amd.add(CHIP, host.signed)
    shown = release(host)
    assert shown['platform']['chip_id'] == CHIP.hex()
    assert shown['platform']['cek_fingerprint'] == sha256(host.signed)
    assert shown['verdict']['cek_fingerprint'] == sha256(host.signed)
    release(Host(keyservice))
    assert len(amd.requests) == 1


def test_cek_of_the_store(keyservice, amd, tmp_path):
    keyservice.policy()
    host = Host(keyservice)
    (tmp_path / 'store' / f'{CHIP.hex()}.cek').write_bytes(host.signed)
    assert release(host)['platform']['chip_id'] == CHIP.hex()
    assert amd.requests == []


def test_signed_cek_of_the_host_needs_no_chip(keyservice, amd):
    keyservice.policy()
    host = harness.Host(keyservice)
    request = host.request()
    request['platform']['cpu0_id'] = harness.b64(CHIP)
    response = host.api.put(host.path, headers=host.headers,
                            json={'launch': request})
    assert response.status_code == 201
    assert host.show()['platform']['chip_id'] is None
    assert amd.requests == []


def test_host_that_tells_no_chip(keyservice, amd):
    keyservice.policy()
    host = Host(keyservice)
    assert 'key server' in error(host.create(chip=None), 403,
                                 'platform_untrusted')
    assert amd.requests == []


def test_host_that_names_another_chip(keyservice, amd):
    keyservice.policy()
    amd.add(CHIP, platforms.platform(name='other').cek)
    host = Host(keyservice)
    assert "did not sign the host's PEK" in error(
        host.create(), 403, 'platform_untrusted')
    assert host.show()['status'] == 'denied'


def test_chip_that_amd_does_not_know(keyservice):
    keyservice.policy()
    assert 'does not have it' in error(
        Host(keyservice).create(), 403, 'platform_untrusted')


@pytest.mark.parametrize('chip', (bytes(7), b'\0' * 66))
def test_size_of_the_id(keyservice, amd, chip):
    keyservice.policy()
    response = Host(keyservice).create(chip=chip)
    assert response.status_code in (400, 403)
    assert amd.requests == []


def test_throttled(keyservice, amd):
    keyservice.policy()
    host = Host(keyservice)
    amd.add(CHIP, host.signed)
    amd.next = [(429, {'Retry-After': '600'})]
    detail = error(host.create(), 503, 'chip_certificate_unavailable')
    assert 'Try again later' in detail
    # Nothing was decided about the launch: the same request may be repeated.
    os.unlink(keyservice.directory / 'cache' / 'pause')
    assert host.create().status_code == 201


class TestAllowedChips:

    def test_listed(self, keyservice, amd):
        host = Host(keyservice)
        keyservice.policy(allowed_chips=[sha256(host.signed)])
        amd.add(CHIP, host.signed)
        release(host)

    def test_not_listed(self, keyservice, amd):
        host = Host(keyservice)
        keyservice.policy(allowed_chips=['00' * 32])
        amd.add(CHIP, host.signed)
        detail = error(host.create(), 403, 'platform_not_allowed')
        assert f'CEK of chip {CHIP.hex()} has SHA-256' in detail
        assert '00' * 32 not in detail
        assert host.show()['reason']['code'] == (
            'attestation.platform_not_allowed')

    def test_what_the_host_shows_never_counts(self, keyservice):
        host = harness.Host(keyservice)
        keyservice.policy(allowed_chips=[sha256(host.platform.cek)])
        assert 'only the one that the host shows' in error(
            host.create(), 403, 'platform_not_allowed')

    def test_emulated_chip_is_never_asked_for(self, keyservice, amd,
                                              tmp_path):
        host = harness.Host(keyservice)
        keyservice.policy(allowed_chips=[sha256(host.platform.cek)])
        request = host.request()
        request['platform']['cpu0_id'] = harness.b64(CHIP)

        def create():
            return host.api.put(host.path, headers=host.headers,
                                json={'launch': request})

        error(create(), 403, 'platform_untrusted')
        assert amd.requests == []
        (tmp_path / 'store' / f'{CHIP.hex()}.cert').write_bytes(
            host.platform.cek)
        host.id = host.id[:-4] + 'abcd'
        assert create().status_code == 201


def test_owner_of_the_platform(keyservice):
    host = harness.Host(keyservice)
    keyservice.policy(allowed_owners=[sha256(host.platform.oca)])
    release(host)
    other = harness.Host(keyservice, platform=platforms.platform(
        name='of another owner'))
    assert '(OCA)' in error(other.create(), 403, 'platform_not_allowed')


def test_build_of_the_firmware(keyservice):
    """The evidence says 1.51, build 3."""
    keyservice.policy(min_api_version='1.51', min_build=3)
    release(harness.Host(keyservice))
    keyservice.policy(name='newer', is_default=False,
                      min_api_version='1.51', min_build=4)
    host = harness.Host(keyservice, policy='newer')
    host.launch()
    assert 'is 1.51.3, older' in error(
        host.send(host.measure()), 403, 'platform_not_allowed')
    assert host.show()['status'] == 'denied'


def test_build_without_a_version(keyservice):
    body = keyservice.policy_body(min_build=4)
    error(keyservice.member().post('/v1/policies', json={'policy': body}),
          400, 'min_build_alone')


def test_policy_shows_what_it_allows(keyservice):
    shown = keyservice.policy(
        min_api_version='1.51', min_build=4, allowed_chips=['11' * 32],
        allowed_owners=['22' * 32])
    assert (shown['min_build'], shown['allowed_chips'],
            shown['allowed_owners']) == (4, ['11' * 32], ['22' * 32])
    shown = keyservice.policy(name='default', is_default=False)
    assert (shown['min_build'], shown['allowed_chips'],
            shown['allowed_owners']) == (None, None, None)
