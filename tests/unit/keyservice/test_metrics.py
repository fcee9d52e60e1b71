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

import datetime
import os
import subprocess
import sys

import pytest

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.keyservice import events
from nova_sev_attest.keyservice import metrics
from nova_sev_attest.keyservice import sealing
from nova_sev_attest.keyservice.stores import base

BEGAN = datetime.datetime(2026, 11, 24, 3, 43)
LABELS = {'event', 'technology', 'reason_code', 'operation', 'status', 'call',
          'error', 'le'}


def record(seconds):
    at = BEGAN + datetime.timedelta(seconds=seconds)
    return chain.Record('p', 1, at.strftime(chain.TIME_FORMAT), 'e', 's',
                        None, None, '{}').chained(bytes(32))


def event(name, previous=None, **details):
    times = {} if previous is None else {
        'began': BEGAN,
        'previous': BEGAN + datetime.timedelta(seconds=previous)}
    return events.Event(name, 'p', 'l', 'host-1', 'req-1', details, **times)


@pytest.fixture
def measured():
    return metrics.Metrics()


def value(measured, name, **labels):
    return measured.registry.get_sample_value('nova_sev_attest_' + name,
                                              labels)


def test_events(measured):
    denied = event('launch.denied', 1, technology='amd-sev', host='h',
                   reason_code='attestation.kernel_not_allowed')
    for _ in range(2):
        measured.record(denied, record(4), None)
    assert value(measured, 'events_total', event='launch.denied',
                 technology='amd-sev',
                 reason_code='attestation.kernel_not_allowed') == 2
    labels = {'event': 'launch.denied', 'technology': 'amd-sev'}
    assert value(measured, 'launch_step_seconds_sum', **labels) == 6
    assert value(measured, 'launch_seconds_sum', **labels) == 8
    assert value(measured, 'launch_seconds_count', **labels) == 2


def test_a_step_that_does_not_end_the_launch(measured):
    measured.record(event('launch.evidence_received', 1), record(4), None)
    labels = {'event': 'launch.evidence_received', 'technology': ''}
    assert value(measured, 'launch_step_seconds_sum', **labels) == 3
    assert value(measured, 'launch_seconds_count', **labels) is None


def test_clocks_that_differ(measured):
    measured.record(event('launch.running', 9), record(4), None)
    assert value(measured, 'launch_step_seconds_sum',
                 event='launch.running', technology='') == 0


def test_what_is_no_launch(measured):
    measured.record(event('policy.created', revision=1), record(0), None)
    assert value(measured, 'events_total', event='policy.created',
                 technology='', reason_code='') == 1


def test_unsigned_heads(measured):
    point = chain.Point.of(record(0))
    measured.record(event('policy.created'), record(0), point)
    measured.record(event('policy.created'), record(0), chain.Point(
        point.project_id, 1, point.at, point.hash, '0001-00000000', 'A'))
    assert value(measured, 'audit_heads_unsigned_total') == 1


class Store:
    def check_readable(self, secret_ids, context):
        raise base.SecretUnavailable('no')

    def fetch(self, secret_ids, project_id):
        return {secret_ids[0]: b'a secret'}


def test_store(measured):
    store = metrics.MeasuredStore(Store(), measured)
    assert store.fetch(['s'], 'p') == {'s': b'a secret'}
    with pytest.raises(base.SecretUnavailable):
        store.check_readable(['s'], None)
    for call in ('fetch', 'check_readable'):
        assert value(measured, 'secret_store_seconds_count', call=call) == 1
    assert value(measured, 'secret_store_failures_total',
                 call='check_readable', error='SecretUnavailable') == 1


def test_no_label_names_anybody(measured):
    """What labels there are stands in this test."""
    measured.record(event('launch.denied', 1, host='host-1', server_id='s'),
                    record(4), None)
    measured.request('createLaunch', '201', 0.1)
    measured.drop()
    metrics.MeasuredStore(Store(), measured).fetch(['s'], 'p')
    found = [sample for family in measured.registry.collect()
             for sample in family.samples]
    assert {name for sample in found for name in sample.labels} <= LABELS
    assert not {'p', 'l', 's', 'host-1', 'req-1'} & {
        text for sample in found for text in sample.labels.values()}


def test_a_directory_that_cannot_be_written(measured, monkeypatch, caplog):
    def fail(*args):
        raise OSError('no space left')

    monkeypatch.setattr(measured._requests, 'labels', fail)
    monkeypatch.setattr(measured._store, 'labels', fail)
    measured.request('createLaunch', '201', 0.1)
    store = metrics.MeasuredStore(Store(), measured)
    assert store.fetch(['s'], 'p') == {'s': b'a secret'}
    assert caplog.text.count('Metrics cannot be written') == 2


def test_the_directory_is_made(monkeypatch, tmp_path):
    monkeypatch.setenv(metrics.VARIABLE, str(tmp_path / 'a' / 'b'))
    metrics.Metrics()
    assert (tmp_path / 'a' / 'b').is_dir()
    (tmp_path / 'file').write_bytes(b'')
    monkeypatch.setenv(metrics.VARIABLE, str(tmp_path / 'file' / 'b'))
    with pytest.raises(OSError):
        metrics.Metrics()


_WORKER = '''
from nova_sev_attest.keyservice import metrics
measured = metrics.Metrics()
measured.drop()
measured.request('createLaunch', '201', 0.2)
'''


def test_processes_are_added_up_when_they_are_gone(tmp_path):
    for _ in range(2):
        subprocess.run([sys.executable, '-c', _WORKER], check=True,
                       timeout=60, env=os.environ | {
                           metrics.VARIABLE: str(tmp_path / 'metrics')})
    conf = conf_keyservice.load(config_files=[])
    conf.set_override('key_repository', str(tmp_path / 'keys'),
                      group='sealing')
    found = metrics.gathered(conf, str(tmp_path / 'metrics'))
    assert found.get_sample_value(
        'nova_sev_attest_notifications_dropped_total') == 2
    assert found.get_sample_value(
        'nova_sev_attest_http_request_seconds_sum',
        {'operation': 'createLaunch', 'status': '201'}) == 0.4
    with pytest.raises(ValueError):
        metrics.gathered(conf, str(tmp_path / 'nowhere'))


def test_sealing_key(tmp_path, caplog):
    keys = sealing.KeyRepository(str(tmp_path / 'keys'))
    collector = metrics.SealingKeyCollector(keys)
    found, = collector.collect()
    assert found.samples == []
    primary, _staged = keys.create()
    os.utime(tmp_path / 'keys' / f'{primary}.key', (1234, 1234))
    found, = collector.collect()
    assert [sample.value for sample in found.samples] == [1234]
    (tmp_path / 'keys').chmod(0o755)
    found, = collector.collect()
    assert found.samples == [] and 'mode 0700' in caplog.text
