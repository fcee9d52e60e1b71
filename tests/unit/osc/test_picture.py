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

from xml.etree import ElementTree

import pytest

from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.osc import matches
from nova_sev_attest.osc import picture
from nova_sev_attest.osc import timeline
from tests.unit.osc import test_timeline

SVG = '{http://www.w3.org/2000/svg}'
EVIL = 'quiet </text><script>alert("1")</script>&amp; \x1b[2J\x00\ud800'
LAUNCH = {
    'id': 'launch-1', 'server_id': 'server-1', 'host': 'host-1',
    'status': 'running', 'technology': 'amd-sev', 'policy_id': 'policy-1',
    'policy_revision': 1, 'reason': None, 'verifier': 'service',
    'platform': {'root': 'amd-milan', 'emulated': False,
                 'api_version': '1.51', 'cek_fingerprint': 'ab' * 32,
                 'chip_id': None},
    'verdict': {'firmware_sha256': '12' * 32, 'kernel_sha256': '34' * 32,
                'initrd_sha256': '56' * 32, 'command_line_sha256':
                kernel_hashes.command_line_sha256('quiet').hex(),
                'launch_digest': '9a' * 32}}
POLICY = {'name': 'web', 'revision': 1, 'command_lines': ['quiet']}
DENIED = LAUNCH | {
    'status': 'denied', 'verdict': None,
    'reason': {'code': 'attestation.kernel_not_allowed', 'detail': 'The '
               'kernel is not allowed.', 'diagnosis': 'An older kernel.',
               'claimed': {'firmware_sha256': '12' * 32,
                           'kernel_sha256': '99' * 32},
               'allowed': {'kernels': ['34' * 32]}}}


def draw(launch, policy=POLICY):
    return ElementTree.fromstring(picture.draw(
        launch, timeline.Timeline(test_timeline.OVER), policy))


def texts(root):
    return [element.text for element in root.iter(f'{SVG}text')]


def test_a_launch_that_went_well():
    found = texts(draw(LAUNCH))
    for words in ('Launch launch-1', 'running', 'web, revision 1',
                  'amd-milan', '12' * 32, '"quiet"', '9a' * 32,
                  'Where the time went: 10.000 s', '+6.500 s'):
        assert words in found
    assert found.count('measured, allowed') == 4
    assert 'The key service vouches for the HMAC over it.' in found


def test_a_rescue():
    policy = POLICY | {'command_lines': ['other'], 'rescue': {
        'kernels': None, 'command_lines': ['quiet'], 'secrets': []}}
    found = texts(draw(LAUNCH | {'purpose': 'rescue'}, policy))
    assert 'rescue' in found and '"quiet"' in found
    assert '"quiet"' not in texts(draw(LAUNCH, policy))


def test_a_launch_that_was_denied():
    found = texts(draw(DENIED))
    assert found.count('not allowed') == 1
    assert found.count('the host\'s word only') == 1
    assert f'allowed: {"34" * 32}' in found
    assert 'An older kernel.' in found


def test_bars_follow_one_another():
    bars = [element.attrib for element in draw(LAUNCH).iter(f'{SVG}rect')
            if element.get('height') == '16']
    assert len(bars) == 6
    for one, other in zip(bars, bars[1:]):
        assert float(one['x']) + float(one['width']) <= (
            float(other['x']) + 2.5)


def test_all_of_it_is_on_the_page():
    root = draw(DENIED)
    height = float(root.get('height'))
    assert root.get('viewBox') == f'0 0 960 {height:g}'
    assert all(float(element.get('y')) < height - 10
               for element in root.iter(f'{SVG}text'))


@pytest.mark.parametrize('launch', [
    LAUNCH | {'platform': None, 'verdict': None, 'policy_id': None,
              'policy_revision': None},
    LAUNCH | {'verdict': None, 'verifier': 'owner'},
    LAUNCH | {'status': 'a_new_one'}])
def test_whatever_is_missing(launch):
    assert texts(draw(launch, None))


def test_an_owner_who_verifies():
    found = texts(draw(LAUNCH | {'verdict': None, 'verifier': 'owner'}))
    assert any(text.startswith('Its owner verifies') for text in found)


def test_nothing_that_is_written_becomes_markup():
    launch = DENIED | {
        'host': EVIL, 'status': EVIL, 'id': EVIL,
        'reason': DENIED['reason'] | {'detail': EVIL, 'diagnosis': EVIL}}
    data = picture.draw(launch, timeline.Timeline([]),
                        POLICY | {'name': EVIL, 'command_lines': [EVIL[:5]]})
    root = ElementTree.fromstring(data)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        'svg', 'title', 'rect', 'text'}
    assert b'<script' not in data and b'\x1b' not in data


def test_what_is_cut_is_in_the_tooltip():
    line = 'x' * 3000
    launch = LAUNCH | {'verdict': LAUNCH['verdict'] | {
        'command_line_sha256': kernel_hashes.command_line_sha256(line).hex()}}
    root = draw(launch, POLICY | {'command_lines': [line]})
    cut, = (element for element in root.iter(f'{SVG}text')
            if element.text.startswith('"xxx'))
    assert len(cut.text) < 100 and cut.text.endswith('\u2026')
    assert cut.find(f'{SVG}title').text == f'"{line}"'


def test_inputs_of_sev_es():
    found = {each.words: each.value for each in matches.inputs(LAUNCH | {
        'verdict': {'vcpus': 4, 'cpu_signature': 0x800f12,
                    'launch_profile': 'qemu-init2-1'}})}
    assert found == {'vCPUs': 4, 'CPU signature': 'EPYC (0x800f12)',
                     'launch profile': 'qemu-init2-1'}
