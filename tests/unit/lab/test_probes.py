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

import calendar
import contextlib
import http.server
import socket
import threading
from unittest import mock

import pytest

from devstack.lab import configuration
from devstack.lab import probes


@contextlib.contextmanager
def answering(layout, server, status):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == '/there' else 404)
            self.send_header('Content-Length', '0')
            self.end_headers()

        def log_message(self, *arguments):
            """Nothing: the test looks at answers."""

    with http.server.HTTPServer(('127.0.0.1', layout.port(server)),
                                Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield
        finally:
            running.shutdown()
            thread.join()


@pytest.mark.parametrize('status', [200, 300])
def test_http_is_ready_when_it_answers(layout, status):
    with answering(layout, 'glance', status):
        assert probes.http(layout, 'glance', '/there') is None


@pytest.mark.parametrize('status', [401, 500, 503])
def test_http_is_not_ready_while_it_refuses(layout, status):
    with answering(layout, 'glance', status):
        assert str(status) in probes.http(layout, 'glance', '/there')


def test_tcp_is_ready_when_something_listens(layout):
    with socket.create_server(('127.0.0.1', layout.port('epmd'))):
        assert probes.tcp(layout, 'epmd') is None


def test_what_is_not_there_is_no_error_but_not_ready(layout, monkeypatch):
    monkeypatch.setattr(probes, '_SECONDS', 0.5)
    assert 'refused' in probes.tcp(layout, 'epmd')
    assert probes.http(layout, 'glance', '/')
    assert probes.database(layout)
    assert 'refused' in probes.broker(layout)
    assert 'refused' in probes.consumer(layout, 'conductor')
    assert 'No such file' in probes.platform(layout.computes[0])


def test_a_hypervisor_that_is_not_there_is_not_ready(layout):
    assert 'libvirt-sock' in probes.hypervisor(layout.computes[0])


def test_a_hypervisor_that_hangs_is_not_waited_for(layout, monkeypatch):
    monkeypatch.setattr(probes, '_ASK_LIBVIRT',
                        'import time; time.sleep(600)')
    monkeypatch.setattr(probes, '_LIBVIRT_SECONDS', 0.5)
    assert 'no answer in 0.5 s' in probes.hypervisor(layout.computes[0])


def test_a_server_that_talks_nonsense_is_not_ready(layout, monkeypatch):
    monkeypatch.setattr(probes, '_SECONDS', 1)

    def talk(listener):
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b'220 mail.example\r\n' * 4)

    for name, probe in (('mariadb', probes.database),
                        ('rabbitmq', probes.broker)):
        with socket.create_server(
                ('127.0.0.1', layout.port(name))) as listener:
            thread = threading.Thread(target=talk, args=(listener,),
                                      daemon=True)
            thread.start()
            assert probe(layout)


def test_compute_is_not_ready_without_keystone(layout):
    layout.clouds.write_text(configuration.clouds(
        layout, dict.fromkeys(configuration.CLOUD_USERS, 'x')))
    assert probes.compute(layout.computes[0], 0)


@pytest.fixture
def cloud(layout, monkeypatch):
    """A cloud with one compute host, which servers may be given to."""
    host = layout.computes[0].name
    service = mock.Mock(status='enabled', state='up', disabled_reason=None,
                        updated_at='2026-01-02T03:04:05.000000')
    made = mock.MagicMock(service=service, traits=['CUSTOM_SEV_ATTEST'],
                          providers=[host, f'{host}_amd_sev'])
    made.__enter__.return_value = made
    made.compute.services.return_value = [service]

    def get(path, microversion):
        shown = ({'resource_providers': [
            {'name': name, 'uuid': f'of-{name}'} for name in made.providers]}
            if path == '/resource_providers' else {'traits': made.traits})
        if path not in ('/resource_providers',
                        f'/resource_providers/of-{host}/traits'):
            raise AssertionError(path)
        return mock.Mock(json=lambda: shown)

    made.placement.get = get
    monkeypatch.setattr(probes, 'admin', lambda layout: made)
    return made


_REPORTED = calendar.timegm((2026, 1, 2, 3, 4, 5))


def test_compute_is_ready_when_servers_may_come(layout, cloud):
    assert probes.compute(layout.computes[0], _REPORTED) is None


def test_compute_is_not_ready_before_nova_knows_it(layout, cloud):
    cloud.compute.services.return_value = []
    assert 'no report' in probes.compute(layout.computes[0], 0)


def test_an_old_report_does_not_count(layout, cloud):
    assert 'report' in probes.compute(layout.computes[0], _REPORTED + 1)


@pytest.mark.parametrize('change, told', [
    ({'state': 'down'}, 'no report'),
    ({'updated_at': None}, 'no report'),
    ({'status': 'disabled', 'disabled_reason': 'AUTO: Connection lost'},
     'Connection lost')])
def test_compute_is_not_ready_while_nova_leaves_it_out(
        layout, cloud, change, told):
    cloud.service.configure_mock(**change)
    assert told in probes.compute(layout.computes[0], 0)


def test_compute_is_not_ready_before_placement_has_its_slots(layout, cloud):
    del cloud.providers[1]
    assert 'slots' in probes.compute(layout.computes[0], 0)


@pytest.mark.parametrize('status, told', [
    ('enabled', 'placement'), ('disabled', None)])
def test_compute_is_not_ready_while_placement_leaves_it_out(
        layout, cloud, status, told):
    """Where it was an operator who disabled it, nothing is missing."""
    cloud.service.status = status
    cloud.traits.append('COMPUTE_STATUS_DISABLED')
    found = probes.compute(layout.computes[0], 0)
    assert found is None if told is None else told in found
