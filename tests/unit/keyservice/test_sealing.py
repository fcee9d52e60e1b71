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
import os
import shutil
import stat

from cryptography import exceptions as crypto_exceptions
from cryptography.hazmat.primitives.ciphers import aead
import pytest

from nova_sev_attest.keyservice import sealing

BOUND_TO = sealing.associated_data('launch', 'server', 'project')


@pytest.fixture
def repository(tmp_path):
    return sealing.KeyRepository(str(tmp_path / 'keys'))


def path(repository, key_id, kind='key'):
    return os.path.join(repository.path, f'{key_id}.{kind}')


def create(repository):
    """Make the first keys; returns the primary one's id."""
    return repository.create()[0]


def states(repository):
    return [(key.id, key.state) for key in repository.keys()]


def test_no_default_key(repository):
    assert repository.keys() == []
    for use in (repository.check, repository.primary_id,
                lambda: repository.seal(b'x', BOUND_TO)):
        with pytest.raises(sealing.NoSealingKey, match='sealing-key create'):
            use()
    assert not os.path.exists(repository.path)


def test_created_key_is_the_owners_alone(repository):
    umask = os.umask(0)
    try:
        repository.create()
        repository.rotate()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(os.stat(repository.path).st_mode) == 0o700
    names = os.listdir(repository.path)
    assert len(names) == 3
    for name in names:
        found = os.stat(os.path.join(repository.path, name))
        assert stat.S_IMODE(found.st_mode) == 0o600
    repository.check()


def test_seal_and_open(repository):
    created = create(repository)
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


def test_create_makes_a_primary_and_a_staged_key(repository):
    primary, staged = repository.create()
    assert states(repository) == [(primary, sealing.PRIMARY),
                                  (staged, sealing.STAGED)]
    assert repository.create() == []
    assert len(os.listdir(repository.path)) == 2


def test_create_stages_beside_keys_of_an_older_release(repository):
    primary, staged = repository.create()
    os.unlink(path(repository, staged, 'staged'))
    sealed = repository.seal(b'x', BOUND_TO)
    staged, = repository.create()
    assert states(repository) == [(primary, sealing.PRIMARY),
                                  (staged, sealing.STAGED)]
    assert repository.seal(b'x', BOUND_TO)[0] == sealed[0] == primary


def test_rotation(repository):
    first, second = repository.create()
    old = repository.seal(b'old', BOUND_TO)
    primary, third = repository.rotate()
    assert primary == second
    assert states(repository) == [
        (first, sealing.OLD), (second, sealing.PRIMARY),
        (third, sealing.STAGED)]
    new = repository.seal(b'new', BOUND_TO)
    assert (old[0], new[0]) == (first, second)
    assert repository.open(*old, BOUND_TO) == b'old'
    assert repository.open(*new, BOUND_TO) == b'new'
    with pytest.raises(sealing.SealingError, match='another launch'):
        repository.open(second, old[1], BOUND_TO)


def test_rotation_says_when_the_key_began_to_seal(repository):
    first, second = repository.create()
    for key_id, kind in ((first, 'key'), (second, 'staged')):
        os.utime(path(repository, key_id, kind), (1000, 1000))
    repository.rotate()
    since = {key.id: key.since for key in repository.keys()}
    assert since[first].timestamp() < since[second].timestamp()
    assert since[second].year > 1970


@pytest.mark.parametrize('make', [False, True])
def test_no_rotation_without_a_staged_key(repository, make):
    if make:
        staged = repository.create()[1]
        os.unlink(path(repository, staged, 'staged'))
    else:
        os.mkdir(repository.path, 0o700)
    before = states(repository)
    with pytest.raises(sealing.SealingError, match='no staged key'):
        repository.rotate()
    assert states(repository) == before


def test_a_broken_staged_key_never_becomes_primary(repository):
    primary, staged = repository.create()
    with open(path(repository, staged, 'staged'), 'w') as stream:
        stream.write('nonsense')
    with pytest.raises(sealing.SealingError, match='hexadecimal'):
        repository.rotate()
    assert repository.primary_id() == primary


@pytest.mark.parametrize('delete', [False, True])
def test_nodes_follow_one_another(repository, tmp_path, delete):
    """At no moment seals one node what another cannot open."""
    other = sealing.KeyRepository(str(tmp_path / 'other'))

    def copy():
        if delete:
            shutil.rmtree(other.path, ignore_errors=True)
        shutil.copytree(repository.path, other.path, dirs_exist_ok=True)

    repository.create()
    copy()
    for _ in range(3):
        made = other.seal(b'x', BOUND_TO)
        repository.rotate()
        for one, another in ((repository, other), (other, repository)):
            assert another.open(*one.seal(b'y', BOUND_TO),
                                BOUND_TO) == b'y'
        assert repository.open(*made, BOUND_TO) == b'x'
        copy()
        assert states(other) == states(repository)


def test_changes_hold_without_a_restart(repository):
    """What another process does to the repository."""
    another = sealing.KeyRepository(repository.path)
    with pytest.raises(sealing.NoSealingKey):
        repository.check()
    another.create()
    sealed = repository.seal(b'x', BOUND_TO)
    primary, _staged = another.rotate()
    assert repository.seal(b'x', BOUND_TO)[0] == primary
    another.delete(sealed[0])
    with pytest.raises(sealing.SealingError, match='cannot be read'):
        repository.open(*sealed, BOUND_TO)


