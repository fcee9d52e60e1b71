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

"""The owner's rules for platforms, each of them both ways."""

import base64
import hashlib
import json
import os
import re

import pytest

from tests.unit.cmd.sev_attest import test_launch
from tests.unit.launch import platforms
from tests import vectors

CHIP = 'ab' * 64
OTHER = '5' * 64

launch = test_launch.launch
output = test_launch.output


def sha256(data):
    return hashlib.sha256(data).hexdigest()


PLATFORM = platforms.platform()
CEK = sha256(PLATFORM.cek)
OCA = sha256(PLATFORM.oca)


@pytest.fixture
def made(tmp_path):
    """Arguments that name a platform, its root and its chip's CEK."""
    (tmp_path / 'host').write_bytes(PLATFORM.pdh + PLATFORM.cert_chain)
    (tmp_path / 'anchor').write_bytes(platforms.ask_ark())
    chips = tmp_path / 'chips'
    chips.mkdir()
    (chips / f'{CHIP}.cert').write_bytes(PLATFORM.cek)
    return [tmp_path / 'host', '--anchor', f'lab={tmp_path / "anchor"}',
            '--chip-id', CHIP, '--chip-certificates', chips, '-f', 'json']


@pytest.fixture(params=('option', 'file'))
def rules(request, tmp_path):
    """Say rules by options, or in a file."""
    names = {'trusted_roots': 'allow-root', 'allowed_chips': 'allow-chip',
             'allowed_owners': 'allow-owner', 'min_api_version': 'min-api',
             'min_build': 'min-build'}

    def say(**fields):
        if request.param == 'file':
            path = tmp_path / 'rules.json'
            path.write_text(json.dumps(fields))
            return ['--rules', path]
        return [word for field, value in fields.items()
                for each in (value if isinstance(value, list) else [value])
                for word in (f'--{names[field]}', each)]

    return say


HOLDS = [
    {'trusted_roots': ['lab']},
    {'trusted_roots': ['amd-milan', 'lab']},
    {'allowed_chips': [CEK]},
    {'allowed_chips': [OTHER, CEK.upper()]},
    {'allowed_owners': [OTHER, OCA]},
    {'trusted_roots': ['lab'], 'allowed_chips': [CEK],
     'allowed_owners': [OCA]}]
REFUSED = [
    ({'trusted_roots': ['amd-milan', 'amd-genoa']},
     "rule trusted_roots: the platform's root is lab, .* Allowed: amd-milan, "
     r'amd-genoa; .* \(--allow-root\)'),
    ({'allowed_chips': [OTHER]},
     f'rule allowed_chips: the CEK of chip {CHIP} has SHA-256 {CEK}, .* '
     rf'Allowed: {OTHER}; .* \(--allow-chip\)'),
    ({'allowed_chips': [f'{number:064x}' for number in range(5)]},
     'Allowed: .*0, .*1, .*2, and 2 more; '),
    ({'allowed_owners': [OTHER]},
     f'rule allowed_owners: .* SHA-256 {OCA}, .* Allowed: {OTHER}; '),
    ({'trusted_roots': ['lab'], 'allowed_chips': [CEK],
      'allowed_owners': [CEK]}, 'rule allowed_owners: ')]


