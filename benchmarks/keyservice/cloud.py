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

"""Keystone, Nova and a Barbican for the benchmark, as cheap as can be.

One process that answers from the request alone: what a token stands for, the
host of a server and its policy are in their names, so that ten thousand
servers need no memory and the answers little time. It is no place to test
behaviour in; the functional tests have fakes for that.

A secret whose UUID begins with RELAYED is asked of the real Barbican, which
in turn validates the token here.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import signal
import urllib.parse
import uuid

HOSTS = 50
PROJECTS = [f'project-{number:02}' for number in range(20)]
SERVICE_USER = 'attestation-user'
#: The names of the two policies, by the first digit of a server's id.
POLICIES = {'0': 'of-fake', 'f': 'of-barbican'}
#: UUID of the secret that is served here, and its payload.
SECRET = '0dd5ec4e-0000-4000-8000-000000000001'
PAYLOAD = b'the passphrase of ten thousand disks'

# User -> id, project, roles. A token is the user's name, a dot, anything.
_IDENTITIES = {
    'attestation': (SERVICE_USER, 'service-project', ('admin', 'service')),
    'barbican': ('barbican-user', 'service-project', ('admin', 'service')),
} | {
    f'nova-sev-attest-compute-{number}': (
        f'host-{number}', 'service-project', ('service',))
    for number in range(HOSTS)
} | {
    f'member{number}': (f'owner-{number}', project,
                        ('member', 'creator', 'reader'))
    for number, project in enumerate(PROJECTS)
}
_DOMAIN = {'id': 'default', 'name': 'Default'}


def server_id(number, policy):
    """UUID of a server: its policy's digit, project, host and number."""
    digit = next(digit for digit, name in POLICIES.items() if name == policy)
    return str(uuid.UUID(
        f'{digit}{number % len(PROJECTS):02x}{number % HOSTS:05x}'
        f'{number:024x}'))


def host_of(server):
    """Name of the host that a server is on."""
    return f'compute-{int(server[3:8], 16)}'


def token_of(user):
    """A token of a user."""
    return f'{user}.token'


def project_of(server):
    """Id of the project that a server belongs to."""
    return PROJECTS[int(server[1:3], 16)]


def _identity(token):
    return _IDENTITIES.get((token or '').partition('.')[0])


