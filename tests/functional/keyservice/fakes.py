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

"""Small HTTP servers in place of keystone, Nova and Barbican.

They speak as much of the real protocols as the key service uses, keep what
was asked of them, and can be told to misbehave.
"""

import dataclasses
import http.server
import json
import sys
import threading
import time
import urllib.parse
import uuid

from tests.functional import ledger


@dataclasses.dataclass
class Identity:
    """What a token stands for.

    :ivar user_id: the user's name, too
    :ivar system: whether it is scoped to the system, and to no project
    """

    user_id: str
    project_id: str
    roles: tuple
    project_name: str = 'project'
    system: bool = False
    domain: str = 'Default'


@dataclasses.dataclass
class Secret:
    """A secret of the fake Barbican.

    :ivar readers: ids of users of other projects that its ACL names
    """

    payload: bytes
    project_id: str
    readers: set = dataclasses.field(default_factory=set)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True

    def log_message(self, *args):
        """Nothing on the tests' output."""

    def _handle(self):
        length = int(self.headers.get('Content-Length') or 0)
        body = self.rfile.read(length)
        url = urllib.parse.urlsplit(self.path)
        self.server.fake.requests.append((self.command, self.path))
        self.server.fake.answer(self, url.path,
                                dict(urllib.parse.parse_qsl(url.query)),
                                body)

    do_GET = do_POST = do_PUT = do_DELETE = _handle

    def send(self, status, body=b'', media_type='application/json',
             headers=()):
        """Send an answer; anything but bytes becomes JSON."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header('Content-Type', media_type)
        self.send_header('Content-Length', str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Pass over clients that go in the middle, and only over these."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Fake:
    """An HTTP server on loopback in a thread.

    :ivar requests: list of (method, path with query)
    :ivar misbehave: function of the handler that answers in place of the
        fake, or None
    """

    def __init__(self, cloud):
        self.cloud = cloud
        self.requests = []
        self.misbehave = None
        self._server = _Server(('127.0.0.1', 0), _Handler)
        self._server.fake = self
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def answer(self, handler, path, query, body):
        if self.misbehave is not None:
            self.misbehave(handler)
        else:
            self.respond(handler, path, query, body)

    def reset(self):
        """As if just started."""
        self.requests.clear()
        self.misbehave = None

    def who(self, handler):
        """Identity of the request's token, None when it is not valid."""
        return self.cloud.tokens.get(handler.headers.get('X-Auth-Token'))


class Keystone(_Fake):
    """Issues and validates tokens."""

    def respond(self, handler, path, query, body):
        version = {'id': 'v3.14', 'status': 'stable', 'links': [
            {'rel': 'self', 'href': self.url + '/v3/'}]}
        if path in ('/v3', '/v3/'):
            handler.send(200, {'version': version})
        elif path == '/':
            handler.send(300, {'versions': {'values': [version]}})
        elif path == '/v3/auth/tokens' and handler.command == 'POST':
            user = json.loads(body)['auth']['identity']['password']['user']
            identity = self.cloud.users.get((user['name'], user['password']))
            if identity is None:
                handler.send(401, {'error': {'code': 401}})
                return
            token = self.cloud.token(identity)
            handler.send(201, self._token(identity), headers=[
                ('X-Subject-Token', token)])
        elif path == '/v3/auth/tokens':
            subject = self.cloud.tokens.get(
                handler.headers.get('X-Subject-Token'))
            if self.who(handler) is None:
                handler.send(401, {'error': {'code': 401}})
            elif subject is None:
                handler.send(404, {'error': {'code': 404}})
            else:
                handler.send(200, self._token(subject))
        else:
            handler.send(404, {'error': {'code': 404}})

    def _token(self, identity):
        domain = {'id': identity.domain.lower(), 'name': identity.domain}
        scope = {'project': {
            'id': identity.project_id, 'name': identity.project_name,
            'domain': {'id': 'default', 'name': 'Default'}}}
        if identity.system:
            scope = {'system': {'all': True}}
        return {'token': scope | {
            'methods': ['password'],
            'audit_ids': [uuid.uuid4().hex],
            'issued_at': '2020-01-01T00:00:00.000000Z',
            'expires_at': '2999-01-01T00:00:00.000000Z',
            'user': {'id': identity.user_id, 'name': identity.user_id,
                     'domain': domain, 'password_expires_at': None},
            'roles': [{'id': role, 'name': role}
                      for role in identity.roles],
            'catalog': [
                {'type': kind, 'id': kind, 'name': kind, 'endpoints': [
                    {'interface': interface, 'id': f'{kind}-{interface}',
                     'region': 'RegionOne', 'region_id': 'RegionOne',
                     'url': url}
                    for interface in ('public', 'internal')]}
                for kind, url in (
                    ('identity', self.url + '/v3'),
                    ('compute', self.cloud.nova.url + '/v2.1'),
                    ('key-manager', self.cloud.barbican.url))],
        }}


