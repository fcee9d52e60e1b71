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

"""A key service on loopback, with everything that a launch needs."""

import base64
import copy
import functools
import hashlib
import pathlib
import secrets
import threading
import uuid

from cheroot import wsgi
import openapi_core
from openapi_core.contrib import requests as openapi_requests
import requests

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice import app
from nova_sev_attest.keyservice.db import migration
from nova_sev_attest.keyservice.schemas import document
from nova_sev_attest.keyservice import sealing
from nova_sev_attest.keyservice import service as keyservice
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import machine
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import policy as launch_policy
from tests.functional.keyservice import fakes
from tests.functional import ledger
from tests.unit.launch import platforms

LUKS_GUID = '736869e5-84f0-4973-92ec-06879ce3da0b'
PASSPHRASE = b'correct horse battery staple, plain to see'

KERNEL = hashlib.sha256(b'a kernel').digest()
INITRD = hashlib.sha256(b'an initrd').digest()
COMMAND_LINE = 'console=ttyS0 quiet'

_CONFIG = """
[DEFAULT]
debug = true
[api]
max_firmware_size = 65536
[database]
connection = {database}
[keystone_authtoken]
www_authenticate_uri = {keystone}/v3
auth_type = password
auth_url = {keystone}/v3
username = attestation
password = service-password
project_name = service
user_domain_name = Default
project_domain_name = Default
token_cache_time = -1
http_request_max_retries = 0
[nova]
auth_type = password
auth_url = {keystone}/v3
username = attestation
password = service-password
project_name = service
user_domain_name = Default
project_domain_name = Default
timeout = 2
[barbican]
auth_type = password
auth_url = {keystone}/v3
username = attestation
password = service-password
project_name = service
user_domain_name = Default
project_domain_name = Default
timeout = 1
[secret_store]
max_secret_size = 8192
deadline = 1
[oslo_messaging_notifications]
driver = log
[sealing]
key_repository = {directory}/sealing-keys
[audit]
key_repository = {directory}/audit-keys
[trust]
extra_anchors = emulated={directory}/ask_ark.cert
"""


def b64(data):
    return base64.b64encode(data).decode()


@functools.cache
def openapi(url):
    """The API document, for a service at this URL."""
    contents = copy.deepcopy(document.load())
    contents['servers'] = [{'url': url}]
    return openapi_core.OpenAPI.from_dict(contents)


class Api:
    """A client that holds every answer to the API document."""

    def __init__(self, url, token):
        self.url = url
        self.token = token
        self._session = requests.Session()

    def __call__(self, method, path, **kwargs):
        headers = dict(kwargs.pop('headers', {}))
        if self.token is not None:
            headers.setdefault('X-Auth-Token', self.token)
        response = self._session.request(
            method, path if path.startswith('http') else self.url + path,
            headers=headers, timeout=30, **kwargs)
        ledger.LEDGER.look(f'the answer to {method} {path}',
                           response.content)
        if path != '/v1/openapi.json':
            self._check(response)
        return response

    def _check(self, response):
        if response.status_code in (404, 405) and (
                response.json()['errors'][0]['code'] in (
                    'attestation.not_found',
                    'attestation.method_not_allowed')):
            # The document knows nothing of it either.
            return
        request = response.request
        if not isinstance(request.body, (bytes, str)):
            request.body = None
        openapi(self.url).validate_response(
            openapi_requests.RequestsOpenAPIRequest(request),
            openapi_requests.RequestsOpenAPIResponse(response))

    def get(self, path, **kwargs):
        return self('GET', path, **kwargs)

    def put(self, path, **kwargs):
        return self('PUT', path, **kwargs)

    def post(self, path, **kwargs):
        return self('POST', path, **kwargs)

    def patch(self, path, **kwargs):
        return self('PATCH', path, **kwargs)

    def delete(self, path, **kwargs):
        return self('DELETE', path, **kwargs)


def error(response, status, code):
    """Assert an API-SIG error; returns its detail."""
    assert response.status_code == status, response.text
    found, = response.json()['errors']
    assert found['code'] == 'attestation.' + code, found
    assert found['status'] == status
    assert found['request_id'] == response.headers['X-Openstack-Request-Id']
    return found['detail']


def stored(keyservice):
    """All that is in the database of a key service, as bytes."""
    return ledger.stored(keyservice.service.database.engine)


