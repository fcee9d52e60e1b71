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

from devstack.lab import databases
from devstack.lab import errors


@pytest.fixture
def calls(layout, monkeypatch):
    """What would be done to the databases, as the names of functions."""
    layout.data.mkdir(parents=True)
    layout.cache.mkdir(parents=True)
    made = []
    monkeypatch.setattr(databases, '_migrate',
                        lambda layout: made.append('migrate'))
    monkeypatch.setattr(databases, '_restore',
                        lambda layout, path: made.append('restore'))

    def dump(layout, path):
        made.append('dump')
        path.write_text('-- tables')

    monkeypatch.setattr(databases, '_dump', dump)
    return made


def bring_up(layout):
    databases.bring_up_to_date(layout, lambda text: None)


def test_new_databases_are_migrated_once_and_dumped(layout, calls):
    bring_up(layout)
    bring_up(layout)
    assert calls == ['migrate', 'dump']


def test_a_reset_lab_gets_the_dump(layout, calls):
    bring_up(layout)
    (layout.data / 'databases.stamp').unlink()
    bring_up(layout)
    assert calls == ['migrate', 'dump', 'restore']


def test_other_versions_migrate_what_is_there(layout, calls, monkeypatch):
    bring_up(layout)
    monkeypatch.setattr(databases.metadata, 'version', lambda name: '99')
    bring_up(layout)
    # Databases in use are no longer empty: they are not dumped.
    assert calls == ['migrate', 'dump', 'migrate']


def test_a_dump_of_other_versions_is_not_used(layout, calls, monkeypatch):
    bring_up(layout)
    (layout.data / 'databases.stamp').unlink()
    monkeypatch.setattr(databases.metadata, 'version', lambda name: '99')
    bring_up(layout)
    assert calls == ['migrate', 'dump', 'migrate', 'dump']


def test_a_failed_migration_is_tried_again(layout, calls, monkeypatch):
    def fail(layout):
        raise errors.StepFailed('nova-manage ended with 1')

    with monkeypatch.context() as broken:
        broken.setattr(databases, '_migrate', fail)
        with pytest.raises(errors.StepFailed):
            bring_up(layout)
    bring_up(layout)
    assert calls == ['migrate', 'dump']


def test_a_failed_command_is_told_with_what_it_said():
    with pytest.raises(errors.StepFailed,
                       match=r'tool ended with 4:\n(.|\n)*no table'):
        databases._run('tool', ['sh', '-c', 'echo no table >&2; exit 4'])


def test_a_command_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(databases, '_SECONDS', 0.2)
    with pytest.raises(errors.StepFailed, match='did not end in 0.2 s'):
        databases._run('tool', ['sleep', '600'])
