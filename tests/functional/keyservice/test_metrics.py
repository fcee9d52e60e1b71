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

"""What the workers count, read from the process that serves it; the log."""

import contextlib
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time

from oslo_log import formatters
from prometheus_client import parser
import pytest
import requests

from nova_sev_attest.keyservice import metrics
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.functional.keyservice import test_uwsgi
from tests.functional.keyservice import test_wsgi


class Exporter:
    """nova-sev-attest-metrics over a directory of numbers."""

    def __init__(self, keyservice, directory):
        self.port = test_wsgi.free_port()
        config_file = directory / 'metrics.conf'
        config_file.write_text(keyservice.config_file.read_text()
                               + f'[metrics]\nport = {self.port}\n')
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'nova_sev_attest.cmd.metrics'],
            cwd=test_wsgi.ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=os.environ | {
                'NOVA_SEV_ATTEST_CONFIG_FILE': str(config_file)})

    def scrape(self):
        """{(name, labels as a frozenset): value}."""
        for _ in range(600):
            with contextlib.suppress(requests.ConnectionError):
                text = requests.get(f'http://127.0.0.1:{self.port}/metrics',
                                    timeout=10).text
                break
            assert self.process.poll() is None, self.process.stdout.read()
            time.sleep(0.1)
        return {(sample.name, frozenset(sample.labels.items())): sample.value
                for family in parser.text_string_to_metric_families(text)
                for sample in family.samples}

    def end(self):
        """Stop it; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.communicate(timeout=10)


@pytest.fixture
def counted(keyservice, tmp_path, monkeypatch):
    """uWSGI with two workers that count into one directory."""
    monkeypatch.setenv(metrics.VARIABLE, str(tmp_path / 'metrics'))
    server = test_uwsgi.Server(keyservice.config_file)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.process.terminate()
        server.end()


def value(found, name, **labels):
    return found['nova_sev_attest_' + name, frozenset(labels.items())]


def test_two_workers_are_added_up(counted, keyservice, tmp_path):
    api = harness.Api(counted.url, keyservice.member().token)
    body = keyservice.policy_body()
    for number in range(10):
        answer = api.post('/v1/policies', json={'policy': body | {
            'name': f'policy-{number}', 'is_default': False}})
        assert answer.status_code == 201
    harness.error(harness.Api(counted.url, 'no token').get('/v1/policies'),
                  401, 'unauthorized')
    exporter = Exporter(keyservice, tmp_path)
    try:
        found = exporter.scrape()
        assert value(found, 'events_total', event='policy.created',
                     technology='', reason_code='') == 10
        assert value(found, 'http_request_seconds_count',
                     operation='createPolicy', status='201') == 10
        assert value(found, 'http_request_seconds_count', operation='other',
                     status='401') == 1
        assert value(found, 'secret_store_seconds_count',
                     call='check_readable') == 10
        assert time.time() - value(
            found, 'sealing_key_since_timestamp_seconds') < 36000
        keyservice.cloud.barbican.misbehave = fakes.answer(
            500, b'{}', 'application/json')
        answer = api.post('/v1/policies', json={'policy': body})
        harness.error(answer, 503, 'secret_store_unavailable')
        found = exporter.scrape()
        assert value(found, 'events_total', event='policy.created',
                     technology='', reason_code='') == 10
        assert value(found, 'http_request_seconds_count',
                     operation='createPolicy', status='503') == 1
        assert value(found, 'secret_store_failures_total',
                     call='check_readable', error='StoreUnavailable') == 1
        names = {text for _name, labels in found for label in labels
                 for text in label}
        assert not names & {'p', 'user-of-p', 'policy-1'}
    finally:
        status = exporter.end()
    assert status == 0


def test_the_public_api_tells_none(keyservice):
    assert keyservice.member().get('/metrics').status_code == 404
    assert requests.get(keyservice.url + '/metrics',
                        timeout=30).status_code == 401


def test_without_a_directory(keyservice, tmp_path, monkeypatch):
    monkeypatch.delenv(metrics.VARIABLE, raising=False)
    exporter = Exporter(keyservice, tmp_path)
    output = exporter.process.communicate(timeout=60)[0]
    assert exporter.process.returncode == 1
    assert f'{metrics.VARIABLE} names no directory' in output


def test_a_port_that_is_taken(keyservice, tmp_path, monkeypatch):
    monkeypatch.setenv(metrics.VARIABLE, str(tmp_path / 'metrics'))
    with contextlib.closing(listening_socket()) as taken:
        monkeypatch.setattr(test_wsgi, 'free_port',
                            lambda: taken.getsockname()[1])
        exporter = Exporter(keyservice, tmp_path)
        output = exporter.process.communicate(timeout=60)[0]
    assert exporter.process.returncode == 1 and 'in use' in output


def listening_socket():
    found = socket.socket()
    found.bind(('127.0.0.1', 0))
    found.listen()
    return found


@pytest.fixture
def logged():
    """What is logged as JSON from here on: a function that gives it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatters.JSONFormatter())
    logger = logging.getLogger('nova_sev_attest')
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield lambda: [json.loads(line)
                   for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_the_log_names_the_launch(keyservice, logged):
    keyservice.policy()
    host = harness.Host(keyservice)
    host.launch()
    answer = host.send(host.measure(initrd=bytes(32)), host.claims())
    assert answer.status_code == 403
    found = [line for line in logged()
             if line['context'].get('resource_uuid') == host.id]
    assert any('attestation.measurement_mismatch' in line['message']
               for line in found)
    request_id = answer.headers['X-Openstack-Request-Id']
    assert any(line['context']['request_id'] == request_id for line in found)
    assert not any(host.token in json.dumps(line) for line in logged())


def test_the_log_has_events_in_parts(keyservice, logged):
    policy = keyservice.policy()
    found, = (line for line in logged()
              if line['extra'].get('event') == 'policy.created')
    assert found['extra']['subject'] == policy['id']
    assert found['extra']['project'] == 'p'
    assert found['extra']['details']['name'] == 'web'
    assert found['extra']['head'].startswith('audit-head:1:p:')
