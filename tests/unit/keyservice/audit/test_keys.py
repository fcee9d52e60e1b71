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

import dataclasses
import os
import stat

from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives import serialization
import pytest

from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.keyservice.audit import keys as audit_keys

POINT = chain.Point('p', 7, '2026-11-24T03:43:00.000000Z', b'\x11' * 32)


@pytest.fixture
def keys(tmp_path):
    return audit_keys.AuditKeys(str(tmp_path / 'keys'))


def test_signs_and_verifies(keys):
    key_id = keys.create()
    point = keys.sign(POINT)
    assert point.key_id == key_id
    audit_keys.verify(point, keys.publics())
    # Deterministic: the same head has one text.
    assert keys.sign(POINT) == point


@pytest.mark.parametrize('changes', [
    {'project_id': 'q'}, {'sequence': 8}, {'hash': bytes(32)},
    {'at': '2026-11-24T03:43:00.000001Z'}, {'signature': 'A' * 86}])
def test_a_signature_is_good_for_one_point(keys, changes):
    keys.create()
    point = dataclasses.replace(keys.sign(POINT), **changes)
    with pytest.raises(chain.ChainError, match='is not one by key'):
        audit_keys.verify(point, keys.publics())


def test_another_key_of_the_same_repository(keys):
    keys.create()
    point = keys.sign(POINT)
    other = keys.create()
    with pytest.raises(chain.ChainError, match='is not one by key'):
        audit_keys.verify(dataclasses.replace(point, key_id=other),
                          keys.publics())


def test_no_key(keys):
    assert keys.signer() is None
    assert keys.sign(POINT) is POINT
    with pytest.raises(chain.ChainError, match='not signed'):
        audit_keys.verify(POINT, keys.publics())


def test_unknown_key(keys, tmp_path):
    keys.create()
    other = audit_keys.AuditKeys(str(tmp_path / 'other'))
    other.create()
    with pytest.raises(chain.ChainError, match='no public key'):
        audit_keys.verify(keys.sign(POINT), other.publics())


def test_the_newest_signs_at_once(keys):
    first = keys.create()
    assert keys.sign(POINT).key_id == first
    second = keys.create()
    point = keys.sign(POINT)
    assert point.key_id == second and second.startswith('0002-')
    keys.retire(first)
    assert keys.private_ids() == [second]
    assert keys.public_ids() == [first, second]


def test_retiring(keys):
    first = keys.create()
    point = keys.sign(POINT)
    with pytest.raises(audit_keys.AuditKeyError, match='the key that signs'):
        keys.retire(first)
    with pytest.raises(audit_keys.AuditKeyError, match='no private key'):
        keys.retire('0009-00000000')
    keys.create()
    keys.retire(first)
    audit_keys.verify(point, keys.publics())


def test_files(keys, tmp_path):
    key_id = keys.create()
    folder = tmp_path / 'keys'
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode)
            for path in folder.iterdir()} == {
        key_id + '.key': 0o600, key_id + '.pub': 0o644}


def test_public_keys_by_file(keys, tmp_path):
    key_id = keys.create()
    path = tmp_path / 'keys' / f'{key_id}.pub'
    audit_keys.verify(keys.sign(POINT), audit_keys.read_publics([path]))
    for name in ('mine.pub', f'{key_id}.key'):
        with pytest.raises(audit_keys.AuditKeyError, match='is named'):
            audit_keys.read_publics([tmp_path / name])


@pytest.mark.parametrize('mode', [0o750, 0o705, 0o701])
def test_directory_open_to_others(keys, tmp_path, mode):
    keys.create()
    (tmp_path / 'keys').chmod(mode)
    for call in (keys.signer, keys.publics, keys.create):
        with pytest.raises(audit_keys.AuditKeyError, match='mode 0700'):
            call()


def test_key_open_to_others(keys, tmp_path):
    key_id = keys.create()
    (tmp_path / 'keys' / f'{key_id}.key').chmod(0o640)
    with pytest.raises(audit_keys.AuditKeyError, match='mode 0600'):
        keys.sign(POINT)


def test_not_a_directory(keys, tmp_path):
    (tmp_path / 'keys').write_bytes(b'')
    (tmp_path / 'keys').chmod(0o600)
    with pytest.raises(audit_keys.AuditKeyError, match='cannot be read'):
        keys.sign(POINT)


OTHER = x25519.X25519PrivateKey.generate()


@pytest.mark.parametrize('content', [
    b'', b'-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n',
    OTHER.private_bytes(serialization.Encoding.PEM,
                        serialization.PrivateFormat.PKCS8,
                        serialization.NoEncryption())])
def test_what_is_no_key(keys, tmp_path, content):
    key_id = keys.create()
    (tmp_path / 'keys' / f'{key_id}.key').write_bytes(content)
    with pytest.raises(audit_keys.AuditKeyError,
                       match='is no Ed25519 key') as caught:
        keys.sign(POINT)
    assert content.decode() not in str(caught.value) or not content


@pytest.mark.parametrize('content', [
    b'', b'-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n',
    OTHER.public_key().public_bytes(
        serialization.Encoding.PEM,
        serialization.PublicFormat.SubjectPublicKeyInfo)])
def test_what_is_no_public_key(keys, tmp_path, content):
    key_id = keys.create()
    (tmp_path / 'keys' / f'{key_id}.pub').write_bytes(content)
    with pytest.raises(audit_keys.AuditKeyError, match='is no'):
        keys.publics()


def test_links_and_pipes_are_not_read(keys, tmp_path):
    key_id = keys.create()
    path = tmp_path / 'keys' / f'{key_id}.key'
    path.rename(tmp_path / 'elsewhere')
    path.symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(audit_keys.AuditKeyError, match='cannot be read'):
        keys.sign(POINT)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(audit_keys.AuditKeyError, match='no regular file'):
        keys.sign(POINT)


def test_no_key_in_a_repr(keys, tmp_path):
    key_id = keys.create()
    pem = (tmp_path / 'keys' / f'{key_id}.key').read_text()
    secret = pem.splitlines()[1]
    keys.sign(POINT)
    assert secret not in repr(keys) + repr(vars(keys)) + repr(keys.signer())
