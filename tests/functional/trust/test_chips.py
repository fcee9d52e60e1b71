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

import concurrent.futures
import hashlib
import os
import pathlib
import subprocess
import sys

import filelock
import pytest

from nova_sev_attest.launch import certificates
from nova_sev_attest.trust import chips
from nova_sev_attest.trust import kds
from tests.functional.trust import asker
from tests.unit.launch import platforms

REPOSITORY = pathlib.Path(asker.__file__).parents[3]
CHIP = bytes(range(64))
OTHER = CHIP[::-1]
parse = certificates.SevCertificate.parse


class Chips:
    """The cache and the server of one test."""

    def __init__(self, amd, folder):
        self.amd = amd
        self.cache = folder / 'cache'
        self.store = folder / 'store'
        self.store.mkdir()
        self.pek = parse(platforms.platform().pek)
        self.cek = platforms.platform().cek
        amd.add(CHIP, self.cek)

    def make(self, **changes):
        return chips.ChipCertificates([platforms.anchor()], **{
            'cache': self.cache, 'store': self.store,
            'server': kds.HttpServer(
                self.amd.url, timeout=2, deadline=2,
                pause=kds.Pause(self.cache / 'pause'))} | changes)

    def get(self, chip_id=CHIP, **changes):
        return self.make(**changes).get(chip_id, self.pek).to_bytes()

    def refused(self, error, message, *args, **changes):
        with pytest.raises(error, match=message) as exc:
            self.get(*args, **changes)
        return exc.value


@pytest.fixture
def chip(amd, tmp_path):
    return Chips(amd, tmp_path)


def test_asked_once(chip):
    for _ in range(3):
        assert chip.get() == chip.cek
    assert chip.amd.requests == [f'/cek/id/{CHIP.hex()}']
    assert (chip.cache / f'{CHIP.hex()}.cert').read_bytes() == chip.cek


def test_cache_carried_to_a_site_without_network(chip):
    chip.get()
    assert chip.get(store=chip.cache, cache=None, server=None) == chip.cek
    assert chip.get(server=None) == chip.cek
    assert len(chip.amd.requests) == 1


def test_store_comes_first(chip):
    (chip.store / f'{CHIP.hex()}.cek').write_bytes(chip.cek)
    assert chip.get() == chip.cek
    assert chip.amd.requests == []
    assert not chip.cache.exists()


def test_unknown_chip_is_asked_for_once_in_a_while(chip):
    exc = chip.refused(chips.ChipRefused, 'answers 404: it does not have',
                       OTHER)
    assert exc.code == 'chip_refused'
    chip.refused(chips.ChipRefused, r'asked 0 s ago; asked again after 60',
                 OTHER)
    assert len(chip.amd.requests) == 1
    note = chip.cache / f'{OTHER.hex()}.refused'
    os.utime(note, (1, 1))
    chip.amd.add(OTHER, chip.cek)
    assert chip.get(OTHER) == chip.cek
    assert len(chip.amd.requests) == 2


def test_old_notes_are_thrown_away(chip):
    chip.refused(chips.ChipRefused, '404', OTHER)
    note = chip.cache / f'{OTHER.hex()}.refused'
    os.utime(note, (1, 1))
    chip.refused(chips.ChipRefused, '404', b'yet another chip')
    assert not note.exists()


def test_fresh_notes_are_kept(chip):
    for chip_id in (OTHER, b'yet another chip', OTHER):
        chip.refused(chips.ChipRefused, '404', chip_id)
    assert len(chip.amd.requests) == 2


def test_another_chip_is_not_held_back(chip):
    chip.refused(chips.ChipRefused, '404', OTHER)
    assert chip.get() == chip.cek


@pytest.mark.parametrize(('answer', 'message'), [
    (b'<html>Hello</html>', 'no SEV certificate for chip .* 2084 bytes'),
    (bytes(2084), 'no SEV certificate for chip .* version 0'),
    (bytes(2085), 'at most 2084 bytes'),
])
def test_garbage(chip, answer, message):
    chip.amd.add(CHIP, answer)
    for _ in range(2):
        chip.refused(chips.ChipRefused, message)
    assert len(chip.amd.requests) == 1
    assert not list(chip.cache.glob('*.cert'))


