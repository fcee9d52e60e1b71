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

import base64
import dataclasses

import hypothesis
from hypothesis import strategies
import pytest

from nova_sev_attest.launch import digest
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import session
from tests.unit.launch import platforms
from tests import vectors

SEVCTL = 'virtee-sevctl/tests/data'
POLICY = launch_policy.LaunchPolicy.for_technology('amd-sev')
GUEST = platforms.Guest(b'E' * 16, b'I' * 16, 0x3b)
KEYS = session.TransportKeys(GUEST.tek, GUEST.tik)
DIGEST = firmware.Firmware.parse(platforms.firmware()).sha256


def evidence(blob, api=(1, 51), build=3):
    return measurement.Evidence.parse(blob, *api, build)


def measured(**kwargs):
    return evidence(GUEST.measure(platforms.firmware(), **kwargs))


class TestSevctl:
    """Measurements that virtee's sevctl computes."""

    @pytest.fixture
    def published(self):
        return vectors.expected()['sev_measurement']

    def verify(self, published, case, launch_digest, *, policy=None,
               api=None):
        *version, build = api or published['api']
        keys = session.TransportKeys(bytes(16),
                                     vectors.read(published['tik']))
        policy = launch_policy.LaunchPolicy.parse(
            published['policy'] if policy is None else policy)
        blob = base64.b64decode(published['cases'][case]['blob_b64'])
        given = evidence(blob, version, build)
        assert measurement.verify_measurement(
            keys, policy, given, [bytes(32), launch_digest]) == launch_digest
        assert measurement.compute_measure(
            keys, policy, given, launch_digest) == blob[:32]

    def image(self):
        return firmware.Firmware.parse(vectors.read(
            f'{SEVCTL}/OVMF.amdsev.fd_trimmed_edk2-ovmf-20220126gitbb1bba3d77'
            f'-4.el9'))

    def test_digest(self, published):
        self.verify(published, 0, base64.b64decode(
            published['cases'][0]['ld_b64']))

    def test_firmware(self, published):
        self.verify(published, 1, digest.launch_digest(self.image()))

    def test_kernel(self, published):
        read = vectors.read
        self.verify(published, 2, digest.launch_digest(
            self.image(), kernel_hashes.KernelHashes.from_bytes(
                read(f'{SEVCTL}/measurement/vmlinuz-fake'),
                read(f'{SEVCTL}/measurement/initrd-fake'),
                'foo bar baz fake kernel=cmdline')))

    def test_sev_es(self, published):
        boot, application = (vectors.read(f'{SEVCTL}/vmsa{number}.bin')
                             for number in (0, 1))
        self.verify(published, 3, digest.launch_digest(
            self.image(), None, [boot] + 3 * [application]),
            policy=5, api=(1, 49, 6))


@pytest.mark.parametrize('index', (0, 1))
def test_measurement_of_a_whole_launch(index):
    vector = vectors.expected('session-ecdh/EXPECTED.json')['vectors'][index]
    keys = session.TransportKeys(bytes.fromhex(vector['tek']),
                                 bytes.fromhex(vector['tik']))
    blob = vectors.read(f'session-ecdh/{vector["name"]}/measurement.bin')
    assert blob.hex() == vector['measure'] + vector['mnonce']
    given = evidence(blob, vector['api'], vector['build'])
    policy = launch_policy.LaunchPolicy.parse(int(vector['policy'], 16))
    launch_digest = bytes.fromhex(vector['launch_digest'])
    assert measurement.verify_measurement(
        keys, policy, given, {launch_digest}) == launch_digest


