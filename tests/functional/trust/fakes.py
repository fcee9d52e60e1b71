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

"""AMD's key server, on loopback."""

import http.server
import ssl
import threading
import time


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        """Nothing on the tests' output."""

    def do_GET(self):
        server = self.server.fake
        with server.lock:
            server.requests.append(self.path)
            server.headers.append(dict(self.headers))
            answer = (server.next.pop(0) if server.next
                      else server.files.get(self.path, 404))
        time.sleep(server.delay)
        try:
            self._answer(answer)
        except OSError:
            # The client had no patience.
            self.close_connection = True

    def _answer(self, answer):
        if callable(answer):
            return answer(self)
        if isinstance(answer, int):
            answer = (answer, {})
        if isinstance(answer, tuple):
            return self.send(answer[0], b'no', answer[1])
        return self.send(200, answer)

    def send(self, status, body, headers=None):
        self.send_response(status)
        for name, value in ({'Content-Length': str(len(body))}
                            | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class AmdServer:
    """A server of files.

    :ivar files: path -> bytes; another path is a 404
    :ivar next: what the next requests get in place of that: a status, (status,
        headers), bytes, or a function of the handler
    :ivar delay: seconds before each answer
    :ivar requests: the paths that were asked for
    :ivar headers: the requests' headers
    """

    def __init__(self):
        self.files = {}
        self.next = []
        self.delay = 0.0
        self.requests = []
        self.headers = []
        self.lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer(
            ('127.0.0.1', 0), _Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *args: None
        self._server.fake = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = 'http://127.0.0.1:%d' % self._server.server_address[1]

    def stop(self):
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def encrypt(self, certificate_file, key_file):
        """Speak TLS from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate_file, key_file)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True)
        self.url = 'https://localhost:%d' % self._server.server_address[1]

    def add(self, chip_id, cek):
        """Let the server have a CEK for a chip id; both are bytes."""
        self.files[f'/cek/id/{chip_id.hex()}'] = cek
