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

import os
import stat

from cryptography import exceptions as crypto_exceptions
from cryptography.hazmat.primitives.ciphers import aead
import pytest

from nova_sev_attest.keyservice import sealing

BOUND_TO = sealing.associated_data('launch', 'server', 'project')


@pytest.fixture
def repository(tmp_path):
    return sealing.KeyRepository(str(tmp_path / 'keys'))


def path(repository, key_id):
    return os.path.join(repository.path, key_id + '.key')


def test_no_default_key(repository):
    assert repository.ids() == []
    for use in (repository.check, repository.primary_id,
                lambda: repository.seal(b'x', BOUND_TO)):
        with pytest.raises(sealing.NoSealingKey, match='sealing-key create'):
            use()
    assert not os.path.exists(repository.path)


def test_created_key_is_the_owners_alone(repository):
    umask = os.umask(0)
    try:
        key_id = repository.create()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(os.stat(repository.path).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(path(repository, key_id)).st_mode) == 0o600
    repository.check()


def test_seal_and_open(repository):
    created = repository.create()
    key_id, sealed = repository.seal(b'0123456789abcdef', BOUND_TO)
    assert key_id == created
    assert b'0123456789abcdef' not in sealed
    assert repository.open(key_id, sealed, BOUND_TO) == b'0123456789abcdef'
    assert repository.seal(b'0123456789abcdef', BOUND_TO)[1] != sealed


def test_format(repository):
    """AES-256-GCM under the file's key: nonce, ciphertext, tag."""
    repository.create()
    key_id, sealed = repository.seal(b'plain', BOUND_TO)
    with open(path(repository, key_id)) as stream:
        cipher = aead.AESGCM(bytes.fromhex(stream.read()))
    assert cipher.decrypt(sealed[:12], sealed[12:], BOUND_TO) == b'plain'
    with pytest.raises(crypto_exceptions.InvalidTag):
        cipher.decrypt(sealed[:12], sealed[12:], None)


def test_newest_key_seals_and_older_open(repository):
    repository.create()
    old = repository.seal(b'old', BOUND_TO)
    second = repository.create()
    new = repository.seal(b'new', BOUND_TO)
    assert new[0] == second != old[0]
    assert repository.ids() == [old[0], second]
    assert repository.open(*old, BOUND_TO) == b'old'
    assert repository.open(*new, BOUND_TO) == b'new'
    with pytest.raises(sealing.SealingError, match='another launch'):
        repository.open(second, old[1], BOUND_TO)


def test_order_is_by_number(repository):
    repository.create()
    os.rename(path(repository, repository.ids()[0]),
              path(repository, '9999-00000000'))
    assert repository.create().startswith('10000-')
    assert repository.primary_id().startswith('10000-')


@pytest.mark.parametrize('bound_to', [
    sealing.associated_data('another', 'server', 'project'),
    sealing.associated_data('launch', 'another', 'project'),
    sealing.associated_data('launch', 'server', 'another'),
    sealing.associated_data('launchs', 'erver', 'project'), b''])
def test_bound_to_launch_server_and_project(repository, bound_to):
    repository.create()
    key_id, sealed = repository.seal(b'plain', BOUND_TO)
    with pytest.raises(sealing.SealingError, match='another launch'):
        repository.open(key_id, sealed, bound_to)


def test_every_byte_counts(repository):
    repository.create()
    key_id, sealed = repository.seal(b'plain', BOUND_TO)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(sealing.SealingError):
            repository.open(key_id, bytes(changed), BOUND_TO)
    for length in range(len(sealed)):
        with pytest.raises(sealing.SealingError):
            repository.open(key_id, sealed[:length], BOUND_TO)


@pytest.mark.parametrize('mode', [0o640, 0o604, 0o660, 0o644])
def test_key_that_others_may_read_is_refused(repository, mode):
    os.chmod(path(repository, repository.create()), mode)
    with pytest.raises(sealing.SealingError, match='0600'):
        repository.check()


@pytest.mark.parametrize('content', [
    '', 'x' * 64, '0' * 63, '0' * 66, 'A' * 64, '0' * 64 + '\n\n'])
def test_malformed_key(repository, content):
    key_id = repository.create()
    with open(path(repository, key_id), 'w') as stream:
        stream.write(content)
    with pytest.raises(sealing.SealingError, match='hexadecimal') as caught:
        repository.check()
    assert not content or content not in str(caught.value)


def test_links_are_not_followed(repository, tmp_path):
    key_id = repository.create()
    moved = tmp_path / 'moved'
    os.rename(path(repository, key_id), moved)
    os.symlink(moved, path(repository, key_id))
    with pytest.raises(sealing.SealingError, match='cannot be read'):
        repository.check()


def test_missing_key(repository):
    key_id = repository.create()
    sealed = repository.seal(b'x', BOUND_TO)
    os.unlink(path(repository, key_id))
    repository.create()
    with pytest.raises(sealing.SealingError, match='cannot be read'):
        repository.open(*sealed, BOUND_TO)


@pytest.mark.parametrize('key_id', ['', '../../etc/passwd', '0001-0000000g',
                                    '1-00000000', '0001-00000000\n'])
def test_ids_are_no_paths(repository, key_id):
    repository.create()
    with pytest.raises(sealing.SealingError, match='not the id'):
        repository.open(key_id, bytes(40), BOUND_TO)


def test_other_files_are_left_alone(repository):
    key_id = repository.create()
    for name in ('README', '9999-00000000.key.old', '.9999-00000000.key'):
        with open(os.path.join(repository.path, name), 'w') as stream:
            stream.write('something')
    assert repository.ids() == [key_id]
