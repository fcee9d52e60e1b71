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
import hashlib
import textwrap

import hypothesis
from hypothesis import strategies
import pytest

from nova_sev_attest.launch import bundle
from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import errors
from tests.unit.launch import platforms
from tests import vectors

Usage = certificates.Usage
NAMES = ('pdh', 'pek', 'oca', 'cek', 'ask', 'ark')
ORDER = [Usage[name.upper()] for name in NAMES]


def naples():
    """The real certificates, by lower-case usage."""
    found = {name: vectors.read(f'virtee-sev/tests/naples/{name}.cert')
             for name in NAMES[:4]}
    return found | {
        name: vectors.read(
            f'virtee-sev/src/certs/sev/builtin/naples/{name}.cert')
        for name in NAMES[4:]}


def made():
    platform = platforms.platform()
    ask_ark = platforms.ask_ark()
    return {name: getattr(platform, name) for name in NAMES[:4]} | {
        'ask': ask_ark[:832], 'ark': ask_ark[832:]}


def joined(parts, names=NAMES):
    return b''.join(parts[name] for name in names)


def in_base64(data):
    return base64.b64encode(data)


def wrapped(data):
    return base64.encodebytes(data)


def pem(data, label='CERTIFICATE', newline='\n'):
    lines = textwrap.wrap(base64.b64encode(data).decode(), 64)
    return newline.join([f'-----BEGIN {label}-----', *lines,
                         f'-----END {label}-----', '']).encode()


ARMOURS = {'raw': bytes, 'base64': in_base64, 'base64 in lines': wrapped,
           'pem': pem,
           'pem of a PC': lambda data: pem(data, 'SEV CHAIN 1', '\r\n')}

# What is in which file, as the tools of today write it.
LAYOUTS = {
    'sevctl full': [NAMES],
    'sevctl and ask_ark': [NAMES[:4], NAMES[4:]],
    'libvirt and ask_ark': [NAMES[:1], NAMES[1:4], NAMES[4:]],
    'libvirt, ask, ark': [NAMES[:1], NAMES[1:4], NAMES[4:5], NAMES[5:]],
    'single files': [(name,) for name in NAMES],
}


def read(**files):
    return bundle.Bundle.read(files)


def refused(error, message, files):
    with pytest.raises(error, match=message) as exc:
        bundle.Bundle.read(files)
    assert isinstance(exc.value, errors.LaunchError)
    return exc.value


@pytest.mark.parametrize('armour', ARMOURS)
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('parts', (naples, made))
def test_layouts(layout, armour, parts):
    parts = parts()
    found = bundle.Bundle.read({
        '+'.join(names): ARMOURS[armour](joined(parts, names))
        for names in LAYOUTS[layout]})
    assert {usage.name.lower(): certificate.to_bytes()
            for usage, certificate in found.certificates.items()} == parts
    for usage, name in found.origins.items():
        assert usage.name.lower() in name.split('+')


def test_real_chain_verifies_from_its_files():
    found = read(all=joined(naples()))
    platform = found.platform()
    assert {name: getattr(platform, name).to_bytes()
            for name in NAMES[:4]} == {
                name: naples()[name] for name in NAMES[:4]}
    found.get(Usage.ASK).verify_issued_by(found.get(Usage.ARK))
    platform.cek.verify_issued_by(found.get(Usage.ASK))


@pytest.mark.parametrize('generation',
                         ('naples', 'rome', 'milan', 'genoa', 'turin'))
def test_real_ask_ark_of_each_generation(generation):
    root = f'virtee-sev/src/certs/sev/builtin/{generation}'
    ask, ark = (vectors.read(f'{root}/{name}.cert') for name in ('ask', 'ark'))
    found = read(file=pem(ask + ark))
    assert found.get(Usage.ASK).sha256 == hashlib.sha256(ask).digest()
    assert found.get(Usage.ARK).sha256 == hashlib.sha256(ark).digest()


