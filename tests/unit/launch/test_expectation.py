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

import dataclasses
import hashlib

import pytest

from nova_sev_attest.launch import digest
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import expectation
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import profile
from tests.unit.launch import platforms
from tests import vectors


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def image():
    return firmware.Firmware.parse(platforms.firmware())


@pytest.fixture
def lists(image):
    return expectation.Lists(
        firmwares=(image.sha256.hex(),), kernels=(sha256(b'kernel'),),
        initrds=(sha256(b'initrd'),), command_lines=('quiet',))


def test_published_sev_es_digest():
    case, = (case for case in vectors.expected()['launch_digest']['cases']
             if case['mode'] == 'sev-es')
    image = firmware.Firmware.parse(vectors.read(
        'virtee-sev/tests/measurement/ovmf_AmdSev_suffix.bin'))
    lists = expectation.Lists(
        firmwares=(image.sha256.hex(),), kernels=(sha256(b''),),
        command_lines=(case['cmdline'],),
        profiles=profile.combinations('amd-sev-es', (1, case['vcpus']),
                                      ('EPYC-v4',)))
    found = expectation.expected_digests(lists, [image])
    assert len(found) == 2
    assert found[bytes.fromhex(case['ld'])].profile.vcpus == case['vcpus']


def test_every_combination(image, lists):
    lists = expectation.Lists(
        lists.firmwares, (sha256(b'1'), sha256(b'2')),
        (sha256(b'3'), sha256(b'4')), ('a', 'b'),
        profile.combinations('amd-sev-es', (1, 2), ('EPYC',)),
        firmware_boot=True)
    found = expectation.expected_digests(lists, [image])
    assert len(found) == lists.count() == 2 * (1 + 8)
    for value, inputs in found.items():
        hashes = None
        if inputs.kernel_sha256 is not None:
            hashes = kernel_hashes.KernelHashes(*(bytes.fromhex(each) for each
                                                  in (inputs.kernel_sha256,
                                                      inputs.initrd_sha256,
                                                      inputs
                                                      .command_line_sha256)))
        assert value == digest.launch_digest(
            image, hashes, inputs.profile.save_areas(image))


def test_claims(image, lists):
    inputs, = expectation.expected_digests(lists, [image]).values()
    assert inputs.claims() == {
        'firmware_sha256': image.sha256.hex(),
        'kernel_sha256': sha256(b'kernel'),
        'initrd_sha256': sha256(b'initrd'),
        'command_line_sha256': sha256(b'quiet\0'),
        'technology': 'amd-sev'}


def test_empty_lists_allow_nothing(image):
    firmwares = (image.sha256.hex(),)
    for lists in (expectation.Lists(firmwares),
                  expectation.Lists(firmwares, (sha256(b'k'),)),
                  expectation.Lists(firmwares, command_lines=('a',)),
                  expectation.Lists(firmwares, firmware_boot=True,
                                    profiles=()),
                  expectation.Lists(firmware_boot=True)):
        assert expectation.expected_digests(lists, [image]) == {}
        assert lists.count() == 0


def test_no_initrd(image, lists):
    lists = expectation.Lists(lists.firmwares, lists.kernels,
                              command_lines=('quiet',))
    inputs, = expectation.expected_digests(lists, [image]).values()
    assert inputs.initrd_sha256 == sha256(b'')


def test_firmware_not_at_hand(lists):
    assert expectation.expected_digests(lists, []) == {}


def test_firmware_that_cannot(lists):
    image = firmware.Firmware.parse(platforms.firmware(hash_table=None,
                                                       reset_eip=None))
    name = (image.sha256.hex(),)
    with pytest.raises(errors.FirmwareUnusable, match='kernel hashes'):
        expectation.expected_digests(
            expectation.Lists(name, lists.kernels, (), ('',)), [image])
    with pytest.raises(errors.VmsaMalformed, match='application processors'):
        expectation.expected_digests(expectation.Lists(
            name, profiles=profile.combinations('amd-sev-es', (2,),
                                                ('EPYC',)),
            firmware_boot=True), [image])


def test_too_many(image):
    lists = expectation.Lists(
        (image.sha256.hex(),), (sha256(b'k'),), (),
        tuple(str(number) for number in range(expectation.MAX_DIGESTS + 1)))
    with pytest.raises(expectation.TooManyDigests, match='4097'):
        expectation.expected_digests(lists, [image])


def test_as_many_as_are_possible(image, lists, monkeypatch):
    monkeypatch.setattr(expectation, 'MAX_DIGESTS', 1)
    assert len(expectation.expected_digests(lists, [image])) == 1


@pytest.mark.parametrize('value', ['', 'AB' * 32, 'ab' * 31, 'g' * 64])
def test_hashes_are_hexadecimal(value):
    with pytest.raises(errors.FormatError, match='64 lower-case'):
        expectation.Lists(kernels=(value,))


class TestCache:

    def test_computed_once(self, image, lists):
        cache = expectation.Cache()
        found = cache.expected_digests(lists, [image])
        again = firmware.Firmware.parse(platforms.firmware())
        same = expectation.Lists(*(getattr(lists, name) for name in (
            'firmwares', 'kernels', 'initrds', 'command_lines')))
        assert cache.expected_digests(same, [again]) is found
        assert found == expectation.expected_digests(lists, [image])
        assert len(cache) == 1

    def test_content_decides(self, image, lists):
        cache = expectation.Cache()
        assert cache.expected_digests(lists, []) == {}
        assert len(cache.expected_digests(lists, [image])) == 1

    def test_cannot_be_changed(self, image, lists):
        found = expectation.Cache().expected_digests(lists, [image])
        with pytest.raises(TypeError):
            found[bytes(32)] = None

    def test_bounded_and_longest_unused_goes(self, image):
        def lists(name):
            return expectation.Lists(
                (image.sha256.hex(),), (sha256(b'k'),), (),
                (f'{name} 1', f'{name} 2'))
        cache = expectation.Cache(max_digests=4)
        first = cache.expected_digests(lists('a'), [image])
        second = cache.expected_digests(lists('b'), [image])
        assert cache.expected_digests(lists('a'), [image]) is first
        cache.expected_digests(lists('c'), [image])
        assert len(cache) == 4
        assert cache.expected_digests(lists('a'), [image]) is first
        assert cache.expected_digests(lists('b'), [image]) is not second

    def test_as_large_as_the_cache(self, image):
        lists = expectation.Lists((image.sha256.hex(),), (sha256(b'k'),), (),
                                  ('a', 'b'))
        cache = expectation.Cache(max_digests=2)
        found = cache.expected_digests(lists, [image])
        assert cache.expected_digests(lists, [image]) is found
        more = dataclasses.replace(lists, command_lines=('a', 'b', 'c'))
        assert len(cache.expected_digests(more, [image])) == 3
        assert cache.expected_digests(lists, [image]) is found
        assert len(cache) == 2

    def test_larger_than_the_cache(self, image):
        lists = expectation.Lists((image.sha256.hex(),), (sha256(b'k'),), (),
                                  ('a', 'b'))
        cache = expectation.Cache(max_digests=1)
        assert len(cache.expected_digests(lists, [image])) == 2
        assert len(cache) == 0

    def test_empty_sets_take_room(self):
        cache = expectation.Cache(max_digests=2)
        for name in 'abc':
            cache.expected_digests(
                expectation.Lists(command_lines=(name,)), [])
        assert len(cache) == 2
