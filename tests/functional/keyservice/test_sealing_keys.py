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

"""nova-sev-attest-manage sealing-key, beside a service that uses the keys."""

import os
import re

from oslo_utils import timeutils
import pytest

from nova_sev_attest.cmd import manage
from tests.functional.keyservice import harness


@pytest.fixture
def keyservice(cloud, tmp_path):
    service = harness.KeyService(cloud, tmp_path)
    service.policy()
    yield service
    service.stop()


@pytest.fixture
def run(keyservice, capsys):
    """Runs a command; returns (status, standard output, errors)."""
    def run(*command):
        status = manage.main([
            '--config-file', str(keyservice.config_file), 'sealing-key',
            *command])
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def key_ids(run):
    """Ids by state."""
    status, output, _errors = run('list')
    assert status == 0
    return {line.split()[1]: line.split()[0] for line in output.splitlines()}


def age(keyservice, seconds):
    """Let all keys be so much older."""
    folder = keyservice.directory / 'sealing-keys'
    for path in folder.iterdir():
        before = path.stat().st_mtime - seconds
        os.utime(path, (before, before))


def test_first_keys(cloud, tmp_path, capsys):
    service = harness.KeyService(cloud, tmp_path, key=False)
    service.stop()

    def run(*command):
        status = manage.main(['--config-file', str(service.config_file),
                              'sealing-key', *command])
        output = capsys.readouterr()
        return status, output.out, output.err

    assert run('list') == (0, '', '')
    status, _output, errors = run('rotate')
    assert status == 1 and 'sealing-key create' in errors
    status, output, _errors = run('create')
    assert status == 0
    assert re.search(r'Sealing key 0001-\w+ made: seals and opens\.', output)
    assert re.search(r'Sealing key 0002-\w+ made: opens; will seal', output)
    assert 'Copy' in output
    status, output, _errors = run('create')
    assert status == 0 and 'nothing to make' in output
    assert sorted(key_ids(run)) == ['primary', 'staged']


def test_launches_outlive_a_rotation(keyservice, run):
    host = harness.Host(keyservice)
    host.launch()
    before = key_ids(run)
    status, output, _errors = run('rotate')
    assert status == 0 and before['staged'] in output
    after = key_ids(run)
    assert after['old'] == before['primary']
    assert after['primary'] == before['staged']
    other = harness.Host(keyservice)
    other.launch()
    for one in (host, other):
        assert one.send(one.measure()).status_code == 200


def test_purge_keeps_what_a_launch_needs(keyservice, run):
    host = harness.Host(keyservice)
    host.launch()
    run('rotate')
    age(keyservice, 3600)
    old = key_ids(run)['old']
    status, _output, errors = run('purge', old)
    assert status == 1 and 'an open launch' in errors
    status, output, _errors = run('purge')
    assert status == 0 and f'{old} is kept: an open launch' in output
    assert host.send(host.measure()).status_code == 200
    status, output, _errors = run('purge', old)
    assert status == 0 and f'{old} deleted' in output
    assert 'old' not in key_ids(run)


def test_purge_keeps_what_a_launch_may_come_to_need(keyservice, run):
    """Another node may have sealed with it a moment ago."""
    run('rotate')
    old = key_ids(run)['old']
    status, _output, errors = run('purge', old)
    assert status == 1
    assert f'{timeutils.utcnow():%Y-%m-%d}' in errors
    assert 'less than the 1020 s' in errors
    age(keyservice, 1019)
    assert run('purge', old)[0] == 1
    age(keyservice, 2)
    assert run('purge', old)[0] == 0


def test_purge_deletes_all_that_may_go(keyservice, run):
    for _ in range(3):
        run('rotate')
    age(keyservice, 3600)
    run('rotate')
    before = len(list((keyservice.directory / 'sealing-keys').iterdir()))
    status, output, _errors = run('purge')
    assert status == 0
    # All but the one that was primary until just now.
    assert output.count('deleted') == 3 and output.count('is kept') == 1
    assert before == 6
    assert sorted(key_ids(run)) == ['old', 'primary', 'staged']


@pytest.mark.parametrize('state', ['primary', 'staged'])
def test_purge_never_deletes_a_key_in_use(keyservice, run, state):
    age(keyservice, 3600)
    key_id = key_ids(run)[state]
    status, _output, errors = run('purge', key_id)
    assert status == 1 and f'it is the {state} key' in errors
    assert key_ids(run)[state] == key_id


def test_purge_of_an_unknown_key(keyservice, run):
    status, _output, errors = run('purge', '0042-00000000')
    assert status == 1 and 'no sealing key 0042-00000000' in errors


def test_purge_needs_the_database(keyservice, run):
    run('rotate')
    age(keyservice, 3600)
    keyservice.service.database.dispose()
    (keyservice.directory / 'keyservice.sqlite').unlink()
    status, _output, errors = run('purge')
    assert status == 1 and 'database' in errors
    assert 'old' in key_ids(run)


def test_repository_open_to_others(keyservice, run):
    folder = keyservice.directory / 'sealing-keys'
    folder.chmod(0o755)
    for command in ('list', 'create', 'rotate', 'purge'):
        status, _output, errors = run(command)
        assert status == 1 and 'mode 0700' in errors
    host = harness.Host(keyservice)
    harness.error(host.create(), 503, 'sealing_key_missing')
