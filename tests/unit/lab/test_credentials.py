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
import stat

from devstack.lab import credentials


def test_passwords_are_made_once(layout):
    first = credentials.load(layout)
    assert credentials.load(layout) == first
    assert len(set(first.values())) == len(first)
    assert all(len(bytes.fromhex(word)) == 16 for word in first.values())


def test_two_labs_have_other_passwords(layout, tmp_path):
    other = dataclasses.replace(layout, lab_dir=tmp_path / 'other')
    assert credentials.load(layout) != credentials.load(other)


def test_a_user_that_is_new_gets_a_password(layout, monkeypatch):
    first = credentials.load(layout)
    monkeypatch.setattr(credentials, '_NAMES', (*first, 'newcomer'))
    later = credentials.load(layout)
    assert later.pop('newcomer')
    assert later == first


def test_only_root_reads_them(layout):
    credentials.load(layout)
    mode = (layout.etc / 'credentials.json').stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_file_that_was_readable_becomes_private(tmp_path):
    path = tmp_path / 'file'
    path.write_text('old')
    path.chmod(0o644)
    credentials.write_private(path, 'new')
    assert path.read_text() == 'new'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