def test_says_what_was_recognised():
    parts = made()
    assert dict(read(
        chain=joined(parts, ('pek', 'oca', 'cek')), pdh=parts['pdh'],
        amd=joined(parts, ('ask', 'ark'))).recognised) == {
            'chain': "libvirt's cert-chain (PEK, OCA, CEK)", 'pdh': 'PDH',
            'amd': "AMD's ask_ark bundle (ASK, ARK)"}
    assert dict(read(all=joined(parts)).recognised) == {
        'all': "sevctl's full chain (PDH, PEK, OCA, CEK, ASK, ARK)"}


def test_pem_block_for_each_certificate():
    parts = made()
    text = b'\n'.join(pem(parts[name], name.upper()) for name in NAMES)
    assert len(read(file=text).certificates) == 6


class TestOverlap:
    """Layouts that share certificates."""

    def test_files(self):
        parts = made()
        found = bundle.Bundle.read({
            'pdh': parts['pdh'], 'full': joined(parts, NAMES),
            'ask_ark': joined(parts, ('ask', 'ark'))})
        assert [found.get(usage).to_bytes() for usage in ORDER] == [
            parts[name] for name in NAMES]
        assert found.origins[Usage.PDH] == 'pdh'
        assert set(found.origins.values()) == {'pdh', 'full'}

    def test_in_one_file(self):
        pdh = made()['pdh']
        found = read(a=pdh * 2)
        assert found.recognised == {'a': 'PDH, PDH'}
        assert found.get(Usage.PDH).to_bytes() == pdh


class TestConflicts:

    @pytest.mark.parametrize('name', NAMES)
    def test_another_after_the_same_one_twice(self, name):
        parts = made()
        other = (platforms.ask_ark('other')[832 * (name == 'ark'):][:832]
                 if name in ('ask', 'ark') else
                 getattr(platforms.platform(name='other'), name))
        exc = refused(bundle.BundleConflict,
                      f'a and c hold different {name.upper()} ',
                      {'a': parts[name], 'b': parts[name], 'c': other})
        assert exc.code == 'bundle_conflict'

    @pytest.mark.parametrize('name', NAMES[:4])
    def test_two_platforms(self, name):
        other = getattr(platforms.platform(name='other'), name)
        refused(bundle.BundleConflict,
                f'a and b hold different {name.upper()} .*Recognised: '
                f'a: {name.upper()}; b: {name.upper()}$',
                {'a': made()[name], 'b': other})

    def test_two_roots(self):
        other = platforms.ask_ark('other')[:832]
        refused(bundle.BundleConflict, 'different ASK',
                {'a': made()['ask'], 'b': other})


class TestSignedCek:
    """The host's CEK gives way to the one that AMD signed."""

    def unsigned(self):
        return made()['cek'][:0x414] + 2 * platforms.EMPTY_SLOT

    @pytest.mark.parametrize('first', (True, False))
    def test_takes_the_place(self, first):
        signed = made()['cek']
        files = [('host', self.unsigned()), ('amd', signed)]
        found = bundle.Bundle.read(dict(files if first else files[::-1]))
        assert found.get(Usage.CEK).to_bytes() == signed
        assert found.origins[Usage.CEK] == 'amd'

    def test_of_another_chip(self):
        other = platforms.platform(name='other').cek
        refused(bundle.BundleConflict, 'different CEK',
                {'host': self.unsigned(), 'amd': other})

    def test_two_signed_ones(self):
        # PSS signatures are random: the same body, another certificate.
        again = platforms.platform().cek
        assert again != made()['cek']
        refused(bundle.BundleConflict, 'different CEK',
                {'a': made()['cek'], 'b': again})

    def test_two_unsigned_ones(self):
        body = made()['cek'][:0x414]
        slot = platforms.ec_slot(platforms.OCA, platforms.ec_key('x'), body)
        refused(bundle.BundleConflict, 'different CEK',
                {'a': self.unsigned(),
                 'b': body + slot + platforms.EMPTY_SLOT})


