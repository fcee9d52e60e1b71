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

"""nova-sev-attest-manage launch purge, and what the audit says of it."""

import json

import pytest

from nova_sev_attest.cmd import manage
from nova_sev_attest.keyservice.objects import audit
from tests.functional.keyservice import harness


@pytest.fixture
def run(keyservice, capsys):
    """Runs a command; returns (status, standard output)."""
    def run(*command):
        capsys.readouterr()
        status = manage.main(['--config-file', str(keyservice.config_file),
                              *command])
        return status, capsys.readouterr().out
    return run


def purged(keyservice, project):
    """Counts of the records launch.purged of a project's audit."""
    with keyservice.service.database.reader() as session:
        return [json.loads(record.details)['count']
                for record in audit.records(session, project)
                if record.event == 'launch.purged']


def test_old_launches_are_purged_in_batches(keyservice, run, monkeypatch):
    monkeypatch.setattr(manage, '_BATCH', 2)
    for project in ('p', 'q'):
        keyservice.policy(project)
    over = [harness.Host(keyservice, project=project)
            for project in ('p', 'q', 'p', 'p')]
    for host in over:
        host.launch()
        assert host.outcome('failed').status_code == 200
    still_open = harness.Host(keyservice)
    still_open.launch()
    assert run('launch', 'purge', '--days', '1') == (
        0, 'The records of 0 launches were deleted.\n')
    assert purged(keyservice, 'p') == purged(keyservice, 'q') == []

    assert run('launch', 'purge', '--days', '0') == (
        0, 'The records of 4 launches were deleted.\n')
    assert sum(purged(keyservice, 'p')) == 3
    assert len(purged(keyservice, 'p')) > 1
    assert purged(keyservice, 'q') == [1]
    assert still_open.show()['status'] == 'session_issued'
    for host in over:
        harness.error(keyservice.operator().get(host.path), 404,
                      'launch_not_found')
    # The audit keeps what the launches were.
    with keyservice.service.database.reader() as session:
        assert [record.event for record in audit.records(
            session, 'q', subject=over[1].id)] == [
            'launch.session_issued', 'launch.failed']
    assert run('audit', 'verify')[0] == 1
    run('audit-key', 'create')
    assert run('audit', 'sign')[0] == 0
    assert run('audit', 'verify')[0] == 0
