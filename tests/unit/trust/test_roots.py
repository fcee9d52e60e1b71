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

import tracemalloc

from cryptography import x509
import pytest

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import errors
from nova_sev_attest.trust import roots
from tests.unit.launch import platforms
from tests import vectors

GENERATIONS = ('naples', 'rome', 'milan', 'genoa', 'turin')


def amd(generation, name):
    return vectors.read(
        f'virtee-sev/src/certs/sev/builtin/{generation}/{name}.cert')


@pytest.fixture
def folder(tmp_path):
    """A folder with AMD's files, as AMD names them."""
    for generation in GENERATIONS:
        (tmp_path / f'ask_ark_{generation}.cert').write_bytes(
            amd(generation, 'ask') + amd(generation, 'ark'))
    return tmp_path


def refused(message, *args, **kwargs):
    with pytest.raises(roots.AnchorRefused, match=message) as exc:
        roots.load_anchors(*args, **kwargs)
    assert exc.value.code == 'anchor_refused'
    assert isinstance(exc.value, errors.LaunchError)


def test_all_generations(folder):
    (folder / 'README').write_text('not a certificate')
    anchors = roots.load_anchors(folder)
    assert tuple(anchor.name for anchor in anchors) == roots.AMD_ROOTS
    assert roots.AMD_ROOTS == tuple(f'amd-{name}' for name in GENERATIONS)
    assert {anchor.emulated for anchor in anchors} == {False}


def test_only_what_is_there(folder):
    for generation in ('naples', 'turin', 'rome'):
        (folder / f'ask_ark_{generation}.cert').unlink()
    assert [anchor.name for anchor in roots.load_anchors(str(folder))] == [
        'amd-milan', 'amd-genoa']


def test_no_folder_is_no_root():
    assert roots.load_anchors() == []


def test_every_file_is_verified_under_its_own_pin_only(folder):
    rome = (folder / 'ask_ark_rome.cert').read_bytes()
    (folder / 'ask_ark_milan.cert').write_bytes(rome)
    refused('ask_ark_milan.cert: the ARK has SHA-256 865977b2.*12464698',
            folder)


@pytest.mark.parametrize('generation', GENERATIONS)
@pytest.mark.parametrize('part', (0, 1))
def test_one_bit_of_a_signature(folder, generation, part):
    path = folder / f'ask_ark_{generation}.cert'
    data = bytearray(path.read_bytes())
    data[(part + 1) * len(data) // 2 - 1] ^= 1
    path.write_bytes(data)
    refused(f'{path}: the {"ARK" if part else "ASK"} has SHA-256', folder)


def test_malformed_file_of_amd(folder):
    path = folder / 'ask_ark_genoa.cert'
    path.write_bytes(bytes(3200))
    refused(f'{path}: expected an ASK and an ARK', folder)


def test_emulated_root_in_the_folder_of_amd(tmp_path):
    (tmp_path / 'ask_ark_naples.cert').write_bytes(platforms.ask_ark())
    refused('the ARK has SHA-256', tmp_path)
    (tmp_path / 'ask_ark_naples.cert').rename(
        tmp_path / 'ask_ark_mine.cert')
    refused("no pin is known for generation 'mine'; expected one of naples, "
            "rome, milan, genoa, turin. A root that is not AMD's belongs in "
            'the extra anchors$', tmp_path)


@pytest.mark.parametrize('generation', ('milan', 'genoa', 'turin'))
def test_keys_are_those_of_amds_certificates_for_sev_snp(generation):
    for name in ('ask', 'ark'):
        from_snp = x509.load_pem_x509_certificate(vectors.read(
            f'virtee-sev/src/certs/snp/builtin/{generation}/{name}.pem'))
        found = certificates.AmdCertificate.parse(amd(generation, name))
        assert found.public_key().public_numbers() == (
            from_snp.public_key().public_numbers())
        other = amd('rome', name)
        assert certificates.AmdCertificate.parse(
            other).public_key().public_numbers() != (
                from_snp.public_key().public_numbers())


class TestRecognise:
    """Certificates that came with a platform's, not from a file's name."""

    def pair(self, ask, ark):
        parse = certificates.AmdCertificate.parse
        return (parse(amd(ask, 'ask')), parse(amd(ark, 'ark')))

    @pytest.mark.parametrize('generation', GENERATIONS)
    def test_generation(self, generation):
        anchor = roots.recognise(*self.pair(generation, generation))
        assert anchor.name == f'amd-{generation}'
        assert anchor.emulated is False

    def test_of_two_generations(self):
        with pytest.raises(roots.AnchorRefused, match='no pair of AMD'):
            roots.recognise(*self.pair('rome', 'milan'))

    def test_emulated(self):
        made = platforms.anchor()
        with pytest.raises(roots.AnchorRefused,
                           match=f'^the ARK has SHA-256 '
                                 f'{made.ark.sha256.hex()} and the ASK '
                                 f'{made.ask.sha256.hex()}, .*knows '
                                 r'\(naples, rome, milan, genoa, turin\)$'):
            roots.recognise(made.ask, made.ark)


class TestNaplesWithoutItsSignature:

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / 'ask_ark_naples.cert').write_bytes(
            amd('naples', 'ask') +
            vectors.read('virtee-sev/tests/naples/ark.cert.bad'))
        return tmp_path

    def signature(self):
        return vectors.read('virtee-sev/tests/naples/ark.cert.sig')

    def test_completed(self, folder):
        (folder / 'ark_naples.sig').write_bytes(self.signature())
        anchor, = roots.load_anchors(folder)
        assert anchor.ark.to_bytes() == amd('naples', 'ark')

    def test_no_signature(self, folder):
        refused('ark_naples.sig cannot be read', folder)

    def test_size_of_the_signature(self, folder):
        (folder / 'ark_naples.sig').write_bytes(self.signature() + b'\0')
        refused('257 bytes, expected 256', folder)

    def test_another_signature(self, folder):
        (folder / 'ark_naples.sig').write_bytes(bytes(256))
        refused('the ARK has SHA-256', folder)