def test_only_old_keys_are_deleted(repository):
    first, second = repository.create()
    for key_id in (first, second, '9999-00000000', '../x'):
        with pytest.raises(sealing.SealingError, match='only old keys'):
            repository.delete(key_id)
    repository.rotate()
    repository.delete(first)
    assert first not in dict(states(repository))


def test_made_by_several_at_once(repository):
    """One primary and one staged key, and no half of a file."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = [key_id for found in pool.map(
            lambda _: sealing.KeyRepository(repository.path).create(),
            range(16)) for key_id in found]
    assert sorted(made) == [key.id for key in repository.keys()]
    assert [state for _id, state in states(repository)] == [
        sealing.PRIMARY, sealing.STAGED]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        rotated = list(pool.map(
            lambda _: sealing.KeyRepository(repository.path).rotate(),
            range(16)))
    assert len({primary for primary, _staged in rotated}) == 16
    assert len(repository.keys()) == 18
    numbers = [key.id.partition('-')[0] for key in repository.keys()]
    assert numbers == [f'{number:04d}' for number in range(1, 19)]
    for key in repository.keys():
        with pytest.raises(sealing.SealingError, match='another launch'):
            repository.open(key.id, bytes(40), BOUND_TO)


def test_sealing_goes_on_while_keys_rotate(repository):
    repository.create()

    def seal_and_open(number):
        plain = b'%d' % number
        return repository.open(*repository.seal(plain, BOUND_TO),
                               BOUND_TO) == plain

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        work = [pool.submit(seal_and_open, number) for number in range(200)]
        for _ in range(10):
            repository.rotate()
        assert all(done.result(30) for done in work)


def test_another_process_that_never_lets_go(repository, monkeypatch):
    repository.create()
    monkeypatch.setattr(sealing, '_LOCK_SECONDS', 0.1)
    with repository._locked():
        with pytest.raises(sealing.SealingError, match='another process'):
            sealing.KeyRepository(repository.path).rotate()


def test_nothing_is_left_of_a_key_that_could_not_be_written(
        repository, monkeypatch):
    os.mkdir(repository.path, 0o700)

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        with pytest.raises(OSError, match='No space'):
            repository.create()
    assert os.listdir(repository.path) == []


def test_order_is_by_number(repository):
    primary, staged = repository.create()
    os.rename(path(repository, primary), path(repository, '9999-00000000'))
    # Below the primary key's number it can never become primary.
    assert states(repository) == [(staged, sealing.OLD),
                                  ('9999-00000000', sealing.PRIMARY)]
    assert repository.create()[0].startswith('10000-')
    assert repository.rotate()[0].startswith('10000-')
    assert repository.primary_id().startswith('10000-')


@pytest.mark.skipif(os.geteuid() != 0, reason='only root gives files away')
def test_keys_that_root_makes_are_the_services(repository):
    os.mkdir(repository.path, 0o700)
    os.chown(repository.path, 12345, 12345)
    key_id = create(repository)
    assert os.stat(path(repository, key_id)).st_uid == 12345


@pytest.mark.parametrize('mode', [0o750, 0o701, 0o755, 0o770])
def test_directory_that_others_may_use_is_refused(repository, mode):
    repository.create()
    sealed = repository.seal(b'x', BOUND_TO)
    repository.rotate()
    os.chmod(repository.path, mode)
    for use in (repository.check, repository.keys, repository.create,
                repository.rotate, lambda: repository.delete(sealed[0]),
                lambda: repository.seal(b'x', BOUND_TO),
                lambda: repository.open(*sealed, BOUND_TO)):
        with pytest.raises(sealing.SealingError, match='0700'):
            use()


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
    os.chmod(path(repository, create(repository)), mode)
    with pytest.raises(sealing.SealingError, match='0600'):
        repository.check()


@pytest.mark.parametrize('content', [
    '', 'x' * 64, '0' * 63, '0' * 66, 'A' * 64, '0' * 64 + '\n\n'])
def test_malformed_key(repository, content):
    key_id = create(repository)
    with open(path(repository, key_id), 'w') as stream:
        stream.write(content)
    with pytest.raises(sealing.SealingError, match='hexadecimal') as caught:
        repository.check()
    assert not content or content not in str(caught.value)


def test_links_are_not_followed(repository, tmp_path):
    key_id = create(repository)
    moved = tmp_path / 'moved'
    os.rename(path(repository, key_id), moved)
    os.symlink(moved, path(repository, key_id))
    with pytest.raises(sealing.SealingError, match='cannot be read'):
        repository.check()


def test_missing_key(repository):
    key_id = create(repository)
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
    key_id = create(repository)
    for name in ('README', '9999-00000000.key.old', '.9999-00000000.key'):
        with open(os.path.join(repository.path, name), 'w') as stream:
            stream.write('something')
    assert states(repository)[0] == (key_id, sealing.PRIMARY)
    assert len(states(repository)) == 2
