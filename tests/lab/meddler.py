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

"""A hostile conveyer: it stands between compute host and key service.

The compute host may say and change what it likes, so whoever sits in its
place may too. A :class:`Meddler` listens where the key service does, passes
everything on to the real one, and changes what a test wants changed.
"""

import contextlib
import http.client
import http.server
import json
import os
import subprocess
import threading
import time

from devstack.lab import services
from devstack.lab import supervision

_SERVICE = 'attestation'
_SECONDS = 30
# Headers that belong to one connection, or that a changed body makes wrong.
_NOT_PASSED_ON = {'connection', 'content-length', 'keep-alive',
                  'transfer-encoding'}


class Meddler(http.server.ThreadingHTTPServer):
    """The stand-in; by itself it changes nothing.

    The three hooks are for requests to /v1/launches only.

    :ivar on_request: called with (path below the launch, document), may
        change the document before it is passed on.
    :ivar on_answer: the same for the real service's answer.
    :ivar instead: called with the request's handler in place of passing
        anything on.
    """

    daemon_threads = True

    def __init__(self, port, real_port):
        super().__init__(('127.0.0.1', port), _Handler)
        self.real_port = real_port
        self.released = threading.Event()
        self.behave()

    def behave(self):
        """Stop meddling."""
        self.on_request = self.on_answer = self.instead = None

    def handle_error(self, request, client_address):
        """A peer that gave up waiting is what some tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, format, *args):
        """Silence: the real service has a log."""

    def _pass(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        parts = self.path.split('/')
        meddled = (self.command == 'PUT'
                   and parts[1:3] == ['v1', 'launches'])
        below = '/'.join(parts[4:])
        if meddled and self.server.instead:
            self.server.instead(self)
            return
        if meddled and self.server.on_request:
            body = _changed(body, self.server.on_request, below)
        headers = {name: value for name, value in self.headers.items()
                   if name.lower() not in _NOT_PASSED_ON}
        real = http.client.HTTPConnection('127.0.0.1', self.server.real_port,
                                          timeout=_SECONDS)
        with contextlib.closing(real):
            real.request(self.command, self.path, body, headers)
            answer = real.getresponse()
            body = answer.read()
            if meddled and self.server.on_answer and answer.status < 300:
                body = _changed(body, self.server.on_answer, below)
            self.answer(answer.status, body, answer.getheaders())

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _pass

    def answer(self, status, body, headers=()):
        """Answer with exactly this."""
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _changed(body, change, below):
    document = json.loads(body)
    change(below, document)
    return json.dumps(document).encode()


@contextlib.contextmanager
def in_place(layout):
    """Put a Meddler in the place of a lab's key service for a while."""
    port = layout.port(_SERVICE)
    # One past the lab's own ports.
    real_port = layout.port_base + 20
    with stopped(layout), (layout.log / 'attestation-behind.log').open(
            'ab') as log:
        service = services.table(layout)[_SERVICE]
        real = subprocess.Popen(
            [str(part) for part in service.command], cwd=layout.lab_dir,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={'PATH': os.environ['PATH'], 'LANG': 'C.UTF-8'}
            | {name: str(value)
               for name, value in service.environment.items()}
            | {'NOVA_SEV_ATTEST_LISTEN': f'127.0.0.1:{real_port}'})
        try:
            _wait_for(lambda: _healthy(real_port))
            with Meddler(port, real_port) as server:
                thread = threading.Thread(target=server.serve_forever)
                thread.start()
                try:
                    yield server
                finally:
                    server.released.set()
                    server.shutdown()
                    thread.join()
        finally:
            real.terminate()
            real.wait(_SECONDS)


@contextlib.contextmanager
def stopped(layout, name=_SERVICE):
    """Have no key service at all for a while, or lack another service."""
    supervision.stop_service(layout, name)
    try:
        yield
    finally:
        started = time.time()
        supervision.start_service(layout, name)
        probe = services.table(layout)[name].probe
        _wait_for(lambda: probe(started) is None)


def _healthy(port):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=2)
    with contextlib.closing(connection):
        try:
            connection.request('GET', '/healthcheck')
            return connection.getresponse().status == 200
        except OSError:
            return False


def _wait_for(condition):
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, 'a service does not start'
        time.sleep(0.1)
