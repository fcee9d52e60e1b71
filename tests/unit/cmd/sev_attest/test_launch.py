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

"""measurement verify, secret pack and launch explain, on one launch."""

import base64
import json
import os

import pytest

from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import profile
from nova_sev_attest.launch import secret
from tests.unit.launch import platforms
from tests import vectors

LUKS = str(secret.LUKS_PASSPHRASE_GUID)
OTHER = '736869e5-aaaa-4973-92ec-06879ce3da0b'
SEVCTL = 'virtee-sevctl/tests/data'


class Launch:
    """A launch on a made platform, and its files."""

    def __init__(self, folder, word=0x3b):
        self.folder = folder
        self.word = word
        self.guest = platforms.Guest(b'e' * 16, b'i' * 16, word)
        self.image = platforms.firmware()
        for name, data in (
                ('OVMF.fd', self.image), ('other.fd', b'\1' * 4096),
                ('vmlinuz', b'kernel'), ('vmlinuz-old', b'old kernel'),
                ('initrd', b'initrd'), ('initrd-old', b'old initrd'),
                ('tek', self.guest.tek), ('tik', self.guest.tik),
                ('other-tik', b'I' * 16), ('passphrase', b'open sesame')):
            (folder / name).write_bytes(data)
        self.measurement = None

    def measure(self, kernel=b'kernel', initrd=b'initrd', line='quiet',
                made=None, **api):
        memory = [self.image]
        if kernel is not None:
            memory.append(kernel_hashes.KernelHashes.from_bytes(
                kernel, initrd, line).table())
        if made is not None:
            memory += made.save_areas(firmware.Firmware.parse(self.image))
        self.measurement = self.guest.measure(*memory, **api)
        (self.folder / 'measurement').write_bytes(
            base64.b64encode(self.measurement))

    def evidence(self, **changes):
        values = {'tik': self.folder / 'tik',
                  'measurement-file': self.folder / 'measurement',
                  'api': '1.51', 'build': 3, 'policy': f'{self.word:#x}',
                  **changes}
        return [f'--{name}={value}' for name, value in values.items()
                if value is not None]

    def inputs(self, **changes):
        values = {'firmware': self.folder / 'OVMF.fd',
                  'kernel': self.folder / 'vmlinuz',
                  'initrd': self.folder / 'initrd', 'append': 'quiet',
                  **changes}
        return [f'--{name}={value}' for name, value in values.items()
                if value is not None]

    def secrets(self):
        return ['--tek', self.folder / 'tek', '--secret',
                f'{LUKS}:{self.folder / "passphrase"}']


@pytest.fixture
def launch(tmp_path):
    made = Launch(tmp_path)
    made.measure()
    return made


@pytest.fixture
def output(tmp_path):
    path = tmp_path / 'out'
    path.mkdir()
    return path


