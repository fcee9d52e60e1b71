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
import os
import stat

import pytest

from tests.unit.launch import platforms

NAMES = ['vm_godh.b64', 'vm_session.b64', 'vm_tek.bin', 'vm_tik.bin']


@pytest.fixture
def given(tmp_path):
    """Arguments that name a platform and its root."""
    platform = platforms.platform()
    (tmp_path / 'pdh').write_bytes(platform.pdh)
    (tmp_path / 'chain').write_bytes(platform.cert_chain)
    (tmp_path / 'anchor').write_bytes(platforms.ask_ark())
    return [tmp_path / 'pdh', tmp_path / 'chain', '--anchor',
            f'lab={tmp_path / "anchor"}']


@pytest.fixture
def output(tmp_path):
    path = tmp_path / 'out'
    path.mkdir()
    return path


def create(sev_attest, given, output, *more):
    return sev_attest('session', 'create', *given, '--directory', output,
                      *more)


@pytest.mark.parametrize(('options', 'word'), [
    ((), 0x3b), (('--mode', 'sev'), 0x3b), (('--mode', 'sev-es'), 0x3f),
    (('--mode', 'sev', '--min-api', '1.51'), 0x3301003b),
    (('--policy', '0x1'), 1)])
def test_the_platform_takes_it(sev_attest, given, output, options, word):
    found = create(sev_attest, given, output, *options, '-f', 'json')
    assert found.status == 0, found.err
    assert int(found.json['policy'], 0) == word
    assert found.json['platform_root'] == 'lab'
    assert sorted(os.listdir(output)) == NAMES
    guest = platforms.platform().launch(
        base64.b64decode((output / NAMES[0]).read_bytes(), validate=True),
        base64.b64decode((output / NAMES[1]).read_bytes(), validate=True),
        word)
    assert guest.tek == (output / NAMES[2]).read_bytes()
    assert guest.tik == (output / NAMES[3]).read_bytes()


def test_laid_out_as_sevctl_does(sev_attest, given, output):
    found = create(sev_attest, given, output, '--name', 'web', '-f', 'json')
    assert found.json['tik_file'] == str(output / 'web_tik.bin')
    for name, size in (('godh.b64', 2780), ('session.b64', 172),
                       ('tek.bin', 16), ('tik.bin', 16)):
        assert (output / f'web_{name}').stat().st_size == size


def test_private_outputs_are_private_and_not_shown(sev_attest, given, output):
    mask = os.umask(0o022)
    try:
        found = create(sev_attest, given, output, '-f', 'json')
    finally:
        os.umask(mask)
    for name in NAMES:
        mode = stat.S_IMODE((output / name).stat().st_mode)
        assert mode == (0o600 if name.endswith('.bin') else 0o644)
    for name in NAMES[2:]:
        key = (output / name).read_bytes()
        for shown in (key.hex(), base64.b64encode(key).decode()):
            assert shown not in found.out + found.err


def test_every_session_is_new(sev_attest, given, output):
    contents = []
    for name in ('a', 'b'):
        create(sev_attest, given, output, '--name', name)
        contents.append([(output / each.replace('vm', name)).read_bytes()
                         for each in NAMES])
    assert all(one != other for one, other in zip(*contents))


def test_untrusted_platform_leaves_nothing(sev_attest, given, output):
    found = create(sev_attest, given[:2], output)
    assert (found.status, found.out) == (1, '')
    assert 'tried: none' in found.error
    assert os.listdir(output) == []


@pytest.mark.parametrize(('options', 'message'), [
    (('--policy', '0x1', '--min-api', '1.2'), '--min-api goes with --mode'),
    (('--policy', '0x1', '--mode', 'sev'), 'not allowed with'),
    (('--policy', '0xffff'), 'reserved'),
    (('--min-api', '1'), 'expected a version such as 1.51'),
    (('--min-api', '1.999'), 'minimum API version'),
    (('--name', 'a/b'), 'without a slash'),
    (('--name', ''), 'without a slash'),
    (('-c', 'nonsense'), 'No recognized column'),
])
def test_unusable_leaves_nothing(sev_attest, given, output, options, message):
    found = create(sev_attest, given, output, *options)
    assert (found.status, found.out) == (2, '')
    assert message in found.error
    assert os.listdir(output) == []


def test_folder_that_is_not_there(sev_attest, given, output):
    found = create(sev_attest, given, output / 'none')
    assert found.status == 2
    assert 'No such file' in found.error


def test_keys_of_before_are_left_as_they_are(sev_attest, given, output):
    (output / 'vm_session.b64').write_text('old')
    found = create(sev_attest, given, output)
    assert found.status == 2
    assert 'exists and is left as it is' in found.error
    assert os.listdir(output) == ['vm_session.b64']
