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

"""A key service over real HTTP, small enough to misbehave on purpose."""

import base64
import http.server
import json
import secrets
import threading
import time

from tests.functional.virt import fakes

TOKEN_HEADER = 'X-Attestation-Launch-Token'
SECRET = {'secret_header': base64.b64encode(b'H' * 52).decode(),
          'secret': base64.b64encode(b'S' * 64).decode(),
          'gpa': 0x810000}


def refusal(status, code, detail):
    """An answer that refuses, in the form of the API."""
    return status, {'errors': [{
        'request_id': 'req-fake', 'code': code, 'status': status,
        'title': 'Refused', 'detail': detail, 'links': []}]}


class KeyService:
    """The launch resource.

    :ivar launches: what came for each launch
    :ivar order: ('create' | 'evidence' | 'outcome', launch id) as they came
    :ivar interfere: called with (operation, launch id) before each
        operation; an answer that it returns, a tuple of status and either a
        document or bytes, is given instead
    :ivar releases: what accepted evidence gets, by purpose of the launch
    """

    def __init__(self):
        self.launches = {}
        self.order = []
        self.interfere = lambda operation, launch_id: None
        self.releases = {'boot': SECRET, 'rescue': SECRET}

    def put(self, path, token, body):
        parts = path.strip('/').split('/')
        assert parts[:2] == ['v1', 'launches'], path
        launch_id = parts[2]
        operation = parts[3] if len(parts) > 3 else 'create'
        self.order.append((operation, launch_id))
        instead = self.interfere(operation, launch_id)
        if instead is not None:
            return instead
        return getattr(self, f'_{operation}')(launch_id, token, body)

    def _create(self, launch_id, token, body):
        known = self.launches.get(launch_id)
        if known and (known['token'], known['request']) != (token, body):
            return refusal(409, 'attestation.launch_conflict', 'Another.')
        if not known:
            known = self.launches[launch_id] = {
                'token': token, 'request': body, 'evidence': None,
                'outcome': None, 'session': secrets.token_bytes(128)}
        return 201, {'launch': {
            'id': launch_id, 'status': 'session_issued',
            'session': {
                'dh_cert': base64.b64encode(b'G' * 2084).decode(),
                'session': base64.b64encode(known['session']).decode(),
                'policy': fakes.POLICIES[body['launch']['technology']]}}}

    def _evidence(self, launch_id, token, body):
        launch = self.launches[launch_id]
        assert launch['token'] == token
        launch['evidence'] = body
        shown = base64.b64decode(body['evidence']['measurement'])
        if shown != fakes.measurement(launch['session'], shown[32:]):
            return refusal(403, 'attestation.measurement_mismatch',
                           'The measurement is not of this launch.')
        return 200, {'launch': {'id': launch_id, 'status': 'released'},
                     'release': self.releases[
                         launch['request']['launch'].get('purpose', 'boot')]}

    def _outcome(self, launch_id, token, body):
        launch = self.launches[launch_id]
        assert launch['token'] == token
        launch['outcome'] = body['outcome']
        return 200, {'launch': {'id': launch_id}}

    def only_launch(self):
        (launch,) = self.launches.values()
        return launch


class Server:
    """Serves a KeyService on a port of its own until stop()."""

    def __init__(self, service):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self):
                size = int(self.headers['Content-Length'])
                body = json.loads(self.rfile.read(size))
                status, answer = service.put(
                    self.path, self.headers[TOKEN_HEADER], body)
                if not isinstance(answer, bytes):
                    answer = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header('Content-Type', 'application/json')
                self.send_header('Content-Length', str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args):
                """Quiet: the tests read what came from the service."""

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                """A client that gave up is what some tests want."""

        self._server = Quiet(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def slowly(seconds):
    """An interference that delays every operation."""
    def interfere(operation, launch_id):
        time.sleep(seconds)
    return interfere