class TestVerify:

    def test_holds(self, sev_attest, launch):
        found = sev_attest('measurement', 'verify', *launch.evidence(),
                           *launch.inputs(), '-f', 'json')
        assert found.status == 0
        assert found.json['verified'] is True
        assert found.json['policy'] == '0x3b'
        assert found.json['api_version'] == '1.51'
        assert 'platform_root' not in found.json

    def test_any_of_several(self, sev_attest, launch):
        folder = launch.folder
        found = sev_attest(
            'measurement', 'verify', *launch.evidence(),
            *launch.inputs(kernel=folder / 'vmlinuz-old'),
            *launch.inputs(), '--append', 'debug', '-f', 'json')
        # OVMF.fd and initrd are named twice and count once.
        assert found.status == 0

    def test_measurement_as_argument_or_standard_input(self, sev_attest,
                                                       launch):
        encoded = base64.b64encode(launch.measurement).decode()
        for changes, stdin in (
                ({'measurement-file': None, 'measurement': encoded}, b''),
                ({'measurement-file': '-'}, encoded.encode()),
                ({'measurement-file': '-'}, launch.measurement)):
            found = sev_attest('measurement', 'verify',
                               *launch.evidence(**changes), *launch.inputs(),
                               stdin=stdin)
            assert found.status == 0

    @pytest.mark.parametrize(('evidence', 'inputs'), [
        ({'tik': 'other-tik'}, {}), ({'build': 4}, {}), ({'api': '1.52'}, {}),
        ({'policy': '0x33'}, {}), ({}, {'append': 'debug'}),
        ({}, {'kernel': 'vmlinuz-old'}), ({}, {'initrd': None}),
        ({}, {'kernel': None, 'initrd': None, 'append': None})])
    def test_refused(self, sev_attest, launch, monkeypatch, evidence, inputs):
        monkeypatch.chdir(launch.folder)
        found = sev_attest('measurement', 'verify',
                           *launch.evidence(**evidence),
                           *launch.inputs(**inputs))
        assert (found.status, found.out) == (1, '')
        assert 'launch explain' in found.error

    def test_old_api_is_refused(self, sev_attest, tmp_path):
        launch = Launch(tmp_path, 0x3301003b)
        launch.measure(api=(1, 50))
        found = sev_attest('measurement', 'verify',
                           *launch.evidence(api='1.50'), *launch.inputs())
        assert found.status == 1
        assert '1.51 or later' in found.error

    def test_sev_es(self, sev_attest, tmp_path):
        launch = Launch(tmp_path, 0x3f)
        launch.measure(made=profile.LaunchProfile.sev_es(4, 'EPYC-Milan'))
        more = ['--vcpus=2', '--vcpus=4', '--cpu-model=EPYC-Milan']
        found = sev_attest('measurement', 'verify', *launch.evidence(),
                           *launch.inputs(), *more, '-f', 'json')
        assert found.status == 0
        assert found.json['vcpus'] == 4
        found = sev_attest('measurement', 'verify', *launch.evidence(),
                           *launch.inputs())
        assert found.status == 2
        assert 'give --vcpus' in found.error

    @pytest.mark.parametrize(('evidence', 'inputs', 'message'), [
        ({'tik': 'initrd'}, {}, 'initrd is no TIK'),
        ({'measurement-file': 'tik'}, {}, 'tik is no measurement'),
        ({'measurement': 'AA=='}, {}, 'not allowed with'),
        ({'measurement-file': None, 'measurement': 'AA=='}, {},
         '--measurement: expected 48 bytes, got 1'),
        ({'policy': '0x100000000'}, {}, '32 bits'),
        ({'build': 300}, {}, 'expected 0 to 255'),
        ({'api': '1'}, {}, 'such as 1.51'),
        ({}, {'firmware': None}, 'give --firmware'),
        ({}, {'firmware': 'tik'}, 'multiple of 4096'),
        ({}, {'digest': 'abc'}, '64 hexadecimal'),
        ({'session': 'tik'}, {}, 'tik is no session'),
    ])
    def test_unusable(self, sev_attest, launch, monkeypatch, evidence, inputs,
                      message):
        monkeypatch.chdir(launch.folder)
        found = sev_attest('measurement', 'verify',
                           *launch.evidence(**evidence),
                           *launch.inputs(**inputs))
        assert (found.status, found.out) == (2, '')
        assert message in found.error

    @pytest.mark.parametrize('form', ['json', 'table', 'value'])
    def test_keys_are_never_shown(self, sev_attest, launch, form):
        found = sev_attest('measurement', 'verify', *launch.evidence(),
                           *launch.inputs(), '-f', form)
        assert 'iiii' not in found.out
        assert (b'i' * 16).hex() not in found.out