class Cloud:
    """:param relay: (host, port) of the real Barbican, or None"""

    def __init__(self, relay):
        self.url = None
        self.relay = relay
        self.requests = {}
        # Seconds that the secret store takes, or None: it hangs up.
        self.secret_delay = 0.0
        self._tokens = {}

    async def answer(self, method, target, headers, body):
        """(status, media type, further headers, body)."""
        path, _, query = target.partition('?')
        part = next((name for name in ('/v3', '/v2.1', '/v1/secrets')
                     if path.startswith(name)), 'other')
        self.requests[part] = self.requests.get(part, 0) + 1
        if part == '/v1/secrets':
            return await self._secret(method, target, headers, body)
        if path.startswith('/control/'):
            return self._control(path, body)
        made = getattr(self, '_answer' + part.strip('/').replace(
            '.', '_'), self._answerother)(method, path, query, headers, body)
        status, value, *more = made
        return (status, 'application/json', more[0] if more else {},
                json.dumps(value).encode())

    def _control(self, path, body):
        """The benchmark's own: counts, and faults of the secret store."""
        if path == '/control/secrets':
            self.secret_delay = json.loads(body)
        return (200, 'application/json', {},
                json.dumps(self.requests).encode())

    def _answerother(self, method, path, query, headers, body):
        if path == '/':
            return 300, {'versions': {'values': [self._version]}}
        return 404, {}

    @functools.cached_property
    def _version(self):
        return {'id': 'v3.14', 'status': 'stable',
                'links': [{'rel': 'self', 'href': self.url + '/v3/'}]}

    def _answerv3(self, method, path, query, headers, body):
        if path.rstrip('/') == '/v3':
            return 200, {'version': self._version}
        if path != '/v3/auth/tokens':
            return 404, {}
        if method == 'POST':
            user = json.loads(body)['auth']['identity']['password']['user']
            token = f'{user["name"]}.{uuid.uuid4().hex}'
            return 201, self._token(user['name']), {'X-Subject-Token': token}
        subject = headers.get('x-subject-token')
        if _identity(subject) is None:
            return 404, {}
        return 200, self._token(subject.partition('.')[0])

    def _token(self, name):
        if name not in self._tokens:
            self._tokens[name] = self._new_token(name)
        return self._tokens[name]

    def _new_token(self, name):
        user, project, roles = _IDENTITIES[name]
        return {'token': {
            'methods': ['password'], 'audit_ids': ['a'],
            'issued_at': '2020-01-01T00:00:00.000000Z',
            'expires_at': '2999-01-01T00:00:00.000000Z',
            'user': {'id': user, 'name': user, 'domain': _DOMAIN,
                     'password_expires_at': None},
            'project': {'id': project, 'name': project, 'domain': _DOMAIN},
            'roles': [{'id': role, 'name': role} for role in roles],
            'catalog': [
                {'type': kind, 'id': kind, 'name': kind, 'endpoints': [
                    {'interface': interface, 'id': f'{kind}-{interface}',
                     'region': 'RegionOne', 'region_id': 'RegionOne',
                     'url': self.url + path}
                    for interface in ('public', 'internal')]}
                for kind, path in (('identity', '/v3'),
                                   ('compute', '/v2.1'),
                                   ('key-manager', ''))]}}

    def _answerv2_1(self, method, path, query, headers, body):
        name = path.rpartition('/')[2]
        if not path.startswith('/v2.1/servers/'):
            return 200, {'migrations': []}
        return 200, {'server': {
            'id': name, 'tenant_id': project_of(name),
            'OS-EXT-SRV-ATTR:host': host_of(name), 'status': 'BUILD',
            'OS-EXT-STS:task_state': 'spawning',
            'metadata': {'attestation_policy': POLICIES[name[0]]}}}

    async def _secret(self, method, target, headers, body):
        if self.secret_delay is None:
            raise ConnectionError
        if self.secret_delay:
            await asyncio.sleep(self.secret_delay)
        if target == f'/v1/secrets/{SECRET}/payload':
            if _identity(headers.get('x-auth-token')) is None:
                return 401, 'application/json', {}, b'{}'
            return 200, 'application/octet-stream', {}, PAYLOAD
        if self.relay is None:
            return 404, 'application/json', {}, b'{}'
        return await self._relayed(method, target, headers, body)

    async def _relayed(self, method, target, headers, body):
        reader, writer = await asyncio.open_connection(*self.relay)
        try:
            kept = {name: value for name, value in headers.items()
                    if name not in ('host', 'connection', 'content-length')}
            lines = [f'{method} {target} HTTP/1.1', 'host: barbican',
                     'connection: close', f'content-length: {len(body)}',
                     *(f'{name}: {value}' for name, value in kept.items())]
            writer.write('\r\n'.join([*lines, '', '']).encode() + body)
            status, found = await read_head(reader)
            size = found.get('content-length')
            payload = await (reader.read() if size is None
                             else reader.readexactly(int(size)))
        finally:
            writer.close()
        return (int(status.split()[1]),
                found.get('content-type', 'application/json'), {}, payload)

    async def serve(self, reader, writer):
        """One connection, until the client closes it."""
        # The client may go, and a fault that was asked for hangs up.
        with contextlib.suppress(ConnectionError,
                                 asyncio.IncompleteReadError):
            while True:
                await self._serve_one(reader, writer)
        writer.close()

    async def _serve_one(self, reader, writer):
        line, headers = await read_head(reader)
        method, target, _ = line.split()
        body = await reader.readexactly(
            int(headers.get('content-length', 0)))
        status, kind, more, body = await self.answer(
            method, target, headers, body)
        head = [f'HTTP/1.1 {status} -', f'Content-Type: {kind}',
                f'Content-Length: {len(body)}',
                *(f'{name}: {value}' for name, value in more.items())]
        writer.write('\r\n'.join([*head, '', '']).encode() + body)
        await writer.drain()


async def read_head(reader):
    """First line and headers (names in lower case) of a message."""
    text = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1')
    first, *lines = text.rstrip('\r\n').split('\r\n')
    return first, {name.lower(): value.strip() for name, _, value in (
        line.partition(':') for line in lines)}


async def _main(port, relay):
    cloud = Cloud(relay)
    cloud.url = f'http://127.0.0.1:{port}'
    server = await asyncio.start_server(cloud.serve, '127.0.0.1', port,
                                        backlog=512)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    server.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--port', type=int, required=True)
    parser.add_argument('--barbican', help='URL of the real one')
    options = parser.parse_args()
    relay = options.barbican and urllib.parse.urlsplit(options.barbican)
    asyncio.run(_main(options.port,
                      relay and (relay.hostname, relay.port)))


if __name__ == '__main__':
    main()
