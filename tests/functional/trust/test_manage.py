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

import pytest

from nova_sev_attest.cmd import manage
from nova_sev_attest.trust import roots
from tests.unit.launch import platforms
from tests import vectors


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'amd'
    folder.mkdir()
    (tmp_path / 'service.conf').write_text(
        f'[trust]\namd_certificates = {folder}\n')
    return folder


@pytest.fixture
def fetch(amd, folder):
    """Run the command; returns its exit status."""
    def run(*generations):
        return manage.main([
            '--config-file', str(folder.parent / 'service.conf'),
            'amd-root', 'fetch', '--url', amd.url, *generations])
    return run


def publish(amd):
    for generation in roots.GENERATIONS:
        root = f'virtee-sev/src/certs/sev/builtin/{generation}'
        name = 'prod_turin' if generation == 'turin' else generation
        amd.files[f'/ask_ark_{name}.cert'] = b''.join(
            vectors.read(f'{root}/{part}.cert') for part in ('ask', 'ark'))


def test_all(amd, folder, fetch, capsys):
    publish(amd)
    assert fetch() == 0
    assert [anchor.name for anchor in roots.load_anchors(folder)] == list(
        roots.AMD_ROOTS)
    assert 'pinned certificates of amd-turin' in capsys.readouterr().out


def test_one(amd, folder, fetch):
    publish(amd)
    assert fetch('milan') == 0
    assert amd.requests == ['/ask_ark_milan.cert']
    assert [path.name for path in folder.iterdir()] == ['ask_ark_milan.cert']


def test_what_misses_the_pin_is_not_kept(amd, folder, fetch, capsys):
    amd.files['/ask_ark_rome.cert'] = platforms.ask_ark(bits=4096)
    assert fetch('rome') == 1
    assert 'expected 865977b268c16d5b' in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_naples_without_its_signature(amd, folder, fetch, capsys):
    root = 'virtee-sev'
    amd.files['/ask_ark_naples.cert'] = (
        vectors.read(f'{root}/src/certs/sev/builtin/naples/ask.cert')
        + vectors.read(f'{root}/tests/naples/ark.cert.bad'))
    assert fetch('naples') == 1
    assert 'ark_naples.sig cannot be read' in capsys.readouterr().err
    (folder / 'ark_naples.sig').write_bytes(
        vectors.read(f'{root}/tests/naples/ark.cert.sig'))
    assert fetch('naples') == 0
    assert [anchor.name for anchor in roots.load_anchors(folder)] == [
        'amd-naples']


def test_unknown_generation(fetch):
    with pytest.raises(SystemExit):
        fetch('zen')


def test_no_such_file(folder, fetch, capsys):
    assert fetch('genoa') == 1
    assert 'does not have it' in capsys.readouterr().err


def test_no_folder(amd, fetch, folder, capsys):
    (folder.parent / 'service.conf').write_text('')
    assert fetch() == 1
    assert '[trust] amd_certificates' in capsys.readouterr().err
    assert amd.requests == []