class TestSevctl:
    """The measurements of sevctl's own tests."""

    def run(self, sev_attest, case, *more, **changes):
        known = vectors.expected()['sev_measurement']
        major, minor, build = known['api']
        values = {
            'tik': vectors.directory() / known['tik'],
            'measurement': known['cases'][case]['blob_b64'],
            'api': f'{major}.{minor}', 'build': build,
            'policy': known['policy'], **changes}
        return sev_attest('measurement', 'verify', *more, '-f', 'json', *(
            f'--{name}={value}' for name, value in values.items()))

    def firmware(self):
        return (f'--firmware={vectors.directory()}/{SEVCTL}/OVMF.amdsev.fd_'
                f'trimmed_edk2-ovmf-20220126gitbb1bba3d77-4.el9')

    def test_digest(self, sev_attest):
        digest = base64.b64decode(vectors.expected()['sev_measurement'][
            'cases'][0]['ld_b64']).hex()
        found = self.run(sev_attest, 0, '--digest', digest)
        assert found.status == 0
        assert found.json['launch_digest'] == digest
        found = self.run(sev_attest, 0, '--digest', 64 * '0')
        assert found.status == 1

    def test_firmware_only(self, sev_attest):
        assert self.run(sev_attest, 1, self.firmware()).status == 0

    def test_kernel(self, sev_attest):
        folder = vectors.directory() / SEVCTL / 'measurement'
        more = [self.firmware(), f'--kernel={folder}/vmlinuz-fake',
                f'--initrd={folder}/initrd-fake']
        line = '--append=foo bar baz fake kernel=cmdline'
        assert self.run(sev_attest, 2, *more, line).status == 0
        assert self.run(sev_attest, 2, *more, line + ' ').status == 1

    def test_sev_es(self, sev_attest):
        more = [self.firmware(), '--vcpus=4', '--cpu-sig=25/1/1']
        values = {'api': '1.49', 'build': 6, 'policy': 5}
        found = self.run(sev_attest, 3, *more, '--profile=qemu-legacy-1',
                         **values)
        assert found.status == 0
        assert self.run(sev_attest, 3, *more, **values).status == 1


@pytest.mark.parametrize('case', ['v1-policy-3b', 'v2-policy-3f-es'])
def test_sessions_of_virtee_s_library(sev_attest, tmp_path, case):
    known, = (each for each in vectors.expected(
        'session-ecdh/EXPECTED.json')['vectors'] if each['name'] == case)
    folder = vectors.directory() / 'session-ecdh' / case
    for name in ('tek', 'tik'):
        (tmp_path / name).write_bytes(bytes.fromhex(known[name]))
    (tmp_path / 'session.b64').write_bytes(
        base64.b64encode((folder / 'session.bin').read_bytes()))
    arguments = [
        'measurement', 'verify', '--tik', tmp_path / 'tik',
        '--measurement-file', folder / 'measurement.bin', '--api',
        '{}.{}'.format(*known['api']), '--build', known['build'],
        '--digest', known['launch_digest'],
        '--session', tmp_path / 'session.b64']
    found = sev_attest(*arguments, '--policy', known['policy'])
    assert found.status == 0
    found = sev_attest(*arguments, '--policy', '0x33')
    assert found.status == 1
    assert 'policy MAC' in found.error


