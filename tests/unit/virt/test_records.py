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

import pytest

from nova_sev_attest.client import launches
from nova_sev_attest.virt import records
from tests.unit.virt import fakes

ONE = launches.LaunchIdentity('launch-1', 'a' * 64)
TWO = launches.LaunchIdentity('launch-2', 'b' * 64)


@pytest.fixture
def kept(tmp_path):
    return records.LaunchRecords(str(tmp_path), 'host')


def files(tmp_path):
    return [path for path in tmp_path.rglob('*') if path.is_file()]


def test_round(kept, tmp_path):
    assert kept.left() == []
    kept.open(fakes.UUID, ONE)
    again = records.LaunchRecords(str(tmp_path), 'host')
    (record,) = again.left()
    assert record == records.Record(fakes.UUID, ONE)
    assert ONE.token not in repr(record)
    again.close(fakes.UUID, ONE.id)
    assert kept.left() == []
    assert files(tmp_path) == []


def test_readable_by_nova_compute_alone(kept, tmp_path):
    os.umask(os.umask(0))
    kept.open(fakes.UUID, ONE)
    (path,) = files(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_later_launch_stays(kept):
    kept.open(fakes.UUID, ONE)
    kept.open(fakes.UUID, TWO)
    kept.close(fakes.UUID, ONE.id)
    (record,) = kept.left()
    assert record.identity == TWO


def test_closing_what_is_closed(kept):
    kept.close(fakes.UUID, ONE.id)


@pytest.mark.parametrize('host', ['other', '../host', 'host/..'])
def test_hosts_do_not_share(kept, tmp_path, host):
    kept.open(fakes.UUID, ONE)
    other = records.LaunchRecords(str(tmp_path), host)
    assert other.left() == []
    other.open(fakes.UUID, TWO)
    (record,) = kept.left()
    assert record.identity == ONE
    assert all(path.parent.parent == tmp_path / 'sev_attest'
               for path in files(tmp_path))


@pytest.mark.parametrize('content', [
    '', 'no', '[]', '7', '{"launch": "x"}', '{"launch": "x", "tok',
    '\xff\xfe'])
def test_damaged_record_is_none_and_can_be_replaced(kept, tmp_path, content):
    kept.open(fakes.UUID, ONE)
    (path,) = files(tmp_path)
    path.write_text(content, encoding='latin-1')
    assert kept.left() == []
    kept.open(fakes.UUID, TWO)
    assert [record.identity for record in kept.left()] == [TWO]
    path.write_text(content, encoding='latin-1')
    kept.close(fakes.UUID, TWO.id)
    assert files(tmp_path) == []


def test_files_of_others_are_passed_over(kept, tmp_path):
    kept.open(fakes.UUID, ONE)
    (path,) = files(tmp_path)
    (path.parent / 'README.json').write_text('{}')
    (path.parent / f'{fakes.UUID}.json.new').write_text('half')
    (path.parent / '11111111-1111-1111-1111-111111111111.json').mkdir()
    assert [record.identity for record in kept.left()] == [ONE]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'sev_attest').write_text('a file')
    with pytest.raises(OSError):
        records.LaunchRecords(str(tmp_path), 'host').open(fakes.UUID, ONE)
