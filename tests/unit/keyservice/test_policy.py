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

"""Who may do what, by the default rules."""

import pytest

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice import context
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice import policies
from nova_sev_attest.keyservice import policy

READ = {'attestation:firmwares:list', 'attestation:firmwares:show',
        'attestation:policies:list', 'attestation:policies:show',
        'attestation:policies:list-revisions',
        'attestation:policies:show-revision',
        'attestation:launches:list', 'attestation:launches:show',
        'attestation:launches:show-certificates',
        'attestation:launches:show-evidence',
        'attestation:launches:list-events',
        'attestation:platforms:list', 'attestation:platforms:show'}
WRITE = {'attestation:firmwares:upload', 'attestation:firmwares:delete',
         'attestation:policies:create', 'attestation:policies:update',
         'attestation:policies:delete', 'attestation:policies:revoke',
         'attestation:policies:restore',
         'attestation:launches:upload-session',
         'attestation:launches:upload-secret',
         'attestation:launches:decide'}
COMPUTE = {'attestation:launches:create', 'attestation:launches:evidence',
           'attestation:launches:outcome'}
OPERATE = {'attestation:launches:list-all', 'attestation:launches:show-all',
           'attestation:platforms:list-all', 'attestation:platforms:show-all'}


@pytest.fixture(scope='module')
def authorizer():
    return policy.Authorizer(conf_keyservice.load(config_files=[]))


def caller(*roles, project='p', **more):
    return context.RequestContext(
        user_id='u', project_id=project, roles=list(roles),
        auth_token='the token', **more)


def system(*roles):
    return caller(*roles, project=None, system_scope='all')


def allowed(authorizer, who):
    return {rule.name for rule in policies.list_rules()
            if authorizer.allows(who, rule.name)}


def test_rules_are_documented():
    rules = policies.list_rules()
    assert {rule.name for rule in rules} == READ | WRITE | COMPUTE | OPERATE
    for rule in rules:
        assert rule.description and rule.operations
        assert rule.scope_types == (
            ['system', 'project'] if rule.name in OPERATE else ['project'])


@pytest.mark.parametrize('roles, expected', [
    ((), set()), (('reader',), READ), (('member', 'reader'), READ | WRITE),
    (('member',), READ | WRITE), (('admin',), READ | WRITE),
    (('service',), COMPUTE), (('creator', 'other'), set())])
def test_roles_in_a_project(authorizer, roles, expected):
    assert allowed(authorizer, caller(*roles)) == expected


@pytest.mark.parametrize('roles, expected', [
    ((), set()), (('reader',), OPERATE), (('member',), set()),
    (('admin', 'member', 'reader'), OPERATE), (('service',), set())])
def test_roles_in_the_system(authorizer, roles, expected):
    assert allowed(authorizer, system(*roles)) == expected


@pytest.mark.parametrize('who', [
    caller('admin', 'member', 'reader', 'service', project=None),
    caller('admin', 'member', 'reader', 'service', project=None,
           domain_id='d')])
def test_other_scopes(authorizer, who):
    assert allowed(authorizer, who) == set()


def test_the_system_has_no_project(authorizer):
    with pytest.raises(errors.Forbidden):
        authorizer.require(system('reader'), 'attestation:launches:list-all')


def test_refusal(authorizer):
    with pytest.raises(errors.Forbidden) as caught:
        authorizer.require(caller('reader'), 'attestation:policies:create')
    assert caught.value.code == 'attestation.forbidden'
    assert 'reader' in caught.value.detail


def test_operators_file(tmp_path):
    (tmp_path / 'policy.yaml').write_text(
        '"attestation:policies:create": "role:owner"\n')
    conf = conf_keyservice.load(config_files=[])
    conf.set_override('policy_file', str(tmp_path / 'policy.yaml'),
                      group='oslo_policy')
    authorizer = policy.Authorizer(conf)
    assert authorizer.allows(caller('owner'), 'attestation:policies:create')
    assert not authorizer.allows(caller('member'),
                                 'attestation:policies:create')


def test_entry_point_of_the_tools(tmp_path, monkeypatch):
    config = tmp_path / 'x.conf'
    config.write_text('')
    monkeypatch.setattr('sys.argv', [
        'oslopolicy-list-redundant', '--namespace', 'nova_sev_attest',
        '--config-file', str(config)])
    assert 'attestation:policies:create' in policy.get_enforcer(
    ).registered_rules


def test_token_is_not_in_the_repr():
    assert 'the token' not in repr(caller('member'))