class TestPack:

    def test_the_guest_gets_it(self, sev_attest, launch, output):
        found = sev_attest(
            'secret', 'pack', *launch.evidence(), *launch.inputs(),
            *launch.secrets(), '--secret', f'{OTHER}=-', '--header',
            output / 'header', '--payload', output / 'payload', '-f', 'json',
            stdin=b'second')
        assert found.status == 0
        assert found.json['secret_area'] == '0x810000'
        header, payload = ((output / name).read_text()
                           for name in ('header', 'payload'))
        assert (header, payload) == (found.json['secret_header'],
                                     found.json['secret'])
        table = launch.guest.inject(
            base64.b64decode(header), base64.b64decode(payload),
            launch.measurement[:32])
        assert [data for _, data in platforms.read_secret_table(table)] == [
            b'open sesame', b'second']
        for shown in ('open sesame', 'eeee', 'iiii'):
            assert shown not in found.out

    def test_without_files(self, sev_attest, launch, output):
        found = sev_attest('secret', 'pack', *launch.evidence(),
                           *launch.inputs(), *launch.secrets(), '-f', 'json')
        assert found.status == 0
        assert len(base64.b64decode(found.json['secret_header'])) == 52

    @pytest.mark.parametrize(('evidence', 'inputs', 'status', 'message'), [
        ({'tik': 'other-tik'}, {}, 1, 'launch explain'),
        ({}, {'append': 'debug'}, 1, 'launch explain'),
        ({}, {'digest': 64 * '0'}, 2, 'stands for all'),
        ({}, {'secret': f'{LUKS}:tik'}, 2, 'given twice'),
        ({}, {'secret': f'{OTHER}:nothing'}, 2, 'No such file'),
        ({}, {'secret': f'{OTHER}:/dev/null'}, 2, 'is empty'),
        ({}, {'secret': f'{OTHER}:OVMF.fd'}, 2, 'has room for 3072'),
        ({}, {'secret': 'luks:tik'}, 2, 'expected GUID:FILE'),
        ({}, {'column': 'nonsense'}, 2, 'No recognized column'),
    ])
    def test_nothing_is_written_when_refused(
            self, sev_attest, launch, output, monkeypatch, evidence, inputs,
            status, message):
        monkeypatch.chdir(launch.folder)
        found = sev_attest(
            'secret', 'pack', *launch.evidence(**evidence),
            *launch.inputs(**inputs), *launch.secrets(), '--header',
            output / 'header', '--payload', output / 'payload')
        assert (found.status, found.out) == (status, '')
        assert message in found.error
        assert os.listdir(output) == []

    def test_header_alone(self, sev_attest, launch, output):
        found = sev_attest('secret', 'pack', *launch.evidence(),
                           *launch.inputs(), *launch.secrets(), '--header',
                           output / 'header')
        assert found.status == 2
        assert 'go together' in found.error

    def test_firmware_without_room(self, sev_attest, launch, output):
        launch.image = platforms.firmware(secret=(0, 0))
        (launch.folder / 'OVMF.fd').write_bytes(launch.image)
        launch.measure()
        found = sev_attest('secret', 'pack', *launch.evidence(),
                           *launch.inputs(), *launch.secrets())
        assert (found.status, found.out) == (1, '')
        assert 'launch secret' in found.error

    def test_wrong_digest(self, sev_attest, launch, output):
        found = sev_attest('secret', 'pack', *launch.evidence(),
                           *launch.secrets(), '--digest', 64 * '0',
                           '--firmware', launch.folder / 'OVMF.fd',
                           '--header', output / 'header', '--payload',
                           output / 'payload')
        assert found.status == 1
        assert os.listdir(output) == []

    def test_digest_of_sev_es(self, sev_attest, tmp_path):
        launch = Launch(tmp_path, 0x3f)
        launch.measure(made=profile.LaunchProfile.sev_es(4, 'EPYC'))
        digest = sev_attest(
            'digest', 'compute', '--mode', 'sev-es', *launch.inputs(),
            '--vcpus=4', '--cpu-model=EPYC', '-f', 'value', '-c',
            'digest').out.strip()
        found = sev_attest('secret', 'pack', *launch.evidence(),
                           *launch.secrets(), '--digest', digest,
                           '--firmware', launch.folder / 'OVMF.fd',
                           '-f', 'json')
        assert found.status == 0
        assert found.json['launch_digest'] == digest

    def test_digest_needs_the_firmware(self, sev_attest, launch):
        digest = firmware.Firmware.parse(launch.image).sha256.hex()
        launch.measure(kernel=None)
        arguments = ['secret', 'pack', *launch.evidence(),
                     *launch.secrets(), '--digest', digest]
        found = sev_attest(*arguments)
        assert found.status == 2
        assert 'the one --firmware' in found.error
        found = sev_attest(*arguments, '--firmware',
                           launch.folder / 'OVMF.fd')
        assert found.status == 0