class TestExtra:

    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / 'ask_ark.cert'
        path.write_bytes(platforms.ask_ark())
        return path

    @pytest.mark.parametrize('bits', (2048, 4096))
    def test_is_always_emulated(self, path, bits):
        path.write_bytes(platforms.ask_ark(f'root of {bits}', bits))
        anchor, = roots.load_anchors(extra=[f'lab={path}'])
        assert (anchor.name, anchor.emulated) == ('lab', True)

    def test_comes_after_amds(self, folder, path):
        path = path.rename(folder / 'extra.cert')
        assert [anchor.name for anchor in roots.load_anchors(
            folder, [f' lab = {path} '])] == [*roots.AMD_ROOTS, 'lab']

    def test_even_amds_own_is_emulated_there(self, folder):
        anchor, = roots.load_anchors(
            extra=[f'lab={folder}/ask_ark_rome.cert'])
        assert anchor.emulated

    def test_path_with_the_separator(self, path):
        path = path.rename(path.with_name('a=b'))
        anchor, = roots.load_anchors(extra=[f'lab={path}'])
        assert anchor.name == 'lab'

    @pytest.mark.parametrize('item', ('', '/path', '=/path', 'name='))
    def test_form(self, item):
        refused('expected name=', extra=[item])

    def test_name_of_an_amd_root(self, path):
        refused('amd-milan: the name is taken', extra=[f'amd-milan={path}'])

    def test_name_given_twice(self, path):
        refused('lab: the name is taken', extra=[f'lab={path}'] * 2)

    def test_missing_file(self, tmp_path):
        refused('cannot be read', extra=[f'lab={tmp_path}/none'])

    def test_large_file(self, path):
        path.write_bytes(bytes(3201))
        refused('more than the 3200 bytes', extra=[f'lab={path}'])

    def test_huge_file_costs_nothing(self, path):
        with path.open('wb') as stream:
            stream.truncate(64 << 20)
        tracemalloc.start()
        try:
            refused('more than the 3200 bytes', extra=[f'lab={path}'])
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize('size', (0, 1664, 3200))
    def test_malformed_file(self, path, size):
        path.write_bytes(bytes(size))
        refused(f'{path}: expected an ASK and an ARK', extra=[f'lab={path}'])

    def test_ark_before_ask(self, path):
        data = platforms.ask_ark()
        path.write_bytes(data[832:] + data[:832])
        refused('usage ASK in its place', extra=[f'lab={path}'])

    def test_ask_of_another_ark(self, path):
        path.write_bytes(platforms.ask_ark()[:832] +
                         platforms.ask_ark('another')[832:])
        refused(f'{path}: .*does not verify', extra=[f'lab={path}'])


def test_missing_folder(tmp_path):
    refused('folder of AMD roots cannot be read', tmp_path / 'none')
