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

from nova_sev_attest.launch import digest
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import kernel_hashes
from tests.unit.launch import platforms
from tests import vectors

FIRMWARE = {'A': 'virtee-sev/tests/measurement/ovmf_AmdSev_suffix.bin',
            'X': 'virtee-sev/tests/measurement/ovmf_OvmfX64_suffix.bin'}
HASHES = kernel_hashes.KernelHashes.from_bytes(b'kernel', b'initrd', 'quiet')


@pytest.fixture
def image():
    return firmware.Firmware.parse(platforms.firmware())


def test_digests_of_sev_snp_measure():
    cases = [case for case in vectors.expected()['launch_digest']['cases']
             if case['mode'] == 'sev']
    assert len(cases) == 2
    for case in cases:
        hashes = None
        if 'cmdline' in case:
            hashes = kernel_hashes.KernelHashes.from_bytes(
                b'', b'', case['cmdline'])
        image = firmware.Firmware.parse(vectors.read(FIRMWARE[case['fw']]))
        assert digest.launch_digest(image, hashes).hex() == case['ld']


def test_kernel_for_firmware_without_room_for_its_hashes():
    image = firmware.Firmware.parse(vectors.read(FIRMWARE['X']))
    with pytest.raises(errors.FirmwareUnusable, match='kernel hashes'):
        digest.launch_digest(image, HASHES)


def test_order(image):
    pages = [bytes([number]) * 4096 for number in (1, 2, 2)]
    assert digest.launch_digest(image, HASHES, pages) == hashlib.sha256(
        platforms.firmware() + HASHES.table() + b''.join(pages)).digest()
    assert digest.launch_digest(image) == image.sha256


def test_every_input_counts(image):
    page, other = b'\1' * 4096, b'\2' * 4096
    digests = {digest.launch_digest(image, hashes, pages)
               for hashes in (None, HASHES)
               for pages in ((), (page,), (page, page), (page, other),
                             (other, page))}
    assert len(digests) == 10


@pytest.mark.parametrize('size', (0, 4095, 4097))
def test_size_of_a_save_area(image, size):
    with pytest.raises(errors.VmsaMalformed, match='4096 bytes'):
        digest.launch_digest(image, None, [bytes(4096), bytes(size)])


def test_too_many_vcpus(image):
    assert digest.launch_digest(image, None, [bytes(4096)] * 4096)
    with pytest.raises(errors.VmsaMalformed, match='at most 4096'):
        digest.launch_digest(image, None, [b''] * 4097)
