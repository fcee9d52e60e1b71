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
import logging
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


class Server:
    """AMD's key server, as far as a ChipCertificates sees it."""

    url = 'http://amd'
    deadline = 2

    def __init__(self, files):
        self.files = files
        self.asked = []

    def get(self, path, max_size):
        self.asked.append(path)
        if path not in self.files:
            raise kds.KeyServerRefusal(f'{path}: it does not have it')
        return self.files[path]


class TestServer:

    PATH = f'/cek/id/{CHIP.hex()}'

    @pytest.fixture
    def server(self):
        return Server({self.PATH: platforms.platform().cek})

    @pytest.fixture
    def now(self, monkeypatch):
        """A clock that stands still: a list of one time, which can be set."""
        now = [1000.0]
        monkeypatch.setattr(time, 'time', lambda: now[0])
        return now

    def get(self, server, cache, chip_id=CHIP, pek=None, **options):
        return chips.ChipCertificates(
            [platforms.anchor()], cache=cache, server=server, **options).get(
                chip_id, parse(pek or platforms.platform().pek)).to_bytes()

    def refused(self, message, *args, error=chips.ChipRefused, **options):
        with pytest.raises(error, match=message) as exc:
            self.get(*args, **options)
        return str(exc.value)

    def note(self, cache, chip_id, at, text=b'AMD: no such chip'):
        """What a process wrote that the server refused a chip to, then."""
        path = cache / f'{chip_id.hex()}.refused'
        path.write_bytes(text)
        os.utime(path, (at, at))
        return path

    def test_store_then_cache_then_server(self, server, tmp_path):
        store, cache = tmp_path / 'store', tmp_path / 'cache'
        store.mkdir()
        cek = self.get(server, cache, store=store)
        assert server.asked == [self.PATH]
        assert self.get(server, cache, store=store) == cek
        assert server.asked == [self.PATH]
        (cache / f'{CHIP.hex()}.cert').write_bytes(b'damaged')
        self.refused(f'{cache}/.*Nothing else is tried', server, cache,
                     store=store)
        (store / f'{CHIP.hex()}.cek').write_bytes(cek)
        assert self.get(server, cache, store=store) == cek
        assert server.asked == [self.PATH]

    def test_is_not_asked_without_a_cache(self, server):
        """What cannot be kept would be asked for at every launch."""
        self.refused('CEK is not known here', server, None)
        assert server.asked == []

    def test_is_not_asked_unless_it_may_be(self, server, tmp_path):
        found = chips.ChipCertificates([platforms.anchor()], cache=tmp_path,
                                       server=server)
        with pytest.raises(chips.ChipRefused, match='CEK is not known here'):
            found.get(CHIP, parse(platforms.platform().pek), may_ask=False)
        assert server.asked == []
        assert list(tmp_path.iterdir()) == []

    def test_folder_of_the_cache_that_cannot_be_made(self, server, tmp_path):
        """It is on a disk that is not mounted."""
        (tmp_path / 'cache').symlink_to('nowhere')
        self.refused('^the cache of chip certificates cannot be used: .*File '
                     'exists', server, tmp_path / 'cache',
                     error=chips.ChipStoreUnusable)
        assert server.asked == []

    def test_operators_learn_what_was_had(self, server, tmp_path, caplog):
        caplog.set_level(logging.INFO, chips.__name__)
        cek = self.get(server, tmp_path)
        assert caplog.messages == [
            f'The CEK of chip {CHIP.hex()} was had from http://amd; its '
            f'SHA-256 is {parse(cek).sha256.hex()}.']

    def test_files_that_do_not_fit_are_all_named(self, server, tmp_path):
        paths = [tmp_path / f'{CHIP.hex()}.{suffix}'
                 for suffix in ('cert', 'cek')]
        for path in paths:
            path.write_bytes(platforms.platform().pdh)
        assert self.refused('Nothing else', server, tmp_path) == (
            f'{paths[0]} holds PDH, expected a CEK; {paths[1]} holds PDH, '
            f'expected a CEK. Nothing else is tried for chip {CHIP.hex()} '
            f'until the file is replaced or removed')
        assert server.asked == []

    @pytest.mark.parametrize(('age', 'asked'), [
        (-1, True), (0, False), (59, False), (60, True), (61, True)])
    def test_how_long_a_refusal_is_heeded(self, server, tmp_path, now, age,
                                          asked):
        """Not at all when the clock was set back since."""
        self.note(tmp_path, CHIP, now[0] - age)
        if asked:
            self.get(server, tmp_path)
        else:
            self.refused(rf'^AMD: no such chip \(asked {age} s ago; asked '
                         r'again after 60 s\)$', server, tmp_path)
        assert server.asked == [self.PATH] * asked

    def test_note_that_is_cut_within_a_character(self, server, tmp_path,
                                                 now):
        self.note(tmp_path, CHIP, now[0], 'ä'.encode()[:1])
        self.refused('^\ufffd \\(asked 0 s ago', server, tmp_path)

    @pytest.mark.parametrize(('age', 'kept'), [
        (-5, True), (59, True), (60, True), (61, False)])
    def test_notes_that_are_thrown_away(self, server, tmp_path, now, age,
                                        kept):
        note = self.note(tmp_path, b'another chip', now[0] - age)
        self.refused('does not have it', server, tmp_path, b'yet another')
        assert note.exists() is kept

    def test_notes_that_another_process_threw_away(self, server, tmp_path,
                                                   now):
        """Theirs are listed, and are gone when they are looked at."""
        notes = []
        for number in range(8):
            notes.append(self.note(tmp_path, b'chip %03d' % number, 1))
            gone = tmp_path / f'gone-{number}.refused'
            gone.symlink_to('nowhere')
        self.refused('does not have it', server, tmp_path, b'yet another')
        assert not any(note.exists() for note in notes)


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