class TestPlatform:

    @pytest.mark.parametrize('fields', HOLDS)
    def test_holds(self, sev_attest, made, rules, fields):
        found = sev_attest('platform', 'verify', *made, *rules(**fields))
        assert found.status == 0, found.err
        assert found.json['rules'] == list(fields)

    @pytest.mark.parametrize(('fields', 'message'), REFUSED)
    def test_refused(self, sev_attest, made, rules, fields, message):
        found = sev_attest('platform', 'verify', *made, *rules(**fields))
        assert (found.status, found.out) == (1, '')
        assert re.search(message, found.error)

    @pytest.mark.parametrize('fields', [
        {'trusted_roots': []}, {'allowed_chips': []}, {'allowed_owners': []}])
    def test_an_empty_list_allows_none(self, sev_attest, made, tmp_path,
                                       fields):
        (tmp_path / 'rules').write_text(json.dumps(fields))
        found = sev_attest('platform', 'verify', *made, '--rules',
                           tmp_path / 'rules')
        assert (found.status, found.out) == (1, '')
        assert 'Allowed: none; ' in found.error

    def test_null_allows_any(self, sev_attest, made, tmp_path):
        (tmp_path / 'rules').write_text(json.dumps(dict.fromkeys((
            'trusted_roots', 'allowed_chips', 'allowed_owners',
            'min_api_version', 'min_build'))))
        found = sev_attest('platform', 'verify', *made, '--rules',
                           tmp_path / 'rules')
        assert found.status == 0
        assert found.json['rules'] == []

    def test_rules_from_standard_input(self, sev_attest, made):
        found = sev_attest('platform', 'verify', *made, '--rules', '-',
                           stdin=b'{"trusted_roots": ["amd-rome"]}')
        assert (found.status, found.out) == (1, '')

    @pytest.mark.parametrize('source', ('option', 'file'))
    def test_the_cek_that_the_host_shows_does_not_count(
            self, sev_attest, made, tmp_path, source):
        # Not even where it is the very same.
        (tmp_path / 'rules').write_text(json.dumps({'allowed_chips': [CEK]}))
        found = sev_attest(
            'platform', 'verify', *made[:3],
            *(['--allow-chip', CEK] if source == 'option' else
              ['--rules', tmp_path / 'rules']))
        assert (found.status, found.out) == (2, '')
        assert 'give --chip-id and --chip-certificates' in found.error

    def test_a_signed_cek_of_the_host_is_not_taken_for_the_folder_s(
            self, sev_attest, made):
        # The folder has none; the host shows one that AMD's stand-in signed.
        os.unlink(made[6] / f'{CHIP}.cert')
        found = sev_attest('platform', 'verify', *made, '--allow-chip', CEK)
        assert (found.status, found.out) == (1, '')
        assert 'has no CEK of chip' in found.error

    def test_naples(self, sev_attest):
        folder = vectors.directory() / 'virtee-sev'
        paths = [folder / f'tests/naples/{name}.cert'
                 for name in ('pdh', 'pek', 'oca', 'cek')]
        paths += [folder / f'src/certs/sev/builtin/naples/{name}.cert'
                  for name in ('ask', 'ark')]
        owner = sha256(paths[2].read_bytes())
        found = sev_attest('platform', 'verify', *paths, '--allow-root',
                           'amd-naples', '--allow-owner', owner)
        assert found.status == 0
        found = sev_attest('platform', 'verify', *paths, '--allow-root',
                           'amd-rome')
        assert found.status == 1
        assert 'root is amd-naples' in found.error


def arguments(said):
    return [word for option, value in zip(('--api', '--build'), said)
            for word in (option, value)]


class TestFirmwareOfAPlatform:
    """What the host says, before there is evidence."""

    @pytest.mark.parametrize(('least', 'said'), [
        ({'min_api_version': '1.51'}, ('1.51',)),
        ({'min_api_version': '1.51'}, ('2.0',)),
        ({'min_api_version': '1.51', 'min_build': 4}, ('1.51', '4')),
        ({'min_api_version': '1.51', 'min_build': 4}, ('1.52', '0'))])
    def test_holds(self, sev_attest, made, rules, least, said):
        found = sev_attest('platform', 'verify', *made, *rules(**least),
                           *arguments(said))
        assert found.status == 0, found.err
        assert found.json['rules'] == list(least)

    @pytest.mark.parametrize(('least', 'said'), [
        ({'min_api_version': '1.51'}, ('1.50',)),
        ({'min_api_version': '1.51'}, ('0.255', '255')),
        ({'min_api_version': '1.51', 'min_build': 4}, ('1.51', '3'))])
    def test_refused(self, sev_attest, made, rules, least, said):
        found = sev_attest('platform', 'verify', *made, *rules(**least),
                           *arguments(said))
        assert (found.status, found.out) == (1, '')
        assert 'rule min_api_version: ' in found.error
        assert 'Allowed: 1.51 build' in found.error
        assert 'firmware updated (--min-api)' in found.error

    @pytest.mark.parametrize(('least', 'said'), [
        ({'min_api_version': '1.51'}, ()),
        ({'min_api_version': '1.51', 'min_build': 4}, ('1.51',))])
    def test_not_said(self, sev_attest, made, rules, least, said):
        # A rule that cannot be held is not passed over.
        found = sev_attest('platform', 'verify', *made, *rules(**least),
                           *arguments(said))
        assert (found.status, found.out) == (2, '')
        assert 'measurement verify' in found.error


