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

from tests import vectors


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv('NOVA_SEV_ATTEST_VECTORS', str(tmp_path))


def test_absence_skips(nowhere, monkeypatch):
    monkeypatch.delenv('CI', raising=False)
    with pytest.raises(pytest.skip.Exception, match='set NOVA_SEV_ATTEST'):
        vectors.directory()


def test_absence_fails_in_ci(nowhere, monkeypatch):
    monkeypatch.setenv('CI', 'true')
    with pytest.raises(pytest.fail.Exception, match='no test vectors'):
        vectors.directory()


def test_configured_folder(nowhere, tmp_path):
    (tmp_path / 'EXPECTED.json').write_text('{"a": 1}')
    (tmp_path / 'x').write_bytes(b'data')
    assert vectors.expected() == {'a': 1}
    assert vectors.read('x') == b'data'