class KeyService:
    """A key service under a real HTTP server, and its surroundings.

    :param trust: further lines of the group [trust], and groups that follow
    :ivar service: Service, for looking inside
    """

    def __init__(self, cloud, directory, database=None, key=True,
                 migrate=True, trust=''):
        self.cloud = cloud
        self.directory = pathlib.Path(directory)
        (self.directory / 'ask_ark.cert').write_bytes(platforms.ask_ark())
        if key:
            sealing.KeyRepository(
                str(self.directory / 'sealing-keys')).create()
        self.config_file = self.directory / 'nova-sev-attest.conf'
        self.config_file.write_text(_CONFIG.format(
            directory=directory, keystone=cloud.keystone.url,
            database=(database
                      or f'sqlite:///{directory}/keyservice.sqlite'))
            + trust)
        self.conf = conf_keyservice.load(
            config_files=[str(self.config_file)])
        self.service = keyservice.Service(self.conf)
        if migrate:
            migration.upgrade(self.service.database.engine)
        self._server = wsgi.Server(
            ('127.0.0.1', 0), app.make(self.service), numthreads=12)
        self._server.expiration_interval = 0.05
        self._server.prepare()
        self._record_keys()
        self._thread = threading.Thread(target=self._server.serve)
        self._thread.start()
        self.url = 'http://127.0.0.1:%d' % self._server.bind_addr[1]

    def _record_keys(self):
        for path in (self.directory / 'sealing-keys').glob('*.key'):
            ledger.LEDGER.record('a sealing key',
                                 bytes.fromhex(path.read_text()))

    def look(self):
        """Search the database, and its file, for secrets."""
        self._record_keys()
        ledger.LEDGER.look('the database', stored(self))
        for path in self.directory.glob('keyservice.sqlite*'):
            ledger.LEDGER.look(path.name, path.read_bytes())

    def stop(self):
        self._server.stop()
        self._thread.join(10)
        self.look()
        self.service.database.dispose()

    @property
    def engine(self):
        return self.service.engine

    def api(self, *roles, project='p', user=None):
        """Client with a token of these roles on a project."""
        return Api(self.url, self.cloud.token(fakes.Identity(
            user or f'user-of-{project}', project, roles)))

    def member(self, project='p'):
        return self.api('member', 'reader', project=project)

    def compute(self, host='host-1'):
        """Client with nova-compute's credential, which is a host's own."""
        return self.api('service', project='service',
                        user=f'nova-sev-attest-{host}')

    def operator(self):
        """Client of who reads all of the system."""
        return Api(self.url, self.cloud.token(fakes.Identity(
            'operator', None, ('reader',), system=True)))

    def upload(self, image=None, project='p'):
        """Upload a firmware; returns its SHA-256."""
        image = platforms.firmware() if image is None else image
        sha256 = hashlib.sha256(image).hexdigest()
        response = self.member(project).put(
            f'/v1/firmwares/{sha256}', data=image,
            headers={'Content-Type': 'application/octet-stream'})
        assert response.status_code in (200, 201), response.text
        return sha256

    def secret(self, payload=PASSPHRASE, project='p', granted=True):
        """Store a secret, readable to the key service or not."""
        return self.cloud.barbican.add(
            payload, project,
            [self.cloud.SERVICE_USER] if granted else [])

    def policy_body(self, project='p', **changes):
        body = {
            'name': 'web',
            'trusted_roots': ['emulated'],
            'kernels': [KERNEL.hex()],
            'initrds': [INITRD.hex()],
            'command_lines': [COMMAND_LINE],
            'is_default': True,
        } | changes
        if 'firmwares' not in body:
            body['firmwares'] = [self.upload(project=project)]
        if 'secrets' not in body:
            body['secrets'] = [{'guid': LUKS_GUID,
                                'secret_ref': self.secret(project=project)}]
        return body

    def policy(self, project='p', **changes):
        """Create a policy; returns its body as answered."""
        response = self.member(project).post(
            '/v1/policies',
            json={'policy': self.policy_body(project, **changes)})
        assert response.status_code == 201, response.text
        return response.json()['policy']


def record_guest(guest):
    """Remember the keys of a guest that was started."""
    ledger.LEDGER.record('a TEK', guest.tek)
    ledger.LEDGER.record('a TIK', guest.tik)