class TestExplain:

    def explain(self, sev_attest, launch, *more, inputs=(), **evidence):
        return sev_attest('launch', 'explain', *launch.evidence(**evidence),
                          *(inputs or launch.inputs()), *more, '-f', 'json')

    def test_holds(self, sev_attest, launch):
        found = self.explain(sev_attest, launch)
        assert found.status == 0
        assert found.json['category'] == 'allowed'

    def test_known_initrd(self, sev_attest, launch):
        launch.measure(initrd=b'old initrd')
        found = self.explain(sev_attest, launch, '--known-initrd',
                             launch.folder / 'initrd-old')
        assert found.status == 1
        assert found.json['category'] == 'initrd_not_allowed'
        assert found.json['differs'] == ['initrd']
        assert found.json['explanation'].startswith(
            'the initrd is initrd-old (SHA-256 ')
        assert 'allows initrd (SHA-256 ' in found.json['explanation']

    @pytest.mark.parametrize(('launched', 'known', 'category'), [
        ({'kernel': b'old kernel'}, ['--known-kernel', 'vmlinuz-old'],
         'kernel_not_allowed'),
        ({'line': 'debug'}, ['--known-append', 'debug'],
         'command_line_not_allowed'),
        ({'kernel': None}, [], 'kernel_not_allowed'),
        ({'kernel': b'unheard of'}, [], 'measurement_mismatch'),
    ])
    def test_what_differs(self, sev_attest, launch, monkeypatch, launched,
                          known, category):
        monkeypatch.chdir(launch.folder)
        launch.measure(**launched)
        found = self.explain(sev_attest, launch, *known)
        assert (found.status, found.json['category']) == (1, category)

    def test_firmware(self, sev_attest, launch, monkeypatch):
        monkeypatch.chdir(launch.folder)
        launch.image = b'\1' * 4096
        launch.measure(kernel=None)
        found = self.explain(
            sev_attest, launch, '--known-firmware', 'other.fd',
            inputs=['--firmware', 'OVMF.fd'])
        assert found.json['category'] == 'firmware_not_allowed'

    def test_wrong_tik_and_replay(self, sev_attest, launch, monkeypatch):
        monkeypatch.chdir(launch.folder)
        found = self.explain(sev_attest, launch, '--known-tik', 'tik',
                             tik='other-tik')
        assert found.json['category'] == 'wrong_session'
        found = self.explain(sev_attest, launch, '--known-measurement',
                             'measurement')
        assert found.json['category'] == 'measurement_replayed'

    def test_replayed_nonce(self, sev_attest, launch, monkeypatch):
        monkeypatch.chdir(launch.folder)
        old = launch.measurement
        launch.measure(kernel=b'old kernel')
        (launch.folder / 'old').write_bytes(old)
        (launch.folder / 'measurement').write_bytes(
            launch.measurement[:32] + old[32:])
        found = self.explain(sev_attest, launch, '--known-measurement', 'old')
        assert (found.status, found.json['category']) == (
            1, 'measurement_replayed')
        assert 'by old, with another measure' in found.json['explanation']

    def test_sev_features(self, sev_attest, tmp_path):
        launch = Launch(tmp_path, 0x3f)
        launch.measure(made=profile.LaunchProfile.sev_es(
            2, 'EPYC', 'qemu-legacy-debug-swap'))
        found = self.explain(sev_attest, launch, inputs=[
            *launch.inputs(), '--vcpus=2', '--cpu-model=EPYC',
            '--profile=qemu-legacy'])
        assert found.json['category'] == 'launch_profile_not_allowed'
        assert found.json['explanation'] == (
            'the launch profile is qemu-legacy-debug-swap-1 but the policy '
            'allows qemu-legacy-1')

    def test_policy(self, sev_attest, launch):
        found = self.explain(sev_attest, launch, policy='0x33')
        assert found.json['category'] == 'policy_word_mismatch'
        assert '0x3b' in found.json['explanation']

    def test_session_of_another_launch(self, sev_attest, launch):
        path = launch.folder / 'session'
        path.write_bytes(bytes(128))
        found = self.explain(sev_attest, launch, session=path)
        assert found.status == 1
        assert 'policy MAC' in found.json['explanation']

    def test_vcpus_and_profile(self, sev_attest, tmp_path):
        launch = Launch(tmp_path, 0x3f)
        launch.measure(made=profile.LaunchProfile.sev_es(
            6, 'EPYC-Milan', 'qemu-legacy'))
        found = self.explain(sev_attest, launch, '--vcpus=2',
                             '--cpu-model=EPYC-Milan')
        assert found.json['differs'] == ['vcpus', 'launch_profile']

    def test_bounded(self, sev_attest, launch):
        launch.measure(kernel=b'unheard of')
        found = self.explain(sev_attest, launch, '--seconds', '0')
        assert found.json['complete'] is False

    def test_unusable(self, sev_attest, launch):
        found = sev_attest('launch', 'explain', *launch.evidence())
        assert found.status == 2
        assert 'give --firmware' in found.error


def test_formats_agree(sev_attest, launch):
    arguments = ['measurement', 'verify', *launch.evidence(),
                 *launch.inputs(), '-c', 'launch_digest']
    digest = json.loads(sev_attest(*arguments, '-f', 'json').out)[
        'launch_digest']
    assert sev_attest(*arguments, '-f', 'value').out == digest + '\n'
    assert digest in sev_attest(*arguments, '-f', 'table').out
