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

from tests.unit.launch import platforms
from tests import vectors

SUFFIX = 'virtee-sev/tests/measurement/ovmf_{}_suffix.bin'


def case_of(mode, firmware):
    case, = (case for case in vectors.expected()['launch_digest']['cases']
             if (case['mode'], case['fw']) == (mode, firmware))
    return case


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'OVMF.fd'
    path.write_bytes(platforms.firmware())
    return path


def compute(sev_attest, mode, firmware, *more, **options):
    return sev_attest('digest', 'compute', '--mode', mode, '--firmware',
                      firmware, '-f', 'value', '-c', 'digest', *more,
                      **options)


class TestPublished:

    @pytest.fixture
    def amdsev(self):
        return vectors.directory() / SUFFIX.format('AmdSev')

    def test_sev_with_kernel(self, sev_attest, amdsev):
        case = case_of('sev', 'A')
        found = compute(sev_attest, 'sev', amdsev, '--kernel', '/dev/null',
                        '--initrd', '/dev/null', '--append', case['cmdline'])
        assert (found.status, found.out) == (0, case['ld'] + '\n')

    def test_sev_without_kernel(self, sev_attest):
        found = compute(sev_attest, 'sev',
                        vectors.directory() / SUFFIX.format('OvmfX64'),
                        '--vcpus', '3', '--cpu-model', 'EPYC-v4')
        assert found.out == case_of('sev', 'X')['ld'] + '\n'

    @pytest.mark.parametrize('cpu', [
        ('--cpu-model', 'EPYC-v4'), ('--cpu-sig', '0x800f12'),
        ('--cpu-sig', '8392466'), ('--cpu-sig', '23/1/2')])
    @pytest.mark.parametrize('profile', [
        (), ('--profile', 'qemu-init2-1'), ('--profile', 'qemu-init2')])
    def test_sev_es(self, sev_attest, amdsev, cpu, profile):
        case = case_of('sev-es', 'A')
        found = compute(sev_attest, 'sev-es', amdsev, '--kernel',
                        '/dev/null', '--append', '', '--vcpus',
                        case['vcpus'], *cpu, *profile)
        assert (found.status, found.out) == (0, case['ld'] + '\n')

    def test_other_profile_other_digest(self, sev_attest, amdsev):
        found = {compute(sev_attest, 'sev-es', amdsev, '--kernel',
                         '/dev/null', '--vcpus', '4', '--cpu-model',
                         'EPYC-v4', '--profile', name).out.strip()
                 for name in ('qemu-legacy-1', 'qemu-legacy-debug-swap-1',
                              'qemu-init2-debug-swap-1')}
        assert len(found) == 3
        assert case_of('sev-es', 'A')['ld'] not in found

    def test_kernel_that_firmware_cannot_hold(self, sev_attest):
        found = compute(sev_attest, 'sev',
                        vectors.directory() / SUFFIX.format('OvmfX64'),
                        '--kernel', '/dev/null')
        assert (found.status, found.out) == (1, '')
        assert 'kernel hashes' in found.error


def test_json_names_the_inputs(sev_attest, image):
    found = sev_attest('digest', 'compute', '--mode', 'sev-es', '--firmware',
                       image, '--vcpus', '2', '--cpu-model', 'EPYC-Milan',
                       '-f', 'json').json
    assert found['technology'] == 'amd-sev-es'
    assert (found['vcpus'], found['cpu_signature']) == (2, 0xa00f11)
    assert found['launch_profile'] == 'qemu-init2-1'
    assert found['kernel_sha256'] is None
    assert len(found['digest']) == 64


def test_table_names_the_cpu_model(sev_attest, image):
    found = sev_attest('digest', 'compute', '--mode', 'sev-es', '--firmware',
                       image, '--vcpus', '2', '--cpu-model', 'EPYC-Milan')
    assert 'EPYC-Milan (0xa00f11)' in found.out


def test_standard_input(sev_attest, image):
    data = image.read_bytes()
    found = compute(sev_attest, 'sev', '-', stdin=data)
    assert found.out == compute(sev_attest, 'sev', image).out
    found = compute(sev_attest, 'sev', '-', '--kernel', '-', stdin=data)
    assert found.status == 2
    assert 'one file only' in found.error


@pytest.mark.parametrize(('mode', 'argv', 'message'), [
    ('sev-es', (), 'give --vcpus'),
    ('sev-es', ('--vcpus', '2'), '--cpu-model'),
    ('sev-es', ('--vcpus', '0', '--cpu-model', 'EPYC'), 'expected 1 to 4096'),
    ('sev-es', ('--vcpus', 'x'), "'x' is no number"),
    ('sev-es', ('--vcpus', '2', '--cpu-model', 'Opteron'), 'EPYC-Milan'),
    ('sev-es', ('--vcpus', '2', '--cpu-sig', '900/1/1'), 'at most 270'),
    ('sev-es', ('--vcpus', '2', '--cpu-sig', '1', '--cpu-model', 'EPYC'),
     'not both'),
    ('sev-es', ('--vcpus', '2', '--cpu-sig', '1', '--profile', 'xen'),
     'qemu-legacy-1'),
    ('sev', ('--append', 'quiet'), 'go with --kernel'),
    ('sev', ('--initrd', '/dev/null'), 'go with --kernel'),
    ('sev', ('--kernel', '/nonexistent'), '/nonexistent: No such file'),
    ('sev', ('-c', 'nonsense'), 'nonsense'),
])
def test_unusable(sev_attest, image, mode, argv, message):
    found = sev_attest('digest', 'compute', '--mode', mode, '--firmware',
                       image, *argv)
    assert (found.status, found.out) == (2, '')
    assert message in found.error