class TestIncomplete:

    def test_no_file(self):
        refused(bundle.BundleIncomplete,
                '^no certificate file was given$', {})

    @pytest.mark.parametrize('name', NAMES[:4])
    def test_platform(self, name):
        parts = made()
        found = read(file=joined(parts, [
            other for other in NAMES if other != name]))
        with pytest.raises(bundle.BundleIncomplete,
                           match=f'missing: {name.upper()}. Recognised: '
                                 f'file: ') as exc:
            found.platform()
        assert exc.value.code == 'bundle_incomplete'

    def test_two_are_missing(self):
        found = read(file=joined(made(), ['pdh', 'pek']))
        with pytest.raises(bundle.BundleIncomplete,
                           match='^missing: OCA, CEK. Recognised: file: '
                                 'PDH, PEK$'):
            found.platform()

    def test_one_certificate(self):
        with pytest.raises(bundle.BundleIncomplete, match='missing: ARK'):
            read(file=made()['ask']).get(Usage.ARK)


class TestNaplesArkWithoutSignature:

    def parts(self):
        return {'ark': vectors.read('virtee-sev/tests/naples/ark.cert.bad'),
                'sig': vectors.read('virtee-sev/tests/naples/ark.cert.sig')}

    @pytest.mark.parametrize('armour', ARMOURS)
    def test_completed(self, armour):
        found = bundle.Bundle.read({
            name: ARMOURS[armour](data)
            for name, data in self.parts().items()})
        assert found.get(Usage.ARK).to_bytes() == naples()['ark']
        assert found.recognised['sig'] == 'the signature of the ARK of Naples'

    def test_behind_its_ask(self):
        parts = self.parts()
        found = read(a=parts['sig'], b=naples()['ask'] + parts['ark'])
        assert found.get(Usage.ARK).to_bytes() == naples()['ark']

    @pytest.mark.parametrize('name', ('ark', 'sig'))
    def test_one_part_alone(self, name):
        exc = refused(bundle.BundleIncomplete, f'belong together.*: {name}$',
                      {name: self.parts()[name]})
        assert exc.code == 'bundle_incomplete'

    def test_two_signatures(self):
        parts = self.parts()
        refused(bundle.BundleIncomplete, 'found 1 and 2: ark, sig, more$',
                parts | {'more': parts['sig']})

    def test_two_of_each(self):
        parts = self.parts()
        refused(bundle.BundleIncomplete, 'found 2 and 2', parts | {
            'more': parts['ark'], 'and': parts['sig']})


@pytest.mark.parametrize(('data', 'message'), [
    (b'', 'file is empty'),
    (b' \n', 'holds no certificate'),
    (bytes(64 * 1024 + 1), 'has 65537 bytes, expected .* at most 65536'),
    (bytes(64 * 1024), 'no certificate begins at offset 0'),
    (b'\0', 'no certificate begins at offset 0; expected PDH, PEK'),
    (b'\x30\x82\x05\x00' * 4, 'X.509 certificate, as SEV-SNP'),
    (b'kernel: vmlinuz', 'neither base64 nor PEM'),
    (b'AAAA-', 'neither base64 nor PEM'),
    (b'-----BEGIN X-----\nAAA\n-----END X-----', 'neither base64 nor PEM'),
    (b'-----BEGIN X-----\nAAAA\n-----END Y-----', 'neither base64 nor PEM'),
    (b'-----BEGIN X-----\n-----END X-----', 'holds no certificate'),
    (b'-----BEGIN X-----\nAAAA\n-----END X-----\nmore', 'outside of its PEM'),
    (b'-----BEGIN X-----\nAAAA\n-----END X-----\n' * 7, 'has 7 PEM blocks'),
])
def test_malformed_file(data, message):
    exc = refused(bundle.BundleMalformed, message, {'file': data})
    assert exc.code == 'bundle_malformed'
    assert str(exc).startswith('file')


