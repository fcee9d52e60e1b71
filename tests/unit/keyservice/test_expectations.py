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

import pytest

from nova_sev_attest.keyservice import expectations
from nova_sev_attest.keyservice.objects import policies
from nova_sev_attest.launch import firmware as launch_firmware
from nova_sev_attest.launch import kernel_hashes
from tests.unit.launch import platforms

IMAGE = platforms.firmware()
FIRMWARE = hashlib.sha256(IMAGE).hexdigest()
OTHER_IMAGE = platforms.firmware(size=12288)
OTHER_FIRMWARE = hashlib.sha256(OTHER_IMAGE).hexdigest()
IMAGES = {FIRMWARE: launch_firmware.Firmware.parse(IMAGE),
          OTHER_FIRMWARE: launch_firmware.Firmware.parse(OTHER_IMAGE)}
KERNELS = ['%064x' % number for number in range(2)]
INITRDS = ['%064x' % number for number in range(2, 5)]


def content(**changes):
    return policies.Content(**({
        'name': 'x', 'technologies': ['amd-sev'], 'trusted_roots': [],
        'firmwares': [FIRMWARE], 'kernels': KERNELS, 'initrds': INITRDS,
        'command_lines': ['a', 'b'], 'vcpus': None, 'firmware_boot': False,
        'min_api_version': None, 'secrets': {}, 'is_default': False,
    } | changes))


def digest(image, kernel=None, initrd=None, command_line=''):
    """A launch digest from first principles."""
    table = b''
    if kernel is not None:
        table = kernel_hashes.KernelHashes(
            bytes.fromhex(kernel),
            bytes.fromhex(initrd) if initrd else hashlib.sha256(b'').digest(),
            hashlib.sha256(command_line.encode() + b'\0').digest()).table()
    return hashlib.sha256(image + table).digest()


def test_every_combination_and_no_other():
    allowed = expectations.allowed(
        content(firmwares=[FIRMWARE, OTHER_FIRMWARE], firmware_boot=True),
        IMAGES)
    expected = {digest(image) for image in (IMAGE, OTHER_IMAGE)} | {
        digest(image, kernel, initrd, line)
        for image in (IMAGE, OTHER_IMAGE) for kernel in KERNELS
        for initrd in INITRDS for line in 'ab'}
    assert set(allowed) == expected
    assert len(expected) == 26 == expectations.count(
        content(firmwares=[FIRMWARE, OTHER_FIRMWARE], firmware_boot=True))
    found = allowed[digest(IMAGE, KERNELS[1], INITRDS[0], 'b')]
    assert found == expectations.Inputs(
        FIRMWARE, KERNELS[1], INITRDS[0],
        hashlib.sha256(b'b\0').hexdigest())


@pytest.mark.parametrize('changes', [
    {'kernels': []}, {'kernels': [], 'initrds': [], 'command_lines': []},
    {'firmwares': []}, {'firmwares': ['0' * 64]}])
def test_nothing_is_allowed(changes):
    assert expectations.allowed(content(**changes), IMAGES) == {}


def test_no_initrds_means_none():
    allowed = expectations.allowed(
        content(initrds=[], kernels=KERNELS[:1], command_lines=['']), IMAGES)
    assert set(allowed) == {digest(IMAGE, KERNELS[0])}


def test_candidates_from_claims():
    claims = {'firmware_sha256': FIRMWARE, 'kernel_sha256': KERNELS[0]}
    assert set(expectations.candidates(claims, IMAGES)) == {
        digest(IMAGE, KERNELS[0])}
    assert set(expectations.candidates({}, IMAGES)) == {
        digest(IMAGE), digest(OTHER_IMAGE)}
    claims['firmware_sha256'] = '0' * 64
    assert set(expectations.candidates(claims, IMAGES)) == {
        digest(IMAGE, KERNELS[0]), digest(OTHER_IMAGE, KERNELS[0])}


def test_candidates_with_firmware_that_measures_no_kernel():
    image = platforms.firmware(hash_table=None)
    images = {'0' * 64: launch_firmware.Firmware.parse(image)}
    claims = {'kernel_sha256': KERNELS[0]}
    assert expectations.candidates(claims, images) == {}


def test_difference_names_the_first():
    def word(**changes):
        inputs = {'firmware_sha256': FIRMWARE, 'kernel_sha256': KERNELS[0],
                  'initrd_sha256': INITRDS[0],
                  'command_line_sha256': hashlib.sha256(b'a\0').hexdigest()}
        return expectations.difference(
            content(), expectations.Inputs(**(inputs | changes))).word

    assert word() == 'measurement_mismatch'
    other = 'f' * 64
    assert word(command_line_sha256=other) == 'command_line_not_allowed'
    assert word(command_line_sha256=other,
                initrd_sha256=other) == 'initrd_not_allowed'
    assert word(initrd_sha256=other,
                kernel_sha256=other) == 'kernel_not_allowed'
    assert word(kernel_sha256=other,
                firmware_sha256=other) == 'firmware_not_allowed'
    assert word(kernel_sha256=None) == 'kernel_not_allowed'