class TestRefused:

    def refused(self, given, allowed=(DIGEST,), keys=KEYS, policy=POLICY):
        with pytest.raises(errors.MeasurementMismatch) as exc:
            measurement.verify_measurement(keys, policy, given, allowed)
        assert exc.value.code == 'measurement_mismatch'
        # Names all that may be the cause, and no value.
        assert str(exc.value) == (
            'the measurement is not that of any launch that the policy '
            'allows: firmware, kernel, initrd, command line, number of '
            'vCPUs or guest policy differ, or it belongs to another launch')

    def test_nothing_is_allowed(self):
        self.refused(measured(), ())

    def test_another_firmware(self):
        self.refused(measured(), (bytes(32),))

    def test_another_launch(self):
        self.refused(measured(), keys=session.TransportKeys(
            GUEST.tek, b'J' * 16))

    def test_debugging_allowed(self):
        guest = dataclasses.replace(GUEST, policy_word=0x3a)
        self.refused(evidence(guest.measure(platforms.firmware())))

    @pytest.mark.parametrize('change', ('api_major', 'api_minor', 'build'))
    def test_another_version_is_claimed(self, change):
        given = measured()
        self.refused(dataclasses.replace(
            given, **{change: getattr(given, change) + 1}))

    @pytest.mark.parametrize('offset', range(48))
    def test_flipped_bit(self, offset):
        blob = bytearray(GUEST.measure(platforms.firmware()))
        blob[offset] ^= 1 << offset % 8
        self.refused(evidence(bytes(blob)))


@pytest.mark.parametrize('position', range(3))
def test_finds_the_digest_wherever_it_is(position):
    allowed = [b'1' * 32, b'2' * 32]
    allowed.insert(position, DIGEST)
    assert measurement.verify_measurement(
        KEYS, POLICY, measured(), allowed) == DIGEST


class TestMinimumApi:

    @pytest.mark.parametrize(('minimum', 'good'), [
        ((0, 0), True), ((1, 51), True), ((1, 52), False), ((2, 0), False),
        ((0, 255), True)])
    def test_is_enforced(self, minimum, good):
        policy = launch_policy.LaunchPolicy.for_technology('amd-sev', minimum)
        guest = dataclasses.replace(GUEST, policy_word=policy.word)
        given = evidence(guest.measure(platforms.firmware()))
        if good:
            assert measurement.verify_measurement(
                KEYS, policy, given, [DIGEST]) == DIGEST
            return
        with pytest.raises(errors.ApiVersionTooOld) as exc:
            measurement.verify_measurement(KEYS, policy, given, [DIGEST])
        assert str(exc.value) == (
            f'the platform runs SEV API version 1.51, the policy asks for '
            f'{minimum[0]}.{minimum[1]} or later; update its firmware or '
            f'place the server on another host')


class TestEvidence:

    @hypothesis.given(strategies.binary(min_size=48, max_size=48),
                      strategies.integers(0, 255), strategies.integers(0, 255),
                      strategies.integers(0, 255))
    def test_round_trip(self, blob, major, minor, build):
        given = measurement.Evidence.parse(blob, major, minor, build)
        assert given.measure + given.mnonce == blob
        assert (*given.api, given.build) == (major, minor, build)

    @hypothesis.given(strategies.binary(max_size=100).filter(
        lambda data: len(data) != 48))
    def test_size(self, blob):
        with pytest.raises(errors.EvidenceMalformed, match='48 bytes'):
            evidence(blob)

    def test_largest_numbers(self):
        given = measurement.Evidence.parse(bytes(48), 255, 255, 255)
        assert (*given.api, given.build) == (255, 255, 255)

    @pytest.mark.parametrize('numbers', [(256, 0, 0), (0, -1, 0),
                                         (0, 0, 1000)])
    def test_numbers(self, numbers):
        with pytest.raises(errors.EvidenceMalformed, match='0 to 255'):
            measurement.Evidence.parse(bytes(48), *numbers)

    @pytest.mark.parametrize(('measure', 'nonce'), [(31, 16), (32, 17)])
    def test_parts(self, measure, nonce):
        with pytest.raises(errors.EvidenceMalformed, match='32 and a nonce'):
            measurement.Evidence(bytes(measure), bytes(nonce), 1, 51, 3)


@pytest.mark.parametrize('size', (0, 31, 48))
def test_size_of_a_candidate(size):
    with pytest.raises(errors.FormatError, match='32 bytes'):
        measurement.verify_measurement(KEYS, POLICY, measured(),
                                       [bytes(size)])
