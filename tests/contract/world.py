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

"""A key service with the resources of two projects, and who may ask it.

The victim's names, ids and digests are markers: found in an answer to
somebody who did not say them first, they are a leak.
"""

import base64
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import subprocess
import sys
import time
import uuid

import requests

from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.functional.keyservice import test_wsgi
from tests.unit.launch import platforms

ROOT = test_wsgi.ROOT
_WORKERS = 2
_HOST = 'contract-host'

# Beside what the harness sets: no log at DEBUG, launches that stay open,
# tokens that are not asked for each time.
_LONG = """
[launches]
expiry = 86400
"""
_QUIET = """
[DEFAULT]
debug = false
[keystone_authtoken]
token_cache_time = 300
"""


@dataclasses.dataclass
class Values:
    """Values that requests may name, beside what schemathesis makes up.

    :ivar markers: what no other project may be told
    :ivar content: what policies say, which neither the compute service nor
        the operator may be told
    """

    launch_ids: list
    policy_ids: list
    platform_ids: list
    server_ids: list
    firmwares: list
    secrets: list
    tokens: list
    measurements: list
    pdh: list
    cert_chain: list
    dh_cert: list
    session: list
    etags: list
    hosts: list
    markers: list
    content: list


class World:
    """The service under uWSGI, on loopback, with its surroundings.

    :param folder: an empty folder
    :ivar values: Values of the victim's project
    :ivar tokens: {role: token, None without one}
    :ivar hidden: texts that may be in no answer
    """

    def __init__(self, folder):
        self._folder = pathlib.Path(folder)
        self._cloud = fakes.Cloud()
        self._inside = harness.KeyService(self._cloud, folder, trust=_LONG)
        self._quiet = self._folder / 'quiet.conf'
        self._quiet.write_text(_QUIET)
        self.log = self._folder / 'uwsgi.log'
        self.victim, self.other = uuid.uuid4().hex, uuid.uuid4().hex
        self.hidden = [harness.PASSPHRASE.decode()]
        self.values = self._fill(self.victim, 'victim')
        self._fill(self.other, 'other')
        self.tokens = self._identities()
        self._process = None
        self.url = None

    def _identities(self):
        def token(user, project, *roles, **more):
            return self._cloud.token(
                fakes.Identity(user, project, roles, **more))

        return {
            'owner': token('owner', self.victim, 'member', 'reader'),
            'reader': token('reader', self.victim, 'reader'),
            'other': token('other', self.other, 'member', 'reader'),
            'operator': token('operator', None, 'reader', system=True),
            'compute': token(f'nova-sev-attest-{_HOST}', 'service',
                             'service'),
            'nobody': None,
        }

    def _fill(self, project, word):
        """Resources of a project in every state; returns their Values."""
        inside = self._inside
        kernel = hashlib.sha256(f'kernel of {word}'.encode()).digest()
        initrd = hashlib.sha256(f'initrd of {word}'.encode()).digest()
        image = platforms.firmware(size=4096 * (2 if word == 'victim' else 3))
        sha256 = inside.upload(image, project=project)
        secret_id = inside.secret(project=project)
        policy = inside.policy(
            project, name=f'policy of {word}', kernels=[kernel.hex()],
            initrds=[initrd.hex()], firmwares=[sha256],
            command_lines=[f'console={word}'],
            secrets=[{'guid': harness.LUKS_GUID, 'secret_ref': secret_id}])
        second = inside.policy(
            project, name=f'second of {word}', is_default=False, secrets=[],
            firmwares=[sha256], kernels=[kernel.hex()],
            initrds=[initrd.hex()], command_lines=[f'console={word}'])
        waiting = inside.policy(
            project, name=f'owners of {word}', is_default=False, secrets=[],
            firmwares=[], kernels=[], initrds=[], command_lines=[],
            verifier='owner')
        approved = inside.policy(
            project, name=f'approved of {word}', is_default=False, secrets=[],
            firmwares=[sha256], kernels=[kernel.hex()],
            initrds=[initrd.hex()], command_lines=[f'console={word}'],
            approval='owner')
        hosts, measurements = [], []
        for state in ('open', 'open', 'released', 'running', 'failed',
                      'denied', 'approval', 'approval'):
            host = harness.Host(
                inside, project=project, name=_HOST,
                policy=approved['name'] if state == 'approval' else None)
            session = host.launch()['session']
            self.hidden += [host.guest.tek.hex(), host.guest.tik.hex()]
            right = {'firmware': image, 'kernel': kernel, 'initrd': initrd,
                     'command_line': f'console={word}'}
            evidence = host.measure(**right)
            if state in ('released', 'running'):
                assert host.send(evidence).status_code == 200
            if state == 'approval':
                assert host.send(evidence).status_code == 202
            if state == 'denied':
                wrong = right | {'initrd': bytes(32)}
                assert host.send(host.measure(**wrong), host.claims(
                    **wrong)).status_code == 403
            if state in ('running', 'failed'):
                host.outcome(state, f'reason of {word}')
            hosts.append(host)
            measurements.append(evidence['measurement'])
        for _ in range(2):
            host = harness.Host(inside, project=project, name=_HOST,
                                policy=waiting['name'])
            assert host.create().status_code == 202
            hosts.append(host)
        # Such as no launch had: the nonce comes first.
        sessions = [harness.b64(
            uuid.uuid4().bytes + base64.b64decode(session['session'])[16:])
            for _ in range(4)]
        launch_ids = [host.id for host in hosts]
        policies = [policy, second, waiting, approved]
        policy_ids = [one['id'] for one in policies]
        servers = [host.server_id for host in hosts]
        found = inside.member(project).get('/v1/platforms').json()
        platform_ids = [one['id'] for one in found['platforms']]
        tags = [inside.member(project).get(
            f'/v1/policies/{policy_id}').headers['ETag']
            for policy_id in policy_ids]
        told = [*(one['name'] for one in policies), secret_id, kernel.hex(),
                initrd.hex(), f'console={word}']
        return Values(
            launch_ids=launch_ids, policy_ids=policy_ids,
            platform_ids=platform_ids, server_ids=servers,
            firmwares=[sha256], secrets=[secret_id],
            tokens=[host.token for host in hosts],
            measurements=measurements,
            pdh=[harness.b64(hosts[0].platform.pdh)],
            cert_chain=[harness.b64(hosts[0].platform.cert_chain)],
            dh_cert=[session['dh_cert']], session=sessions,
            etags=tags, hosts=[_HOST],
            markers=[project, sha256, f'reason of {word}', *told,
                     *policy_ids, *launch_ids, *servers],
            content=[*told, sha256])

    def snapshot(self):
        """All that the victim's project sees of itself."""
        api, found = self._inside.member(self.victim), []
        for path in ('/v1/firmwares', '/v1/policies', '/v1/launches'):
            found.append(api.get(path).json())
        for launch in found[-1]['launches']:
            # It counts down.
            del launch['expires_in']
        for policy_id in self.values.policy_ids:
            found.append(api.get(
                f'/v1/policies/{policy_id}/revisions').json())
        return found

    def start(self):
        """Start the service; its requests are counted in its log."""
        port = test_wsgi.free_port()
        self.url = f'http://127.0.0.1:{port}'
        with self.log.open('wb') as output:
            self._process = subprocess.Popen(
                [pathlib.Path(sys.executable).with_name('uwsgi'), '--ini',
                 ROOT / 'etc/nova-sev-attest/uwsgi.ini'],
                cwd=ROOT, stdout=output,
                stderr=subprocess.STDOUT, env=os.environ | {
                    'NOVA_SEV_ATTEST_CONFIG_FILE':
                        f'{self._inside.config_file}:{self._quiet}',
                    'NOVA_SEV_ATTEST_LISTEN': f'127.0.0.1:{port}',
                    'NOVA_SEV_ATTEST_WORKERS': str(_WORKERS),
                    'NOVA_SEV_ATTEST_THREADS': '8'})
        for _ in range(600):
            with contextlib.suppress(requests.RequestException):
                if requests.get(self.url + '/healthcheck',
                                timeout=5).status_code == 200:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(self.log.read_text())

    def stop(self):
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(40)
            finally:
                self._process.kill()
                self._process.wait()
        self._inside.stop()
        self._cloud.stop()