def test_cek_of_another_chip(chip):
    chip.amd.add(CHIP, platforms.platform(name='other').cek)
    for _ in range(2):
        chip.refused(chips.ChipRefused,
                     f"{chip.amd.url}, chip {CHIP.hex()}: .* did not sign "
                     f"the host's PEK")
    assert len(chip.amd.requests) == 1
    assert not list(chip.cache.glob('*.cert'))


def test_cek_of_another_root(chip):
    chip.amd.add(CHIP, platforms.platform('another').cek)
    chip.refused(chips.ChipRefused, 'no CEK signed by the ASK')
    assert not list(chip.cache.glob('*.cert'))


def test_throttled_by_the_server(chip):
    chip.amd.next = [(429, {'Retry-After': '1'})]
    assert chip.get() == chip.cek
    assert len(chip.amd.requests) == 2


def test_throttled_for_long(chip):
    chip.amd.next = [(429, {'Retry-After': '300'})]
    for _ in range(2):
        chip.refused(kds.KeyServerUnavailable, 'not asked again for')
    assert len(chip.amd.requests) == 1
    # No word was said against the chip.
    (chip.cache / 'pause').unlink()
    assert chip.get() == chip.cek


def test_cached_chip_while_the_server_is_away(chip):
    chip.get()
    chip.amd.next = [500] * 9
    assert chip.get() == chip.cek


def test_waits_no_longer_than_it_should(chip):
    chip.cache.mkdir()
    number = hashlib.sha256(CHIP).digest()[0]
    with filelock.FileLock(chip.cache / f'{number:02x}.lock'):
        chip.refused(kds.KeyServerUnavailable, 'others are still asking',
                     server=kds.HttpServer(chip.amd.url, deadline=0.1))
    assert chip.get() == chip.cek


def test_waits_as_long_as_two_that_ask(chip, monkeypatch):
    waited = []
    lock = filelock.FileLock

    def recorded(path, timeout):
        waited.append(timeout)
        return lock(path, timeout=timeout)

    monkeypatch.setattr(filelock, 'FileLock', recorded)
    chip.get(server=kds.HttpServer(chip.amd.url, deadline=3))
    assert waited == [6]


def test_folder_of_the_cache_is_made(chip, tmp_path):
    cache = tmp_path / 'var' / 'cache'
    mask = os.umask(0)
    try:
        chip.get(cache=cache)
    finally:
        os.umask(mask)
    assert cache.stat().st_mode & 0o777 == 0o755


def test_threads_ask_once(chip):
    chip.amd.delay = 0.2
    finder = chip.make()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(
            lambda _number: finder.get(CHIP, chip.pek), range(8)))
    assert {cek.to_bytes() for cek in found} == {chip.cek}
    assert len(chip.amd.requests) == 1


@pytest.mark.parametrize('known', (True, False))
def test_processes_ask_once(chip, tmp_path, known):
    chip.amd.delay = 1.0
    if not known:
        chip.amd.files.clear()
    (tmp_path / 'ask_ark.cert').write_bytes(platforms.ask_ark())
    (tmp_path / 'pek.cert').write_bytes(chip.pek.to_bytes())
    processes = [subprocess.Popen(
        [sys.executable, '-m', asker.__name__, chip.amd.url,
         str(chip.cache), str(tmp_path), CHIP.hex()], cwd=REPOSITORY,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        if known:
            assert output.strip() == hashlib.sha256(chip.cek).hexdigest()
            assert process.returncode == 0, errors
        else:
            assert 'ChipRefused' in errors
    assert len(chip.amd.requests) == 1


def test_cache_that_cannot_be_written(chip, tmp_path):
    (tmp_path / 'cache').write_text('no folder')
    exc = chip.refused(chips.ChipStoreUnusable, 'cannot be|Not a directory')
    assert exc.code == 'chip_store_unusable'