class Host:
    """A compute host that boots one server once.

    :param policy: value of the server's property attestation_policy
    """

    def __init__(self, keyservice, project='p', policy=None, name='host-1',
                 server_id=None, platform=None, technology='amd-sev'):
        self.keyservice = keyservice
        self.api = keyservice.compute(name)
        self.name = name
        self.server_id = server_id or keyservice.cloud.nova.add(
            project, name, policy)
        self.platform = platform or platforms.platform()
        self.technology = technology
        self.id = str(uuid.uuid4())
        self.token = secrets.token_hex(32)
        ledger.LEDGER.record('a launch token', self.token)
        ledger.LEDGER.record('a launch token', bytes.fromhex(self.token))
        self.guest = None

    @property
    def path(self):
        return f'/v1/launches/{self.id}'

    @property
    def headers(self):
        return {'X-Attestation-Launch-Token': self.token}

    def request(self, **changes):
        return {
            'server_id': self.server_id,
            'host': self.name,
            'technology': self.technology,
            'platform': {'pdh': b64(self.platform.pdh),
                         'cert_chain': b64(self.platform.cert_chain)},
        } | changes

    def create(self, **changes):
        api = (self.keyservice.compute(changes['host'])
               if 'host' in changes else self.api)
        return api.put(self.path, headers=self.headers,
                       json={'launch': self.request(**changes)})

    def launch(self):
        """Begin the launch and start the guest; returns the launch."""
        response = self.create()
        assert response.status_code == 201, response.text
        return self.start(response)

    def start(self, response):
        """Start the guest with an answer's session; returns the launch."""
        launch = response.json()['launch']
        session = launch['session']
        self.guest = self.platform.launch(
            base64.b64decode(session['dh_cert']),
            base64.b64decode(session['session']), session['policy'])
        record_guest(self.guest)
        return launch

    def measure(self, firmware=None, kernel=KERNEL, initrd=INITRD,
                command_line=COMMAND_LINE, save_areas=(), **evidence):
        """Measure the guest; returns the evidence."""
        memory = [platforms.firmware() if firmware is None else firmware]
        if kernel is not None:
            memory.append(kernel_hashes.KernelHashes(
                kernel, initrd,
                kernel_hashes.command_line_sha256(command_line)).table())
        measurement = self.guest.measure(*memory, *save_areas)
        return {'technology': self.technology, 'measurement': b64(measurement),
                'api_major': 1, 'api_minor': 51, 'build_id': 3,
                'policy': self.guest.policy_word} | evidence

    def claims(self, firmware=None, kernel=KERNEL, initrd=INITRD,
               command_line=COMMAND_LINE):
        image = platforms.firmware() if firmware is None else firmware
        if kernel is None:
            return {'firmware_sha256': hashlib.sha256(image).hexdigest()}
        return {
            'firmware_sha256': hashlib.sha256(image).hexdigest(),
            'kernel_sha256': kernel.hex(),
            'initrd_sha256': initrd.hex(),
            'command_line_sha256': kernel_hashes.command_line_sha256(
                command_line).hex(),
            'vcpus': 1,
        }

    def send(self, evidence, claims=None, api=None, **headers):
        body = {'evidence': evidence}
        if claims is not None:
            body['claims'] = claims
        return (api or self.api).put(self.path + '/evidence',
                                     headers=self.headers | headers,
                                     json=body)

    def outcome(self, status, reason=None):
        return self.api.put(
            self.path + '/outcome', headers=self.headers,
            json={'outcome': {'status': status, 'reason': reason}})

    def inject(self, release, evidence):
        """What the guest reads: {GUID bytes: data}."""
        table = self.guest.inject(
            base64.b64decode(release['secret_header']),
            base64.b64decode(release['secret']),
            base64.b64decode(evidence['measurement'])[:32])
        return dict(platforms.read_secret_table(table))

    def show(self, project='p'):
        """The launch as its owner sees it."""
        response = self.keyservice.member(project).get(self.path)
        assert response.status_code == 200, response.text
        return response.json()['launch']


class Owner:
    """A guest owner who keeps the keys, with the launch core's functions.

    :ivar issued: the launch core's SessionIssued, which has the keys
    """

    def __init__(self, host, project='p'):
        self.host = host
        self.api = host.keyservice.member(project)
        self.issued = None

    def get(self, below=''):
        response = self.api.get(self.host.path + below)
        assert response.status_code == 200, response.text
        return response.json()

    def put(self, below, body, api=None):
        return (api or self.api).put(f'{self.host.path}/{below}',
                                     json={below: body})

    def make_session(self):
        """Verify the platform that is shown, and make a session for it.

        :returns: as it is uploaded
        """
        shown = self.get('/certificates')['certificates']
        platform = chain.PlatformCertificates.from_libvirt(
            base64.b64decode(shown['pdh']),
            base64.b64decode(shown['cert_chain'])).verify(
                [platforms.anchor()])
        word = self.get()['launch']['policy_word']
        self.issued = machine.begin(platform, uuid.UUID(self.host.id),
                                    launch_policy.LaunchPolicy.parse(word))
        return {'dh_cert': b64(self.issued.godh_certificate),
                'session': b64(self.issued.session)}

    def pack(self, secret=PASSPHRASE, gpa=None):
        """Verify the evidence that is shown, and pack a secret for it.

        :returns: as it is uploaded
        """
        shown = self.get('/evidence')['evidence']
        memory = platforms.firmware() + kernel_hashes.KernelHashes(
            KERNEL, INITRD, kernel_hashes.command_line_sha256(
                COMMAND_LINE)).table()
        verified = self.issued.verify(
            measurement.Evidence.parse(
                base64.b64decode(shown['measurement']), shown['api_major'],
                shown['api_minor'], shown['build_id']),
            {hashlib.sha256(memory).digest(): {}})
        packet = verified.release({uuid.UUID(LUKS_GUID): secret},
                                  firmware.Area(0x810000, 0xc00)).packet
        return {'secret_header': b64(packet.header),
                'secret': b64(packet.data), 'gpa': gpa}

    def decide(self, action, reason=None, api=None):
        return self.put('decision', {'action': action, 'reason': reason}, api)

    def events(self):
        """Names of what became of the launch, in order."""
        return [event['event'].removeprefix('launch.')
                for event in self.get('/events')['events']]