class Nova(_Fake):
    """Servers, migrations and aggregates, shown to admins.

    :ivar aggregates: {name: names of its hosts}
    """

    def __init__(self, cloud):
        super().__init__(cloud)
        self.servers = {}
        self.migrations = []
        self.aggregates = {}

    def reset(self):
        super().reset()
        self.servers.clear()
        self.migrations.clear()
        self.aggregates.clear()

    def add(self, project_id, host, policy=None):
        """Add a server; returns its id."""
        server_id = str(uuid.uuid4())
        self.servers[server_id] = {
            'id': server_id,
            'tenant_id': project_id,
            'OS-EXT-SRV-ATTR:host': host,
            'metadata': {} if policy is None else {
                'attestation_policy': policy},
        }
        return server_id

    def respond(self, handler, path, query, body):
        identity = self.who(handler)
        if identity is None:
            handler.send(401, {'error': {'code': 401}})
        elif 'admin' not in identity.roles:
            handler.send(403, {'forbidden': {'code': 403}})
        elif 'compute 2.' not in handler.headers.get(
                'OpenStack-API-Version', ''):
            handler.send(400, {'badRequest': {'code': 400}})
        elif path == '/v2.1/os-migrations':
            handler.send(200, {'migrations': [
                migration for migration in self.migrations
                if migration['instance_uuid'] == query['instance_uuid']]})
        elif path == '/v2.1/os-aggregates':
            handler.send(200, {'aggregates': [
                {'name': name, 'hosts': list(hosts)}
                for name, hosts in self.aggregates.items()]})
        elif path.removeprefix('/v2.1/servers/') in self.servers:
            handler.send(200, {'server': self.servers[
                path.removeprefix('/v2.1/servers/')]})
        else:
            handler.send(404, {'itemNotFound': {'code': 404}})


class Barbican(_Fake):
    """Payloads of secrets, to their project and to whom an ACL names."""

    def __init__(self, cloud):
        super().__init__(cloud)
        self.secrets = {}

    def reset(self):
        super().reset()
        self.secrets.clear()

    def add(self, payload, project_id, readers=()):
        """Add a secret; returns its UUID."""
        ledger.LEDGER.record('a secret of Barbican', payload)
        secret_id = str(uuid.uuid4())
        self.secrets[secret_id] = Secret(payload, project_id, set(readers))
        return secret_id

    def respond(self, handler, path, query, body):
        identity = self.who(handler)
        parts = path.split('/')
        if identity is None:
            handler.send(401, {'title': 'Unauthorized'})
        elif len(parts) != 5 or parts[1:3] != ['v1', 'secrets'] or (
                parts[4] != 'payload' or parts[3] not in self.secrets):
            handler.send(404, {'title': 'Not Found'})
        elif handler.headers['Accept'] != 'application/octet-stream':
            handler.send(406, {'title': 'Not Acceptable'})
        else:
            secret = self.secrets[parts[3]]
            own = (secret.project_id == identity.project_id
                   and {'member', 'creator'} & set(identity.roles))
            if own or identity.user_id in secret.readers:
                handler.send(200, secret.payload, 'application/octet-stream')
            else:
                handler.send(403, {'title': 'Forbidden'})

    def payload_requests(self):
        """UUIDs of the secrets whose payload was asked for, in order."""
        return [path.split('/')[3] for method, path in self.requests
                if path.endswith('/payload')]


