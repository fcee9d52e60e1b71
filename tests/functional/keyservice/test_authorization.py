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

"""Who may do what: every operation of the API document, as every role.

An operation that is added to the document fails here until its row says what
each role gets.
"""

import base64

import pytest

from nova_sev_attest.keyservice.schemas import document
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.unit.launch import platforms

#: The columns below, from the least of them to the greatest.
ROLES = ('nobody', 'unscoped', 'roleless', 'other', 'operator', 'compute',
         'reader', 'member')
PUBLIC = {'listVersions': 300, 'showVersion': 200, 'showDocument': 200}
# other is a member of another project: what is not its own does not exist.
EXPECTED = {
    'listFirmwares': (401, 403, 403, 200, 403, 403, 200, 200),
    'showFirmware': (401, 403, 403, 404, 403, 403, 200, 200),
    'uploadFirmware': (401, 403, 403, 201, 403, 403, 403, 200),
    'deleteFirmware': (401, 403, 403, 404, 403, 403, 403, 204),
    'listPolicies': (401, 403, 403, 200, 403, 403, 200, 200),
    # 400: other's own project has no such firmware.
    'createPolicy': (401, 403, 403, 400, 403, 403, 403, 201),
    'showPolicy': (401, 403, 403, 404, 403, 403, 200, 200),
    'updatePolicy': (401, 403, 403, 404, 403, 403, 403, 200),
    'deletePolicy': (401, 403, 403, 404, 403, 403, 403, 204),
    'revokePolicy': (401, 403, 403, 404, 403, 403, 403, 200),
    'restorePolicy': (401, 403, 403, 404, 403, 403, 403, 200),
    'listPolicyRevisions': (401, 403, 403, 404, 403, 403, 200, 200),
    'showPolicyRevision': (401, 403, 403, 404, 403, 403, 200, 200),
    'listLaunches': (401, 403, 403, 200, 200, 403, 200, 200),
    'showLaunch': (401, 403, 403, 404, 200, 403, 200, 200),
    'createLaunch': (401, 403, 403, 403, 403, 200, 403, 403),
    'sendEvidence': (401, 403, 403, 403, 403, 200, 403, 403),
    'reportOutcome': (401, 403, 403, 403, 403, 200, 403, 403),
    'showLaunchCertificates': (401, 403, 403, 404, 403, 403, 200, 200),
    'showEvidence': (401, 403, 403, 404, 403, 403, 200, 200),
    'listLaunchEvents': (401, 403, 403, 404, 403, 403, 200, 200),
    'uploadSession': (401, 403, 403, 404, 403, 403, 403, 200),
    # 409: it may, but the launch has no evidence yet.
    'uploadSecret': (401, 403, 403, 404, 403, 403, 403, 409),
    'decideLaunch': (401, 403, 403, 404, 403, 403, 403, 200),
    'listPlatforms': (401, 403, 403, 200, 200, 403, 200, 200),
    'showPlatform': (401, 403, 403, 404, 200, 403, 200, 200),
}
_OPERATIONS = {
    operation['operationId']: (method.upper(), path)
    for path, item in document.load()['paths'].items()
    for method, operation in item.items() if method != 'parameters'}


def test_every_operation_has_a_row():
    assert _OPERATIONS.keys() == EXPECTED.keys() | PUBLIC.keys()


def client(keyservice, role):
    def token(project, *roles, **more):
        return harness.Api(keyservice.url, keyservice.cloud.token(
            fakes.Identity('somebody', project, roles, **more)))

    return {
        'nobody': lambda: harness.Api(keyservice.url, None),
        'unscoped': lambda: token(None, 'member', 'reader', 'service'),
        'roleless': lambda: token('p', 'creator'),
        'other': lambda: keyservice.member('q'),
        'operator': keyservice.operator,
        'compute': keyservice.compute,
        'reader': lambda: keyservice.api('reader'),
        'member': keyservice.member,
    }[role]()


