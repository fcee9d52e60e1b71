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

import pytest

from nova_sev_attest.launch import errors
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import profile
from nova_sev_attest.launch import vmsa
from tests.unit.launch import platforms
from tests import vectors


STATES = ', '.join(vmsa.PROFILES)


@pytest.fixture
def image():
    return firmware.Firmware.parse(platforms.firmware())


@pytest.mark.parametrize(('name', 'signature'), [
    ('EPYC', 0x800f12), ('EPYC-v4', 0x800f12), ('EPYC-IBPB', 0x800f12),
    ('EPYC-Rome', 0x830f10), ('EPYC-Milan-v2', 0xa00f11),
    ('EPYC-Genoa', 0xa10f10), ('EPYC-Turin', 0xb00f00)])
def test_cpu_models(name, signature):
    assert profile.cpu_signature(name) == signature


def test_versions_of_cpu_models():
    # What runs at the import, once more: mutmut sees nothing before a test.
    assert dict(profile._cpu_models()) == profile.CPU_SIGNATURES
    versions = {name for name in profile.CPU_SIGNATURES if 'Rome' in name}
    assert versions == {'EPYC-Rome', *(f'EPYC-Rome-v{number}' for number in
                                       range(1, len(versions)))}


def test_unknown_cpu_model_names_the_known():
    with pytest.raises(profile.ProfileUnknown,
                       match='expected one of EPYC, EPYC-v1, .*EPYC-Milan-v1,'
                             ' .*, or give its signature as a number$'):
        profile.cpu_signature('EPYC-v99')


def test_cpu_name():
    assert profile.cpu_name(0xa00f11) == 'EPYC-Milan (0xa00f11)'
    assert profile.cpu_name(0x506e3) == '0x506e3'


@pytest.mark.parametrize(('name', 'found'), [
    ('qemu-legacy-1', vmsa.LEGACY), ('qemu-legacy', vmsa.LEGACY),
    ('qemu-init2-1', vmsa.INIT2), ('qemu-init2', vmsa.INIT2)])
def test_initial_states(name, found):
    assert profile.initial_state(name) is found


@pytest.mark.parametrize('name', ['', 'qemu', 'qemu-init2-2', '.*'])
def test_unknown_initial_state(name):
    with pytest.raises(profile.ProfileUnknown,
                       match=f'expected one of {STATES}$'):
        profile.initial_state(name)


def test_real_guest():
    image = firmware.Firmware.parse(vectors.read(
        'virtee-sev/tests/measurement/ovmf_AmdSev_suffix.bin'))
    boot, application = (
        vectors.read(f'virtee-sevctl/tests/data/vmsa{number}.bin')
        for number in (0, 1))
    made = profile.LaunchProfile.sev_es(4, 'EPYC-Milan', 'qemu-legacy')
    assert made.save_areas(image) == [boot] + 3 * [application]


def test_sev_measures_no_vcpu(image):
    made = profile.LaunchProfile.sev()
    assert made.save_areas(image) == []
    assert made.claims() == {'technology': 'amd-sev'}


def test_claims_name_the_versioned_state():
    assert profile.LaunchProfile.sev_es(2, 'EPYC-v4').claims() == {
        'technology': 'amd-sev-es', 'vcpus': 2, 'cpu_signature': 0x800f12,
        'launch_profile': 'qemu-init2-1', 'sev_features': 0}


@pytest.mark.parametrize('name', ('legacy', 'init2'))
def test_sev_features_of_a_state(image, name):
    made = profile.LaunchProfile.sev_es(2, 'EPYC', f'qemu-{name}-debug-swap')
    assert made.claims()['launch_profile'] == f'qemu-{name}-debug-swap-1'
    assert made.claims()['sev_features'] == 0x20
    plain = profile.LaunchProfile.sev_es(2, 'EPYC', f'qemu-{name}')
    for page, other in zip(made.save_areas(image), plain.save_areas(image),
                           strict=True):
        assert page == other[:0x3b0] + b'\x20' + other[0x3b1:]


@pytest.mark.parametrize(('values', 'error', 'message'), [
    (('amd-sev', 2), errors.VmsaMalformed,
     '^vCPUs are not part of what SEV measures; leave them out, or use '
     'SEV-ES$'),
    (('amd-sev-snp',), profile.ProfileUnknown, 'expected amd-sev'),
    (('amd-sev-es', 2, 1), errors.VmsaMalformed,
     '^SEV-ES measures every vCPU: expected the number of vCPUs, the CPU '
     'signature and the initial state$'),
    (('amd-sev-es', 0, 1, 'qemu-init2-1'), errors.VmsaMalformed,
     'expected 1 to 4096'),
    (('amd-sev-es', 1, 1 << 32, 'qemu-init2-1'), errors.VmsaMalformed,
     'out of range'),
    (('amd-sev-es', 1, 1, 'qemu-init2'), profile.ProfileUnknown,
     f'expected one of {STATES}$'),
])
def test_impossible_profiles(values, error, message):
    with pytest.raises(error, match=message):
        profile.LaunchProfile(*values)


def test_combinations():
    found = profile.combinations(
        'amd-sev-es', vcpus=(1, 2), signatures=('EPYC', 'EPYC-v4', 0xa00f11),
        states=('qemu-legacy', 'qemu-init2'))
    assert len(found) == 2 * 2 * 2
    assert {each.vcpus for each in found} == {1, 2}
    assert profile.combinations('amd-sev-es', vcpus=(1,)) == ()
    assert profile.combinations('amd-sev', vcpus=(1, 2)) == (
        profile.LaunchProfile.sev(),)
