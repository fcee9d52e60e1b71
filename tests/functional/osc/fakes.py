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

"""A cloud for the openstack command: what it asks of other services, too."""

import base64
import dataclasses
import json
import uuid

from tests.functional.keyservice import fakes

PASSWORD = 'a password that must not be shown'


@dataclasses.dataclass
class Image:
    """An image of the fake Glance."""

    name: str
    data: bytes
    properties: dict


class Keystone(fakes.Keystone):
    """Has the services of users in its catalog."""

    def _token(self, identity):
        body = super()._token(identity)
        body['token']['catalog'] += [
            {'type': kind, 'id': kind, 'name': kind, 'endpoints': [
                {'interface': 'public', 'id': kind, 'region': 'RegionOne',
                 'region_id': 'RegionOne', 'url': url}]}
            for kind, url in (('attestation', self.cloud.attestation),
                              ('image', self.cloud.glance.url))
            if url is not None]
        return body


class Nova(fakes.Nova):
    """Shows servers to their projects by name, too."""

    def __init__(self, cloud):
        super().__init__(cloud)
        self.names = {}

    def reset(self):
        super().reset()
        self.names.clear()

    def respond(self, handler, path, query, body):
        identity = self.who(handler)
        if identity is None or 'admin' in identity.roles:
            super().respond(handler, path, query, body)
            return
        if path in ('/', '/v2.1', '/v2.1/'):
            handler.send(200, {'version': {
                'id': 'v2.1', 'status': 'CURRENT', 'version': '2.96',
                'min_version': '2.1', 'links': [
                    {'rel': 'self', 'href': self.url + '/v2.1/'}]}})
            return
        own = [{'id': server_id, 'name': name, 'links': []}
               for name, server_id in self.names.items()
               if self.servers[server_id]['tenant_id'] == identity.project_id]
        word = path.removeprefix('/v2.1/servers').lstrip('/')
        if word in ('', 'detail'):
            handler.send(200, {'servers': [
                server for server in own
                if query.get('name') in (None, server['name'])]})
        elif word in {server['id'] for server in own}:
            handler.send(200, {'server': next(
                server for server in own if server['id'] == word)})
        else:
            handler.send(404, {'itemNotFound': {'code': 404}})


class Barbican(fakes.Barbican):
    """Keeps secrets, and who may read them; never asked for the payload."""

    def __init__(self, cloud):
        super().__init__(cloud)
        self.names = {}

    def _store(self, identity, members):
        assert members['payload_content_encoding'] == 'base64'
        secret_id = self.add(base64.b64decode(members['payload']),
                             identity.project_id)
        self.names[secret_id] = members['name']
        return f'{self.url}/v1/secrets/{secret_id}'

    def respond(self, handler, path, query, body):
        identity = self.who(handler)
        parts = path.strip('/').split('/')
        if path in ('/', '/v1', '/v1/'):
            handler.send(200, {'versions': {'values': [{
                'id': 'v1', 'status': 'stable', 'links': [
                    {'rel': 'self', 'href': self.url + '/v1/'}]}]}})
        elif identity is not None and handler.command == 'POST':
            handler.send(201, {'secret_ref': self._store(
                identity, json.loads(body))})
        elif identity is not None and handler.command == 'PUT':
            self.secrets[parts[2]].readers = set(
                json.loads(body)['read']['users'])
            handler.send(200, {'acl_ref': f'{self.url}{path}'})
        elif identity is not None and handler.command == 'DELETE':
            del self.secrets[parts[2]], self.names[parts[2]]
            handler.send(204)
        elif identity is not None and parts == ['v1', 'secrets']:
            found = [{'secret_ref': f'{self.url}/v1/secrets/{secret_id}',
                      'name': name, 'status': 'ACTIVE', 'created': None,
                      'updated': None, 'expiration': None, 'algorithm': None,
                      'bit_length': None, 'mode': None, 'content_types': None,
                      'secret_type': 'opaque'}
                     for secret_id, name in self.names.items()
                     if self.secrets[secret_id].project_id
                     == identity.project_id
                     and query.get('name') in (None, name)]
            handler.send(200, {'secrets': found, 'total': len(found)})
        elif (identity is not None and parts[3:] == ['acl']
                and parts[2] in self.secrets):
            handler.send(200, {'read': {
                'users': sorted(self.secrets[parts[2]].readers),
                'project-access': True}})
        else:
            super().respond(handler, path, query, body)


class Glance(fakes._Fake):
    """Images, to everybody with a token."""

    def __init__(self, cloud):
        super().__init__(cloud)
        self.images = {}

    def reset(self):
        super().reset()
        self.images.clear()

    def add(self, name, data=b'', **properties):
        """Add an image; returns its id."""
        image_id = str(uuid.uuid4())
        self.images[image_id] = Image(name, data, properties)
        return image_id

    def respond(self, handler, path, query, body):
        parts = path.strip('/').split('/')
        if self.who(handler) is None:
            handler.send(401, {})
        elif parts[-1] in ('', 'v2', 'versions'):
            handler.send(200, {'versions': [{
                'id': 'v2.15', 'status': 'CURRENT', 'links': [
                    {'rel': 'self', 'href': self.url + '/v2/'}]}]})
        elif parts == ['v2', 'images']:
            handler.send(200, {'images': [
                self._shown(image_id) for image_id in self.images
                if query.get('name') in (None, self.images[image_id].name)]})
        elif parts[2] not in self.images:
            handler.send(404, {})
        elif parts[3:] == ['file']:
            handler.send(200, self.images[parts[2]].data,
                         'application/octet-stream')
        else:
            handler.send(200, self._shown(parts[2]))

    def _shown(self, image_id):
        image = self.images[image_id]
        return {'id': image_id, 'name': image.name, 'status': 'active',
                'size': len(image.data), 'visibility': 'private',
                **image.properties}


class Cloud(fakes.Cloud):
    """The fakes, and where the key service is.

    :ivar attestation: its URL
    """

    def __init__(self):
        self.users = {}
        self.tokens = {}
        self.attestation = None
        self.nova = Nova(self)
        self.barbican = Barbican(self)
        self.glance = Glance(self)
        self.keystone = Keystone(self)
        self.users['attestation', 'service-password'] = fakes.Identity(
            self.SERVICE_USER, 'service', ('admin', 'service'))
        for user, project, roles in (
                ('alice', 'p', ('member', 'reader')),
                ('mallory', 'q', ('member', 'reader'))):
            self.users[user, PASSWORD] = fakes.Identity(
                f'user-of-{project}', project, roles)

    def reset(self):
        super().reset()
        self.glance.reset()
        self.barbican.names.clear()

    def stop(self):
        super().stop()
        self.glance.stop()
