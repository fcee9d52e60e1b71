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
import json
import struct

import pytest

from nova_sev_attest.launch import digest
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import vmsa
from tests import vectors


@pytest.fixture
def milan():
    return vmsa.cpu_signature(25, 1, 1)


def test_pages_of_a_real_guest(milan):
    boot, application = (
        vectors.read(f'virtee-sevctl/tests/data/vmsa{number}.bin')
        for number in (0, 1))
    assert vmsa.save_areas(vmsa.LEGACY, 4, milan, 0x80b004) == (
        [boot] + 3 * [application])


#: Where AMD's manual has the fields that sevctl shows.
_SEGMENTS = ('es', 'cs', 'ss', 'ds', 'fs', 'gs', 'gdtr', 'ldtr', 'idtr', 'tr')
_SHOWN = {
    'cpl': (0xcb, '<B'), 'efer': (0xd0, '<Q'), 'xss': (0x140, '<Q'),
    'cr4': (0x148, '<Q'), 'cr3': (0x150, '<Q'), 'cr0': (0x158, '<Q'),
    'dr7': (0x160, '<Q'), 'dr6': (0x168, '<Q'), 'rflags': (0x170, '<Q'),
    'rip': (0x178, '<Q'), 'rsp': (0x1d8, '<Q'), 'rax': (0x1f8, '<Q'),
    'g_pat': (0x268, '<Q'), 'rcx': (0x308, '<Q'), 'rdx': (0x310, '<Q'),
    'rbx': (0x318, '<Q'), 'rbp': (0x328, '<Q'), 'r15': (0x378, '<Q'),
    'xcr0': (0x3e8, '<Q')}


@pytest.mark.parametrize(('number', 'other'), [(0, 1), (1, 0)])
def test_registers_that_sevctl_shows(milan, number, other):
    shown = json.loads(vectors.read(
        f'virtee-sevctl/tests/data/vmsa{number}-show.txt'))

    def read(page):
        found = {name: struct.unpack_from(form, page, offset)[0]
                 for name, (offset, form) in _SHOWN.items()}
        for at, name in enumerate(_SEGMENTS):
            found[name] = dict(zip(
                ('selector', 'attrib', 'limit', 'base'),
                struct.unpack_from('<HHIQ', page, 0x10 * at)))
        return found

    pages = vmsa.save_areas(vmsa.LEGACY, 2, milan, 0x80b004)
    found = read(pages[number])
    assert found == {name: shown[name] for name in found}
    # All that is shown and not read here is zero.
    for name in set(shown) - set(found):
        assert shown[name] in (0, len(shown[name] if isinstance(
            shown[name], list) else []) * [0])
    wrong = read(pages[other])
    assert {name for name in wrong if wrong[name] != shown[name]} == {
        'cs', 'rip'}


def test_digest_of_sev_snp_measure():
    case, = (case for case in vectors.expected()['launch_digest']['cases']
             if case['mode'] == 'sev-es')
    image = firmware.Firmware.parse(vectors.read(
        'virtee-sev/tests/measurement/ovmf_AmdSev_suffix.bin'))
    pages = vmsa.save_areas(vmsa.INIT2, case['vcpus'],
                            vmsa.cpu_signature(23, 1, 2), image.reset_eip)
    hashes = kernel_hashes.KernelHashes.from_bytes(b'', b'', case['cmdline'])
    assert digest.launch_digest(image, hashes, pages).hex() == case['ld']


@pytest.mark.parametrize(('cpu', 'signature'), [
    ((23, 1, 2), 0x800f12), ((25, 1, 1), 0xa00f11), ((25, 17, 0), 0xa10f10),
    ((6, 0x5e, 3), 0x506e3), ((0, 0, 0), 0),
    ((270, 255, 15), 0xfff0fff)])
def test_cpu_signature(cpu, signature):
    assert vmsa.cpu_signature(*cpu) == signature


@pytest.mark.parametrize('cpu', [(271, 0, 0), (25, 256, 0), (25, 1, 16),
                                 (-1, 0, 0)])
def test_cpu_out_of_range(cpu):
    with pytest.raises(errors.VmsaMalformed, match='expected at most'):
        vmsa.cpu_signature(*cpu)


def test_profiles_differ_in_the_control_words_only(milan):
    pages = [vmsa.save_areas(profile, 1, milan, None)[0]
             for profile in (vmsa.LEGACY, vmsa.INIT2)]
    assert {offset for offset, values in enumerate(zip(*pages))
            if len(set(values)) > 1} == {0x408, 0x409, 0x410, 0x411}


def test_sev_features(milan):
    state = dataclasses.replace(vmsa.INIT2, sev_features=0x21)
    page, = vmsa.save_areas(state, 1, milan, None)
    assert page[0x3b0:0x3b8] == b'\x21' + bytes(7)


def test_profiles_by_name():
    assert list(vmsa.PROFILES) == [
        'qemu-legacy-1', 'qemu-init2-1', 'qemu-legacy-debug-swap-1',
        'qemu-init2-debug-swap-1']
    assert len({dataclasses.astuple(profile)[1:]
                for profile in vmsa.PROFILES.values()}) == 4


def test_largest_numbers(milan):
    state = vmsa.Profile('largest', 0xffffffff, 0xffff, 1 << 63)
    pages = vmsa.save_areas(state, 4096, milan, 0xffffffff)
    assert len(pages) == 4096
    assert pages[-1][0x3b0:0x3b8] == bytes(7) + b'\x80'
    assert pages[-1][0x408:0x412] == 4 * b'\xff' + bytes(4) + 2 * b'\xff'


def test_start_of_application_processors(milan):
    _, page = vmsa.save_areas(vmsa.INIT2, 2, milan, 0x80b005)
    # CS: selector, attributes, limit, base.
    assert page[0x10:0x20] == bytes.fromhex(
        '00f0 9b00 ffff0000 0000800000000000')
    assert page[0x178:0x180] == bytes.fromhex('05b0000000000000')


@pytest.mark.parametrize('vcpus', (0, -1, 4097))
def test_number_of_vcpus(milan, vcpus):
    with pytest.raises(errors.VmsaMalformed, match='expected 1 to 4096'):
        vmsa.save_areas(vmsa.LEGACY, vcpus, milan, 0x80b004)


def test_firmware_without_a_start_for_more_than_one(milan):
    assert len(vmsa.save_areas(vmsa.LEGACY, 1, milan, None)) == 1
    with pytest.raises(errors.VmsaMalformed,
                       match='^the firmware does not say where application '
                             'processors start; use firmware that does, or '
                             'one vCPU$'):
        vmsa.save_areas(vmsa.LEGACY, 2, milan, None)


@pytest.mark.parametrize('change', [
    {'signature': 1 << 32}, {'ap_eip': 1 << 32}, {'signature': -1},
    {'profile': vmsa.Profile('x', 0, 0, sev_features=1 << 64)},
    {'profile': vmsa.Profile('x', 1 << 32, 0)},
    {'profile': vmsa.Profile('x', 0, 1 << 16)}])
def test_register_out_of_range(change):
    values = {'profile': vmsa.LEGACY, 'signature': 0, 'ap_eip': 0, **change}
    with pytest.raises(errors.VmsaMalformed, match='out of range'):
        vmsa.save_areas(vcpus=2, **values)