class TestSession:

    @pytest.mark.parametrize('fields', HOLDS)
    def test_holds(self, sev_attest, made, output, rules, fields):
        found = sev_attest('session', 'create', *made, '--directory', output,
                           *rules(**fields))
        assert found.status == 0, found.err
        assert found.json['rules'] == list(fields)
        assert len(os.listdir(output)) == 4

    @pytest.mark.parametrize(('fields', 'message'), REFUSED)
    def test_refused_leaves_nothing(self, sev_attest, made, output, rules,
                                    fields, message):
        found = sev_attest('session', 'create', *made, '--directory', output,
                           *rules(**fields))
        assert (found.status, found.out) == (1, '')
        assert re.search(message, found.error)
        assert os.listdir(output) == []

    def test_the_platform_enforces_the_api_version(
            self, sev_attest, made, output, rules):
        found = sev_attest('session', 'create', *made, '--directory', output,
                           *rules(min_api_version='1.52'))
        assert found.status == 0, found.err
        word = int(found.json['policy'], 0)
        assert word == 0x3401003b
        PLATFORM.launch(*(
            base64.b64decode((output / f'vm_{name}.b64').read_bytes())
            for name in ('godh', 'session')), word)

    def test_a_policy_word_that_is_stricter_than_the_rules(
            self, sev_attest, made, output, tmp_path):
        (tmp_path / 'rules').write_text('{"min_api_version": "1.52"}')
        found = sev_attest('session', 'create', *made, '--directory', output,
                           '--rules', tmp_path / 'rules', '--policy',
                           '0x3501003f')
        assert found.status == 0, found.err
        assert int(found.json['policy'], 0) == 0x3501003f

    def test_a_policy_word_that_is_weaker_than_the_rules(
            self, sev_attest, made, output, tmp_path):
        (tmp_path / 'rules').write_text('{"min_api_version": "1.52"}')
        found = sev_attest('session', 'create', *made, '--directory', output,
                           '--rules', tmp_path / 'rules', '--policy',
                           '0x3301003f')
        assert (found.status, found.out) == (2, '')
        assert 'would be the word 0x3401003f' in found.error
        assert os.listdir(output) == []

    def test_chip_without_its_id(self, sev_attest, made, output):
        found = sev_attest('session', 'create', *made[:3], '--directory',
                           output, '--allow-chip', CEK)
        assert (found.status, found.out) == (2, '')
        assert os.listdir(output) == []


class TestEvidence:

    @pytest.mark.parametrize('least', [
        {'min_api_version': '1.51'}, {'min_api_version': '0.255'},
        {'min_api_version': '1.51', 'min_build': 3},
        {'min_api_version': '1.50', 'min_build': 255}])
    def test_holds(self, sev_attest, launch, rules, least):
        found = sev_attest('measurement', 'verify', *launch.evidence(),
                           *launch.inputs(), *rules(**least), '-f', 'json')
        assert found.status == 0, found.err
        assert found.json['rules'] == list(least)

    @pytest.mark.parametrize('least', [
        {'min_api_version': '1.52'}, {'min_api_version': '2.0'},
        {'min_api_version': '1.51', 'min_build': 4}])
    @pytest.mark.parametrize('command', (
        ('measurement', 'verify'), ('secret', 'pack')))
    def test_refused(self, sev_attest, launch, output, rules, command, least):
        more = () if command[0] == 'measurement' else (
            *launch.secrets(), '--header', output / 'header', '--payload',
            output / 'payload')
        found = sev_attest(*command, *launch.evidence(), *launch.inputs(),
                           *more, *rules(**least))
        assert (found.status, found.out) == (1, '')
        assert 'SEV firmware is 1.51.3, older' in found.error
        assert os.listdir(output) == []

    def test_not_before_the_measurement(self, sev_attest, launch, rules):
        # Version and build are the host's word until the HMAC holds.
        found = sev_attest('measurement', 'verify',
                           *launch.evidence(api='1.52'), *launch.inputs(),
                           *rules(min_api_version='1.52'))
        assert found.status == 1
        assert 'the measurement is not that of' in found.error

    def test_rules_of_the_session_are_let_be(self, sev_attest, launch,
                                             tmp_path):
        (tmp_path / 'rules').write_text(json.dumps(
            {'trusted_roots': ['amd-rome'], 'allowed_chips': [OTHER],
             'min_api_version': '1.51'}))
        found = sev_attest('measurement', 'verify', *launch.evidence(),
                           *launch.inputs(), '--rules', tmp_path / 'rules',
                           '-f', 'json')
        assert found.status == 0
        assert found.json['rules'] == ['min_api_version']


