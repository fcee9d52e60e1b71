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

"""The guests' owners: firmware, secrets and policies, through the APIs."""

import asyncio
import base64
import hashlib
import secrets

from benchmarks.keyservice import cloud
from benchmarks.keyservice import http
from benchmarks.keyservice import load


def prepare(around):
    """Give every project its policies.

    :param around: Surroundings
    :returns: {name of a policy: the secret that it releases}
    """
    return asyncio.run(_prepare(around))


async def _prepare(around):
    payloads = {'of-fake': cloud.PAYLOAD}
    if around.barbican:
        payloads['of-barbican'] = secrets.token_bytes(48)
    for number in range(len(cloud.PROJECTS)):
        token = cloud.token_of(f'member{number}')
        api = http.Client(around.nodes[0].url, token)
        digest = hashlib.sha256(load.FIRMWARE).hexdigest()
        await _ask(api, 'PUT', f'/v1/firmwares/{digest}', data=load.FIRMWARE)
        for name, payload in payloads.items():
            secret = cloud.SECRET
            if name == 'of-barbican':
                secret = await _store(http.Client(
                    around.barbican.url, token), payload)
            await _ask(api, 'POST', '/v1/policies', {'policy': {
                'name': name, 'trusted_roots': ['emulated'],
                'firmwares': [digest], 'kernels': [], 'initrds': [],
                'command_lines': [], 'firmware_boot': True,
                'secrets': [{'guid': str(load.LUKS),
                             'secret_ref': secret}]}})
    return payloads


async def _store(barbican, payload):
    """Store a secret and grant it to the key service; returns its UUID."""
    stored = await _ask(barbican, 'POST', '/v1/secrets', {
        'name': 'disk', 'payload': base64.b64encode(payload).decode(),
        'payload_content_type': 'application/octet-stream',
        'payload_content_encoding': 'base64'})
    secret = stored['secret_ref'].rpartition('/')[2]
    await _ask(barbican, 'PUT', f'/v1/secrets/{secret}/acl', {
        'read': {'users': [cloud.SERVICE_USER], 'project-access': False}})
    return secret


async def _ask(api, method, path, value=None, **more):
    answer = await api(method, path, value, **more)
    if answer.status not in (200, 201, 204):
        raise RuntimeError(f'{method} {path}: {answer.status} '
                           f'{answer.body.decode()[:500]}')
    return answer.json() if answer.body else None
