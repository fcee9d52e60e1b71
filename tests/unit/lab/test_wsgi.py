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
import http.client
import io
import pathlib
import signal
import subprocess
import sys
import time
from urllib import parse

import pytest
import requests

from devstack.lab import wsgi

_RUNNER = pathlib.Path(wsgi.__file__)
_MODULE = '''
import sys

ARGUMENTS = list(sys.argv)


def application(environ, start_response):
    start_response('203 Odd', [('Content-Type', 'text/plain')])
    return [repr(ARGUMENTS).encode()]


def paste(global_conf):
    return application


def reading(environ, start_response):
    source = environ['wsgi.input']
    body = source.read()
    if hasattr(source, 'close'):
        source.close()
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
'''
_PASTE = '[app:main]\npaste.app_factory = served:paste\n'


@pytest.fixture
def serve(tmp_path, layout):
    """Serve a target from tmp_path; returns the process and the URL."""
    (tmp_path / 'served.py').write_text(_MODULE)
    (tmp_path / 'paste.ini').write_text(_PASTE)
    started = []

    def start(target):
        process = subprocess.Popen(
            [sys.executable, '-P', _RUNNER, target, '--port',
             str(layout.port('nova-api'))],
            env={'PYTHONPATH': str(tmp_path)}, stdout=subprocess.PIPE,
            text=True)
        started.append(process)
        return process, layout.url('nova-api')

    yield start
    for process in started:
        process.kill()
        process.communicate()


def get(url, process):
    for _ in range(200):
        try:
            return requests.get(url, timeout=5)
        except requests.ConnectionError:
            assert process.poll() is None
            time.sleep(0.1)
    raise AssertionError('the server did not get ready')


def test_serves_logs_and_stops(serve):
    process, url = serve('served:application')
    response = get(f'{url}/v1/a%20b?token=hidden', process)
    assert response.status_code == 203
    # The application sees none of the runner's arguments.
    assert response.text == "['served:application']"
    process.send_signal(signal.SIGTERM)
    log, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert log.splitlines()[-1].endswith(' "GET /v1/a b HTTP/1.1" 203')
    assert 'hidden' not in log


def test_application_is_the_name_by_default(serve):
    process, url = serve('served')
    assert get(url, process).status_code == 203


def test_serves_a_paste_file(serve, tmp_path):
    process, url = serve(f'paste:{tmp_path}/paste.ini')
    assert get(url, process).status_code == 203


def test_an_upload_leaves_its_connection_open(serve):
    process, url = serve('served:reading')
    get(url, process)
    connection = http.client.HTTPConnection(
        parse.urlsplit(url).netloc, timeout=5)
    with contextlib.closing(connection):
        for body in (b'one\ntwo', b'three'):
            connection.request('PUT', '/', iter([body]),
                               encode_chunked=True)
            # It fails where the server has closed the connection.
            assert connection.getresponse().read() == body


def test_the_log_has_a_line_for_each_answer():
    out = io.StringIO()

    def application(environ, start_response):
        start_response(environ['wanted'], [])
        return []

    logged = wsgi.logged(application, out)
    for status in ('200 OK', '404 Not Found'):
        logged({'REQUEST_METHOD': 'PUT', 'SCRIPT_NAME': '/v1',
                'PATH_INFO': '/x', 'SERVER_PROTOCOL': 'HTTP/1.1',
                'wanted': status}, lambda *arguments: None)
    assert [line[20:] for line in out.getvalue().splitlines()] == [
        '"PUT /v1/x HTTP/1.1" 200', '"PUT /v1/x HTTP/1.1" 404']
