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

"""The functions of /init, run by bash (in the guest: by busybox)."""

import json
import pathlib
import struct
import subprocess
import uuid

import pytest

from devstack.lab import guest
from nova_sev_attest.launch import secret

_SOURCES = pathlib.Path(guest.__file__).parent
_LUKS = secret.LUKS_PASSPHRASE_GUID
_OTHER = uuid.UUID('e6f5a162-d67f-4750-a67c-5d065f2a9910')
_AREA = 3072
_BASE = 4 * _AREA


def _run(script, *arguments, stdin=b''):
    return subprocess.run(
        ['bash', '-euc', f'. {_SOURCES}/secret-area.sh; {script}', 'init',
         *arguments], input=stdin, capture_output=True)


def _entry(table, guid=_LUKS):
    return _run('table_entry "$1" "$2"', table.hex(), str(guid))


def _table(entries):
    # Lengths include the headers; written here for broken ones.
    body = b''.join(guid.bytes_le + struct.pack('<I', length) + data
                    for guid, length, data in entries)
    head = uuid.UUID('1e74f542-71dd-4d66-963e-ef4287ff173b').bytes_le
    return head + struct.pack('<I', 20 + len(body)) + body


@pytest.mark.parametrize('data', [b'x', b'passphrase\n', bytes(range(256))])
def test_entries_of_the_services_table_are_found(data):
    table = secret.build_secret_table({_OTHER: b'before', _LUKS: data,
                                       uuid.uuid4(): b'after'})
    found = _entry(table + bytes(100))
    assert bytes.fromhex(found.stdout.decode()) == data
    assert found.stderr == b''


@pytest.mark.parametrize('table, reason', [
    (bytes(_AREA), b'no launch secret table'),
    (b'', b'no launch secret table'),
    (_table([(_OTHER, 21, b'x')]), b'has no entry'),
    (_table([]), b'has no entry'),
    (_table([(_OTHER, 21, b'x'), (_LUKS, 25, b'pass')]), b'broken at 41'),
    (_table([(_OTHER, 0, b'')]), b'broken at 20'),
    (_table([(_OTHER, 0xffffffff, b'')]), b'broken at 20'),
    (_table([])[:16] + struct.pack('<I', 24) + bytes(4), b'broken at 20'),
    (_table([])[:16] + struct.pack('<I', 99), b'claims 99 bytes'),
    (_table([])[:16] + struct.pack('<I', 3), b'has no entry'),
])
def test_broken_tables_are_refused(table, reason):
    found = _entry(table)
    assert found.returncode != 0
    assert found.stdout == b''
    assert reason in found.stderr


@pytest.fixture
def memory(tmp_path):
    """A file that stands for /dev/mem, with a secret area in it."""
    path = tmp_path / 'mem'

    def write(table):
        path.write_bytes(b'\xaa' * _BASE + table.ljust(_AREA, b'\0')
                         + b'\xbb' * 100)
        return path

    return write


def _take(path, folder='/nonexistent'):
    return _run(f'MEMORY={path} SECRET_BASE={_BASE} COCO_FOLDER={folder}; '
                f'take_secret {_LUKS}')


def test_the_secret_area_is_wiped_and_nothing_else(memory):
    path = memory(secret.build_secret_table({_LUKS: b'the passphrase'}))
    taken = _take(path)
    assert bytes.fromhex(taken.stdout.decode()) == b'the passphrase'
    assert path.read_bytes() == (b'\xaa' * _BASE + bytes(_AREA)
                                 + b'\xbb' * 100)


def test_the_secret_area_is_wiped_without_the_wanted_entry(memory):
    path = memory(secret.build_secret_table({_OTHER: b'another secret'}))
    taken = _take(path)
    assert taken.returncode != 0
    assert b'has no entry' in taken.stderr
    assert b'another secret' not in path.read_bytes()


def test_a_short_secret_area_is_refused(memory):
    path = memory(b'')
    path.write_bytes(path.read_bytes()[:_BASE + 17])
    taken = _take(path)
    assert taken.returncode != 0
    assert b'cannot be read' in taken.stderr


def test_a_secret_area_that_keeps_its_content_is_refused(memory):
    path = memory(secret.build_secret_table({_LUKS: b'the passphrase'}))
    before = path.read_bytes()
    # dd that writes nothing, as /dev/mem of a locked-down kernel.
    taken = _run(f'dd() {{ case "$*" in *if=/dev/zero*) ;; '
                 f'*) command dd "$@";; esac; }}; MEMORY={path}; '
                 f'SECRET_BASE={_BASE}; take_secret {_LUKS}')
    assert taken.returncode != 0
    assert taken.stdout == b''
    assert b'cannot be wiped' in taken.stderr
    assert path.read_bytes() == before


def test_the_kernels_secret_file_is_preferred_and_removed(memory, tmp_path):
    path = memory(secret.build_secret_table({_LUKS: b'the passphrase'}))
    folder = tmp_path / 'coco'
    folder.mkdir()
    (folder / str(_LUKS)).write_bytes(b'from efi_secret')
    taken = _take(path, folder)
    assert bytes.fromhex(taken.stdout.decode()) == b'from efi_secret'
    assert list(folder.iterdir()) == []


def _metadata():
    """Metadata of the accepted shape, printed as cryptsetup prints them."""
    shape = json.loads((_SOURCES / 'luks2-shape').read_text())
    for part in (shape['keyslots']['0']['kdf'], shape['digests']['0']):
        part['salt'] = 'c2FsdCsv+A=='
        part['iterations'] = 1000
    shape['digests']['0']['digest'] = 'ZGlnZXN0/w=='
    return shape


def _shape(metadata):
    printed = json.dumps(metadata, indent=2, separators=(',', ':'))
    return _run('header_shape', stdin=printed.encode()).stdout


def test_the_builders_header_is_accepted():
    assert _shape(_metadata()) == (_SOURCES / 'luks2-shape').read_bytes()


def _null_cipher(metadata):
    metadata['segments']['0']['encryption'] = 'cipher_null-ecb'


def _null_keyslot(metadata):
    metadata['keyslots']['0']['area']['encryption'] = 'cipher_null-ecb'


def _second_keyslot(metadata):
    metadata['keyslots']['1'] = metadata['keyslots']['0']


def _second_segment(metadata):
    metadata['segments']['1'] = dict(metadata['segments']['0'],
                                     type='linear')


def _reencryption(metadata):
    metadata['config']['requirements'] = {
        'mandatory': ['online-reencrypt-v2']}


def _flags(metadata):
    metadata['segments']['0']['flags'] = ['in-reencryption']


def _token(metadata):
    metadata['tokens']['0'] = {'type': 'luks2-keyring', 'keyslots': ['0'],
                               'key_description': 'x'}


def _moved(metadata):
    metadata['segments']['0']['offset'] = '0'


def _spaced(metadata):
    metadata['config']['json_size'] = '12 288'


@pytest.mark.parametrize('change', [
    _null_cipher, _null_keyslot, _second_keyslot, _second_segment,
    _reencryption, _flags, _token, _moved, _spaced])
def test_other_headers_are_not(change):
    metadata = _metadata()
    change(metadata)
    assert _shape(metadata) != (_SOURCES / 'luks2-shape').read_bytes()


@pytest.mark.parametrize('script', ['init', 'root-init', 'secret-area.sh'])
def test_the_scripts_parse(script):
    done = subprocess.run(['bash', '-n', _SOURCES / script],
                          capture_output=True, text=True)
    assert done.stderr == ''
    assert done.returncode == 0
