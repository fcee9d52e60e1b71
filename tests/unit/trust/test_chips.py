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
import time

import pytest

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import errors
from nova_sev_attest.trust import chips
from nova_sev_attest.trust import kds
from tests.unit.launch import platforms
from tests import vectors

CHIP = bytes(range(64))
parse = certificates.SevCertificate.parse


def get(store, chip_id=CHIP, pek=None, anchor=None):
    return chips.ChipCertificates(
        [anchor or platforms.anchor()], store=store).get(
            chip_id, parse(pek or platforms.platform().pek)).to_bytes()


def refused(message, *args, error=chips.ChipRefused):
    with pytest.raises(error, match=message) as exc:
        get(*args)
    assert isinstance(exc.value, errors.LaunchError)
    return exc.value


@pytest.mark.parametrize('suffix', ('cert', 'cek'))
@pytest.mark.parametrize('armour', (bytes, base64.encodebytes))
def test_store(tmp_path, suffix, armour):
    cek = platforms.platform().cek
    (tmp_path / f'{CHIP.hex()}.{suffix}').write_bytes(armour(cek))
    assert get(tmp_path) == cek


@pytest.mark.parametrize('bits', (2048, 4096))
def test_both_sizes_of_signing_keys(tmp_path, bits):
    """Naples has 2048 bits; Rome, Milan, Genoa and Turin have 4096."""
    name = f'root of {bits}'
    platform = platforms.platform(name, bits)
    (tmp_path / f'{CHIP.hex()}.cek').write_bytes(platform.cek)
    assert get(tmp_path, CHIP, platform.pek,
               platforms.anchor(name, bits)) == platform.cek


def test_real_chip(tmp_path):
    root = 'virtee-sev/src/certs/sev/builtin/naples'
    from_amd = certificates.AmdCertificate.parse
    anchor = chain.Anchor(
        'amd-naples', from_amd(vectors.read(f'{root}/ark.cert')),
        from_amd(vectors.read(f'{root}/ask.cert')), emulated=False)
    cek, pek = (vectors.read(f'virtee-sev/tests/naples/{name}.cert')
                for name in ('cek', 'pek'))
    (tmp_path / f'{CHIP.hex()}.cek').write_bytes(cek)
    assert get(tmp_path, CHIP, pek, anchor) == cek
    refused("did not sign the host's PEK", tmp_path, CHIP,
            platforms.platform().pek, anchor)


def test_several_of_a_chip(tmp_path):
    platform, other = platforms.platform(), platforms.platform(name='other')
    (tmp_path / f'{CHIP.hex()}.cert').write_bytes(other.cek)
    (tmp_path / f'{CHIP.hex()}.cek').write_bytes(platform.cek)
    assert get(tmp_path) == platform.cek
    assert get(tmp_path, CHIP, other.pek) == other.cek


def test_none(tmp_path):
    exc = refused(f"platform's CEK is not known .*{CHIP.hex()}.cert.* "
                  f'key_server', tmp_path)
    assert exc.code == 'chip_refused'
    refused('CEK is not known', None)


@pytest.mark.parametrize(('data', 'message'), [
    (b'', 'is empty'),
    (platforms.platform().pdh, 'PDH, expected a CEK'),
    (platforms.platform('another').cek, 'no CEK signed by the ASK'),
    (platforms.platform(name='other').cek, "did not sign the host's PEK"),
    (platforms.platform().cek[:0x414] + 2 * platforms.EMPTY_SLOT,
     'no CEK signed by the ASK'),
])
def test_file_that_does_not_fit(tmp_path, data, message):
    path = tmp_path / f'{CHIP.hex()}.cert'
    path.write_bytes(data)
    refused(f'{path}.*{message}.*until the file is replaced', tmp_path)


def test_file_that_cannot_be_read(tmp_path):
    (tmp_path / f'{CHIP.hex()}.cert').mkdir()
    exc = refused('Is a directory', tmp_path, error=chips.ChipStoreUnusable)
    assert exc.code == 'chip_store_unusable'


@pytest.mark.parametrize('size', (0, 7, 65))
def test_size_of_the_id(tmp_path, size):
    refused(f'8 to 64 bytes, this has {size}', tmp_path, bytes(size))


class TestConfiguration:

    def conf(self, tmp_path, **options):
        conf = conf_keyservice.load(config_files=[])
        conf.set_override('chip_cache', str(tmp_path / 'var' / 'cache'),
                          group='trust')
        for name, value in options.items():
            conf.set_override(name, value, group='trust')
        return conf.trust

    def test_no_network_by_default(self, tmp_path):
        found = chips.from_conf(self.conf(tmp_path), [platforms.anchor()])
        with pytest.raises(chips.ChipRefused, match='CEK is .* key_server'):
            found.get(CHIP, parse(platforms.platform().pek))
        assert list(tmp_path.iterdir()) == []

    def test_key_server(self, tmp_path):
        """The pause of an earlier process holds: nothing is asked."""
        conf = self.conf(tmp_path, key_server='http://127.0.0.1:9/kds/')
        found = chips.from_conf(conf, [platforms.anchor()])
        (tmp_path / 'var' / 'cache' / 'pause').write_text(
            str(time.time() + 600))
        with pytest.raises(
                kds.KeyServerUnavailable,
                match=f'http://127.0.0.1:9/kds/cek/id/{CHIP.hex()}: .* for '
                      f'(600|59.) s'):
            found.get(CHIP, parse(platforms.platform().pek))

    def test_every_option_reaches_the_server(self, tmp_path, monkeypatch):
        given = {}
        monkeypatch.setattr(kds, 'HttpServer', lambda url, **options: (
            given.update(options, url=url)))
        (tmp_path / 'var' / 'cache').mkdir(parents=True)
        chips.from_conf(self.conf(
            tmp_path, key_server='http://127.0.0.1:9',
            key_server_proxy='http://127.0.0.1:8', key_server_timeout=3,
            key_server_deadline=7, key_server_ca_file='/ca'), [])
        assert isinstance(given.pop('pause'), kds.Pause)
        assert given == {
            'url': 'http://127.0.0.1:9', 'proxy': 'http://127.0.0.1:8',
            'ca_file': '/ca', 'timeout': 3, 'deadline': 7}

    def test_folder_of_the_cache_is_made(self, tmp_path):
        mask = os.umask(0)
        try:
            chips.from_conf(
                self.conf(tmp_path, key_server='http://127.0.0.1:9'), [])
        finally:
            os.umask(mask)
        assert (tmp_path / 'var' / 'cache').stat().st_mode & 0o777 == 0o755

    def test_store(self, tmp_path):
        cek, pek = platforms.platform().cek, platforms.platform().pek
        (tmp_path / f'{CHIP.hex()}.cek').write_bytes(cek)
        found = chips.from_conf(
            self.conf(tmp_path, chip_certificates=str(tmp_path)),
            [platforms.anchor()])
        assert found.get(CHIP, parse(pek)).to_bytes() == cek