@pytest.mark.parametrize(('content', 'message'), [
    ('', 'no file of rules'), ('{', 'no file of rules'),
    ('[]', 'expected a JSON object'), ('[' * 60000, 'no file of rules'),
    (b'\xff\xfe{', 'no file of rules'), ('{}' * 40000, 'more than the 65536'),
    ('{"min_build": 1, "min_build": 2}', 'there twice'),
    ('{"allowed_chip": []}', "'allowed_chip', which is no rule"),
    ('{"firmwares": []}', "'firmwares', which is no rule"),
    ('{"trusted_roots": "lab"}', 'trusted_roots has to be a list of names'),
    ('{"trusted_roots": [1]}', 'trusted_roots has to be a list of names'),
    ('{"trusted_roots": [""]}', 'trusted_roots has to be a list of names'),
    ('{"allowed_chips": ["ab"]}', 'allowed_chips has to be a list of SHA'),
    ('{"allowed_chips": {}}', 'allowed_chips has to be a list of SHA'),
    ('{"allowed_owners": [null]}', 'allowed_owners has to be a list of SHA'),
    ('{"min_api_version": 1.51}', 'min_api_version has to be text such'),
    ('{"min_api_version": "1"}', 'min_api_version has to be text such'),
    ('{"min_api_version": "1.256"}', '256 is in no minimum'),
    ('{"min_build": 1}', 'give the minimum API version, too'),
    ('{"min_api_version": "1.1", "min_build": true}', 'has to be a number'),
    ('{"min_api_version": "1.1", "min_build": "3"}', 'has to be a number'),
    ('{"min_api_version": "1.1", "min_build": -1}', '-1 is in no minimum')])
def test_unusable_file(sev_attest, made, tmp_path, content, message):
    path = tmp_path / 'rules'
    path.write_bytes(content if isinstance(content, bytes)
                     else content.encode())
    found = sev_attest('platform', 'verify', *made, '--rules', path)
    assert (found.status, found.out) == (2, '')
    assert message in found.error


@pytest.mark.parametrize(('options', 'message'), [
    (('--allow-chip', 'ab'), 'SHA-256 of 64 hexadecimal digits'),
    (('--allow-owner', OTHER + '5'), 'SHA-256 of 64 hexadecimal digits'),
    (('--min-build', '3'), 'give the minimum API version, too'),
    (('--min-api', '1'), 'a version such as 1.51'),
    (('--min-api', '1.300', '--api', '1.1'), '300 is in no minimum'),
    (('--rules', 'nothing'), 'nothing: No such file'),
    (('--rules', 'rules', '--allow-owner', OTHER),
     'rules has allowed_owners, and --allow-owner is given'),
    (('--rules', 'rules', '--min-api', '1.1'),
     'rules has min_api_version, and --min-api is given')])
def test_unusable_options(sev_attest, made, tmp_path, monkeypatch, options,
                          message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'rules').write_text(
        json.dumps({'allowed_owners': [OCA], 'min_api_version': '1.0'}))
    found = sev_attest('platform', 'verify', *made, *options)
    assert (found.status, found.out) == (2, '')
    assert message in found.error


@pytest.mark.parametrize(('form', 'text'), [
    ('json', '{\n  "rules": [\n    "trusted_roots"\n  ]\n}\n'),
    ('value', "['trusted_roots']\n"),
    ('table', 'trusted_roots')])
def test_formats(sev_attest, made, form, text):
    found = sev_attest('platform', 'verify', *made[:-2], '--allow-root',
                       'lab', '-f', form, '-c', 'rules')
    assert found.status == 0
    assert text in found.out
