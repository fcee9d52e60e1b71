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

import pytest

from tests.unit.launch import platforms
from tests import vectors

NAPLES = [f'virtee-sev/tests/naples/{name}.cert'
          for name in ('pdh', 'pek', 'oca', 'cek')]
BUILTIN = 'virtee-sev/src/certs/sev/builtin'


@pytest.fixture
def made(tmp_path):
    """A made platform: its files."""
    platform = platforms.platform()
    ask_ark = platforms.ask_ark()
    contents = {
        'pdh': platform.pdh, 'cert-chain': platform.cert_chain,
        'pdh.b64': base64.b64encode(platform.pdh) + b'\n',
        'other-pdh': platforms.platform(name='other').pdh,
        'full': platform.pdh + platform.cert_chain + ask_ark,
        'pek': platform.pek, 'oca': platform.oca, 'cek': platform.cek,
        'anchor': ask_ark,
        'stranger': platforms.ask_ark('stranger')}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


class TestNaples:

    def paths(self):
        return [vectors.directory() / name for name in NAPLES]

    def test_with_amd_s_certificates_among_the_files(self, sev_attest):
        found = sev_attest(
            'platform', 'verify', *self.paths(), *(
                vectors.directory() / f'{BUILTIN}/naples/{name}.cert'
                for name in ('ask', 'ark')), '-f', 'json')
        assert found.status == 0
        assert found.json['platform_root'] == 'amd-naples'
        assert found.json['emulated'] is False
        assert found.json['api_version'] == '0.16'
        assert found.json['cek_fingerprint'].startswith('cbecc40f5b7d7e98')
        assert list(found.json['recognised'].values()) == [
            'PDH', 'PEK', 'OCA', 'CEK', 'ASK', 'ARK']

    def test_with_amd_s_folder(self, sev_attest, tmp_path):
        for generation in ('naples', 'milan'):
            (tmp_path / f'ask_ark_{generation}.cert').write_bytes(b''.join(
                vectors.read(f'{BUILTIN}/{generation}/{name}.cert')
                for name in ('ask', 'ark')))
        found = sev_attest('platform', 'verify', *self.paths(),
                           '--amd-certificates', tmp_path,
                           '-f', 'value', '-c', 'platform_root')
        assert (found.status, found.out) == (0, 'amd-naples\n')

    def test_refused_under_another_root(self, sev_attest):
        found = sev_attest(
            'platform', 'verify', *self.paths(), *(
                vectors.directory() / f'{BUILTIN}/milan/{name}.cert'
                for name in ('ask', 'ark')))
        assert (found.status, found.out) == (1, '')
        assert 'tried: amd-milan' in found.error

    def test_refused_without_a_root(self, sev_attest):
        found = sev_attest('platform', 'verify', *self.paths())
        assert found.status == 1
        assert 'tried: none' in found.error

    def test_refused_when_changed(self, sev_attest, tmp_path):
        paths = self.paths()
        pdh = bytearray(paths[0].read_bytes())
        pdh[0x420] ^= 1  # of the PEK's signature
        (tmp_path / 'pdh').write_bytes(pdh)
        found = sev_attest(
            'platform', 'verify', tmp_path / 'pdh', *paths[1:], *(
                vectors.directory() / f'{BUILTIN}/naples/{name}.cert'
                for name in ('ask', 'ark')))
        assert (found.status, found.out) == (1, '')
        assert 'PDH <- PEK' in found.error


@pytest.mark.parametrize('names', [
    ('pdh', 'cert-chain'), ('pdh.b64', 'cert-chain'), ('full',),
    ('cek', 'oca', 'pek', 'pdh'), ('anchor', 'full', 'pdh.b64', 'pdh')])
def test_layouts(sev_attest, made, names):
    found = sev_attest('platform', 'verify', *(made / name for name in names),
                       '--anchor', f'lab={made / "anchor"}', '-f', 'json')
    assert found.status == 0
    assert found.json['platform_root'] == 'lab'
    assert found.json['emulated'] is True


def test_standard_input(sev_attest, made):
    found = sev_attest('platform', 'verify', '-', '--anchor',
                       f'lab={made / "anchor"}', '-f', 'json',
                       stdin=(made / 'full').read_bytes())
    assert found.status == 0
    assert found.json['recognised']['-'].startswith("sevctl's full chain")