class Vault(_Fake):
    """Version 2 of the KV engine of HashiCorp's Vault, mounted at secret/.

    :ivar secrets: {path: what castellan stores}
    :ivar vault_tokens: those that are good for reading
    """

    ROLE = {'role_id': 'attestation', 'secret_id': 'vault-password'}

    def __init__(self):
        super().__init__(None)
        self.secrets = {}
        self.vault_tokens = set()

    def add(self, path, payload, **changes):
        """Store a secret as castellan does."""
        ledger.LEDGER.record('a secret of Vault', payload)
        self.secrets[path] = {
            'type': 'opaque', 'value': payload.hex(), 'algorithm': None,
            'bit_length': None, 'name': None, 'created': None} | changes

    def respond(self, handler, path, query, body):
        if path == '/v1/auth/approle/login':
            if json.loads(body) != self.ROLE:
                handler.send(400, {'errors': ['invalid role or secret ID']})
                return
            token = uuid.uuid4().hex
            self.vault_tokens.add(token)
            handler.send(200, {'auth': {'client_token': token,
                                        'lease_duration': 3600}})
        elif handler.headers.get('X-Vault-Token') not in self.vault_tokens:
            handler.send(403, {'errors': ['permission denied']})
        elif path.removeprefix('/v1/secret/data/') in self.secrets:
            handler.send(200, {'data': {
                'data': self.secrets[path.removeprefix('/v1/secret/data/')],
                'metadata': {'version': 1, 'destroyed': False}}})
        else:
            handler.send(404, {'errors': []})


class Cloud:
    """The three, with the users and tokens that they agree on."""

    SERVICE_USER = 'attestation-user-id'

    def __init__(self):
        self.users = {}
        self.tokens = {}
        self.nova = Nova(self)
        self.barbican = Barbican(self)
        self.keystone = Keystone(self)
        self.users['attestation', 'service-password'] = Identity(
            self.SERVICE_USER, 'service', ('admin', 'service'))

    def reset(self):
        """As if just started, but for the key service's own tokens."""
        for fake in (self.nova, self.barbican, self.keystone):
            fake.reset()
        self.tokens = {
            token: identity for token, identity in self.tokens.items()
            if identity.user_id == self.SERVICE_USER}

    def token(self, identity):
        """A new token for an identity."""
        token = uuid.uuid4().hex
        ledger.LEDGER.record('a keystone token', token)
        self.tokens[token] = identity
        return token

    def stop(self):
        for fake in (self.nova, self.barbican, self.keystone):
            fake.stop()


def answer(*args, **kwargs):
    """A misbehaviour: the same answer to everything."""
    return lambda handler: handler.send(*args, **kwargs)


def hang_up(handler):
    """A misbehaviour: close the connection without an answer."""
    handler.close_connection = True


def trickle(handler):
    """A misbehaviour: a payload, one byte every 50 ms."""
    handler.send_response(200)
    handler.send_header('Content-Type', 'application/octet-stream')
    handler.send_header('Content-Length', '1000')
    handler.end_headers()
    for _ in range(1000):
        try:
            handler.wfile.write(b'x')
            handler.wfile.flush()
        except OSError:
            break
        time.sleep(0.05)


def cut(handler):
    """A misbehaviour: a payload that ends before its declared length."""
    handler.send_response(200)
    handler.send_header('Content-Type', 'application/octet-stream')
    handler.send_header('Content-Length', '1000')
    handler.end_headers()
    handler.wfile.write(b'only this')
    handler.close_connection = True


def flood(handler):
    """A misbehaviour: a payload without a declared length or an end."""
    handler.send_response(200)
    handler.send_header('Content-Type', 'application/octet-stream')
    handler.send_header('Connection', 'close')
    handler.end_headers()
    for _ in range(1024):
        try:
            handler.wfile.write(bytes(4096))
        except OSError:
            break
    handler.close_connection = True
