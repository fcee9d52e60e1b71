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

import contextlib
import http.server
import socket
import threading

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