def test_a_root_that_the_host_shows_is_not_trusted(sev_attest, made):
    found = sev_attest('platform', 'verify', made / 'full')
    assert (found.status, found.out) == (1, '')
    assert 'tried: none' in found.error


def test_wrong_anchor(sev_attest, made):
    found = sev_attest('platform', 'verify', made / 'full', '--anchor',
                       f'lab={made / "stranger"}')
    assert found.status == 1
    assert 'tried: lab' in found.error


def test_root_that_misses_its_pin(sev_attest, made, tmp_path):
    folder = tmp_path / 'amd'
    folder.mkdir()
    (folder / 'ask_ark_milan.cert').write_bytes(
        platforms.ask_ark(bits=4096))
    found = sev_attest('platform', 'verify', made / 'full',
                       '--amd-certificates', folder)
    assert found.status == 1
    assert 'expected 1246469862b7' in found.error


CHIP = 'ab' * 64


class TestChip:

    @pytest.fixture
    def hosts(self, made):
        """What a host shows: its own copy of the CEK, not signed."""
        platform = platforms.platform()
        unsigned = (platform.cek[:0x414] + 2 * platforms.EMPTY_SLOT)
        path = made / 'host'
        path.write_bytes(platform.pdh + platform.pek + platform.oca +
                         unsigned)
        (made / 'chips').mkdir()
        return path

    def verify(self, sev_attest, made, hosts, *more):
        return sev_attest(
            'platform', 'verify', hosts, '--anchor',
            f'lab={made / "anchor"}', '--chip-id', CHIP,
            '--chip-certificates', made / 'chips', '-f', 'json', *more)

    def test_signed_cek_of_the_folder(self, sev_attest, made, hosts):
        (made / 'chips' / f'{CHIP}.cert').write_bytes(
            (made / 'cek').read_bytes())
        found = self.verify(sev_attest, made, hosts)
        assert found.status == 0
        assert found.json['chip_id'] == CHIP

    def test_among_the_files(self, sev_attest, made, hosts):
        found = sev_attest('platform', 'verify', hosts, made / 'cek',
                           '--anchor', f'lab={made / "anchor"}',
                           '-f', 'json')
        assert found.status == 0
        assert found.json['chip_id'] is None

    def test_the_host_s_own_is_refused(self, sev_attest, made, hosts):
        found = sev_attest('platform', 'verify', hosts, '--anchor',
                           f'lab={made / "anchor"}')
        assert found.status == 1
        assert 'CEK <- ASK' in found.error

    def test_folder_without_it(self, sev_attest, made, hosts):
        found = self.verify(sev_attest, made, hosts)
        assert (found.status, found.out) == (1, '')
        assert '--fetch-cek' in found.error

    def test_cek_of_another_chip(self, sev_attest, made, hosts):
        (made / 'chips' / f'{CHIP}.cert').write_bytes(
            platforms.platform(name='other').cek)
        found = self.verify(sev_attest, made, hosts)
        assert found.status == 1
        assert 'did not sign' in found.error


@pytest.mark.parametrize(('argv', 'message'), [
    (('full', '--chip-id', CHIP), 'go together'),
    (('full', '--fetch-cek'), 'go together'),
    (('full', '--chip-id', 'xy'), '16 to 128 hexadecimal digits'),
    (('pdh',), 'missing: PEK, OCA, CEK'),
    (('pdh', 'pdh'), 'given twice'),
    (('pdh', 'other-pdh', 'cert-chain'), 'hold different PDH'),
    (('nothing',), 'nothing: No such file'),
    (('full', '--amd-certificates', 'nothing'), 'nothing'),
    (('full', '--anchor', 'x'), 'expected name='),
    (('full', '--anchor', 'x=nothing'), 'cannot be read'),
    (('full', '--anchor', 'x=pdh'), 'expected an ASK and an ARK'),
])
def test_unusable(sev_attest, made, monkeypatch, argv, message):
    monkeypatch.chdir(made)
    found = sev_attest('platform', 'verify', *argv)
    assert (found.status, found.out) == (2, '')
    assert message in found.error