class Target:
    """Resources of the project p, each fit for what is asked of it."""

    def __init__(self, keyservice):
        self.image = platforms.firmware()
        self.unused = platforms.firmware(size=12288)
        self.unused_sha256 = keyservice.upload(self.unused)
        self.policy = keyservice.policy()
        keyservice.policy(name='approved', is_default=False, secrets=[],
                          approval='owner')
        keyservice.policy(name='owned', is_default=False, secrets=[],
                          verifier='owner')
        self.open = harness.Host(keyservice)
        session = self.open.launch()['session']
        # One that no launch had: the nonce comes first.
        self.session = {'dh_cert': session['dh_cert'], 'session': harness.b64(
            bytes(range(16)) + base64.b64decode(session['session'])[16:])}
        self.decided = harness.Host(keyservice, policy='approved')
        self.decided.launch()
        assert self.decided.send(self.decided.measure()).status_code == 202
        self.owned = harness.Host(keyservice, policy='owned')
        assert self.owned.create().status_code == 202
        found, *_ = keyservice.member().get(
            '/v1/platforms').json()['platforms']
        self.platform_id = found['id']

    def request(self, name):
        """(method, path, arguments) of a request that is as documented."""
        method, path = _OPERATIONS[name]
        launch, arguments = self.open, {}
        sha256 = self.policy['firmwares'][0]
        if name in ('showEvidence', 'decideLaunch'):
            launch = self.decided
        if name in ('uploadSession', 'uploadSecret'):
            launch = self.owned
        if name == 'deleteFirmware':
            sha256 = self.unused_sha256
        if name == 'uploadFirmware':
            arguments = {'data': self.image, 'headers': {
                'Content-Type': 'application/octet-stream'}}
        if name in ('createLaunch', 'sendEvidence', 'reportOutcome'):
            arguments = {'headers': launch.headers}
        if name == 'updatePolicy':
            arguments = {'headers': {'If-Match': '*'}}
        bodies = {
            'createPolicy': lambda: {'policy': {
                'name': 'new', 'firmwares': [sha256], 'secrets': []}},
            'updatePolicy': lambda: {'policy': {'name': 'renamed'}},
            'createLaunch': lambda: {'launch': launch.request()},
            'sendEvidence': lambda: {'evidence': launch.measure()},
            'reportOutcome': lambda: {'outcome': {'status': 'failed'}},
            'uploadSession': lambda: {'session': self.session},
            'uploadSecret': lambda: {'secret': None},
            'decideLaunch': lambda: {'decision': {'action': 'approve'}},
        }
        if name in bodies:
            arguments['json'] = bodies[name]()
        return method, path.format(
            sha256=sha256, policy_id=self.policy['id'], revision=1,
            launch_id=launch.id, platform_id=self.platform_id), arguments


@pytest.mark.parametrize('name', EXPECTED)
def test_operation(keyservice, name):
    method, path, arguments = Target(keyservice).request(name)
    answers = [client(keyservice, role)(method, path, **arguments)
               for role in ROLES]
    assert dict(zip(ROLES, (answer.status_code for answer in answers))) == (
        dict(zip(ROLES, EXPECTED[name])))
    for role, answer in zip(ROLES, answers):
        if answer.status_code in (401, 403, 404):
            # Nothing but the refusal, which does not tell what there is.
            assert answer.json().keys() == {'errors'}, role
        if answer.status_code == 403:
            harness.error(answer, 403, 'forbidden')


@pytest.mark.parametrize('name', PUBLIC)
def test_public_operation(keyservice, name):
    method, path = _OPERATIONS[name]
    for role in ROLES:
        answer = client(keyservice, role)(method, path)
        assert answer.status_code == PUBLIC[name], role


@pytest.mark.parametrize('name', [
    name for name, (method, path) in _OPERATIONS.items()
    if '{' in path and EXPECTED[name][ROLES.index('other')] == 404])
def test_of_another_project_is_as_not_there(keyservice, name):
    """The same words for what is another's and for what does not exist."""
    method, path, arguments = Target(keyservice).request(name)
    gone = path
    for value in path.split('/'):
        if len(value) in (36, 64):
            gone = gone.replace(value, value.translate(
                str.maketrans('0123456789abcdef', '123456789abcdef0')))
    other = keyservice.member('q')
    found, missing = (
        other(method, where, **arguments).json()['errors'][0]
        for where in (path, gone))
    assert found['code'] == missing['code']
    for value in path.split('/'):
        if len(value) in (36, 64):
            assert value not in found['title']
    assert len(found['detail']) == len(missing['detail'])