def test_breaks_off():
    parts = made()
    for name in NAMES:
        size = len(parts[name])
        for left in (40, 100, size - 1):
            if name == 'ark' and left == 576:
                continue
            with pytest.raises(bundle.BundleMalformed,
                               match='breaks off|no certificate begins'):
                read(file=parts[name][:left])
    refused(bundle.BundleMalformed, '2084 bytes of a certificate are '
            'expected at offset 2084, 2000 are there',
            {'file': parts['pdh'] + parts['pek'][:2000]})


@pytest.mark.parametrize(('name', 'header', 'size'), [
    ('pdh', 12, 2084), ('ask', 64, 832), ('ark', 64, 832)])
def test_recognised_by_its_header(name, header, size):
    data = made()[name]
    refused(bundle.BundleMalformed, f'breaks off: {size} bytes',
            {'file': data[:header]})
    refused(bundle.BundleMalformed, 'no certificate begins at offset 0',
            {'file': data[:header - 1]})


@pytest.mark.parametrize(('offset', 'value'), [
    (0, 2), (0x24, 0x14), (0x38, 1024), (0x3c, 1024)])
def test_none_of_amds(offset, value):
    data = bytearray(made()['ark'])
    data[offset:offset + 4] = value.to_bytes(4, 'little')
    refused(bundle.BundleMalformed, 'no certificate begins at offset 0',
            {'file': bytes(data)})


def test_trailing_byte():
    refused(bundle.BundleMalformed, 'begins at offset 2084',
            {'file': made()['pdh'] + b'\0'})


def test_too_many_certificates():
    refused(bundle.BundleMalformed, 'goes on after 6',
            {'file': joined(made()) + made()['pdh']})


def test_too_many_files():
    refused(bundle.BundleConflict, '17 certificate files.*at most 16',
            {str(number): b'x' for number in range(17)})
    refused(bundle.BundleMalformed, '0 is text',
            {str(number): b'xxx' for number in range(16)})


def test_damaged_certificate_says_where():
    data = bytearray(joined(made(), ('pdh', 'pek')))
    data[2084 + 6] = 1
    refused(errors.CertificateMalformed, 'file, offset 2084: the reserved',
            {'file': bytes(data)})


@strategies.composite
def spreads(draw):
    """The certificates in any order over any files in any armour."""
    names = draw(strategies.permutations(NAMES))
    cuts = sorted(draw(strategies.sets(strategies.integers(1, 5))))
    ends = [*cuts, len(names)]
    return [(names[begin:end], draw(strategies.sampled_from(sorted(ARMOURS))))
            for begin, end in zip([0, *cuts], ends)]


@hypothesis.given(spreads())
def test_any_spread_is_the_same_set(spread):
    parts = made()
    found = bundle.Bundle.read({
        str(number): ARMOURS[armour](joined(parts, names))
        for number, (names, armour) in enumerate(spread)})
    assert {usage.name.lower(): certificate.to_bytes()
            for usage, certificate in found.certificates.items()} == parts


@hypothesis.given(strategies.dictionaries(
    strategies.text(max_size=4),
    strategies.binary(max_size=3000) | strategies.text(
        '-BEGIND \nXAQ=+/', max_size=300).map(str.encode), max_size=3))
def test_any_bytes_raise_typed_errors_only(files):
    with pytest.raises(errors.FormatError):
        bundle.Bundle.read(files)


@hypothesis.given(
    strategies.data(), strategies.sampled_from(sorted(ARMOURS)))
def test_any_damage_is_seen_or_kept(data, armour):
    """No byte of what is read gets lost or mended."""
    parts = made()
    raw = bytearray(joined(parts))
    at = data.draw(strategies.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(strategies.integers(1, 255))
    try:
        found = bundle.Bundle.read({'file': ARMOURS[armour](bytes(raw))})
    except errors.FormatError:
        return
    assert b''.join(found.certificates[Usage[name.upper()]].to_bytes()
                    for name in NAMES) == raw
