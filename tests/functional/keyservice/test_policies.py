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

"""Policies of a project, and the secrets they name."""

import functools
import hashlib
import json
import uuid

import pytest
import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice.objects import policies
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.functional.keyservice.harness import error
from tests.unit.launch import platforms


SEV_ES = {'technologies': ['amd-sev-es'], 'vcpus': [1, 2],
          'cpu_models': ['EPYC-v4'], 'launch_profiles': ['qemu-legacy-1']}


def create(keyservice, api=None, **changes):
    return (api or keyservice.member()).post(
        '/v1/policies', json={'policy': keyservice.policy_body(**changes)})


def test_create_and_show(either):
    body = either.policy_body(vcpus=[1, 2], min_api_version='1.51')
    response = either.member().post('/v1/policies', json={'policy': body})
    assert response.status_code == 201
    policy = response.json()['policy']
    assert response.headers['Location'].endswith(
        '/v1/policies/' + policy['id'])
    assert policy['links'] == [
        {'rel': 'self', 'href': response.headers['Location']}]
    assert {name: policy[name] for name in body} == body
    assert policy['revision'] == 1 and policy['project_id'] == 'p'
    assert policy['technologies'] == ['amd-sev']
    shown = either.api('reader').get(f'/v1/policies/{policy["id"]}')
    assert shown.json()['policy'] == policy
    assert shown.headers['ETag'] == response.headers['ETag']


def test_exact_text_survives(either):
    line = 'root=/dev/mapper/root  quiet \u00fcml\U0001f600 \t"x" '
    policy = either.policy(command_lines=[line, line.upper(), ''])
    shown = either.member().get(f'/v1/policies/{policy["id"]}').json()
    assert shown['policy']['command_lines'] == [line, line.upper(), '']


def test_names_are_compared_exactly(either):
    either.policy(is_default=False)
    for name in ('WEB', 'Web', 'w\u00e9b'):
        assert create(either, name=name,
                      is_default=False).status_code == 201
    error(create(either, is_default=False), 409, 'policy_name_taken')


class TestSecrets:

    def test_secret_of_another_project(self, keyservice):
        # P granted its secret to the key service's user, which could read
        # it; project Q cannot.
        secret_id = keyservice.secret(project='p')
        secrets = [{'guid': harness.LUKS_GUID, 'secret_ref': secret_id}]
        detail = error(create(keyservice, keyservice.member('q'),
                              project='q', secrets=secrets),
                       403, 'secret_forbidden')
        assert 'Your token' in detail
        # Nor can it be added later.
        policy = keyservice.policy(project='q', secrets=[])
        api = keyservice.member('q')
        path = f'/v1/policies/{policy["id"]}'
        tag = api.get(path).headers['ETag']
        error(api.patch(path, headers={'If-Match': tag},
                        json={'policy': {'secrets': secrets}}),
              403, 'secret_forbidden')
        assert api.get(path).json()['policy']['secrets'] == []
        # Each question was asked with the caller's token.
        assert keyservice.cloud.barbican.payload_requests() == [
            secret_id, secret_id]

    def test_user_of_another_project_whom_the_acl_names(self, keyservice):
        secret_id = keyservice.secret(project='p')
        keyservice.cloud.barbican.secrets[secret_id].readers.add('user-of-q')
        assert create(
            keyservice, keyservice.member('q'), project='q',
            secrets=[{'guid': harness.LUKS_GUID, 'secret_ref': secret_id}]
        ).status_code == 201

    def test_a_change_proves_it_anew(self, keyservice):
        """Who may not read a secret may not loosen what guards it."""
        policy = keyservice.policy()
        path = f'/v1/policies/{policy["id"]}'
        colleague = keyservice.api('admin', user='colleague')
        tag = colleague.get(path).headers['ETag']
        error(colleague.patch(path, headers={'If-Match': tag},
                              json={'policy': {'firmware_boot': True}}),
              403, 'secret_forbidden')
        changed = keyservice.member().patch(
            path, headers={'If-Match': tag},
            json={'policy': {'firmware_boot': True}})
        assert changed.status_code == 200

    def test_unknown_secret(self, keyservice):
        error(create(keyservice, secrets=[
            {'guid': harness.LUKS_GUID, 'secret_ref': str(uuid.uuid4())}]),
            403, 'secret_forbidden')

    @pytest.mark.parametrize('form', [
        '{id}', '{barbican}/v1/secrets/{id}', '/v1/secrets/{id}/',
        'secrets/{id}', 'http://127.0.0.1:1/v1/secrets/{id}',
        'https://attacker.example/any/v1/secrets/{id}'])
    def test_only_the_uuid_is_used(self, keyservice, form):
        secret_id = keyservice.secret()
        reference = form.format(id=secret_id,
                                barbican=keyservice.cloud.barbican.url)
        response = create(keyservice, secrets=[
            {'guid': harness.LUKS_GUID.upper(), 'secret_ref': reference}])
        assert response.status_code == 201, response.text
        assert response.json()['policy']['secrets'] == [
            {'guid': harness.LUKS_GUID, 'secret_ref': secret_id}]
        assert keyservice.cloud.barbican.payload_requests() == [secret_id]

    @pytest.mark.parametrize('form', [
        '{id}/payload', 'http://h/v1/secrets/{id}?x=1', '{id}#x',
        'http://h/v1/containers/{id}', ' {id}', '{id}\n', 'x{id}'])
    def test_malformed_reference(self, keyservice, form):
        reference = form.format(id=keyservice.secret())
        error(create(keyservice, secrets=[
            {'guid': harness.LUKS_GUID, 'secret_ref': reference}]),
            400, 'secret_ref_malformed')
        assert keyservice.cloud.barbican.requests == []

    def test_guid_twice(self, keyservice):
        error(create(keyservice, secrets=[
            {'guid': guid, 'secret_ref': keyservice.secret()}
            for guid in (harness.LUKS_GUID, harness.LUKS_GUID.upper())]),
            400, 'secret_guid_repeated')

    @pytest.mark.parametrize('misbehave', [
        fakes.answer(500), fakes.hang_up, fakes.answer(200, b'<html>')])
    def test_barbican_away(self, keyservice, misbehave):
        body = keyservice.policy_body()
        keyservice.cloud.barbican.misbehave = misbehave
        error(keyservice.member().post('/v1/policies',
                                       json={'policy': body}),
              503, 'secret_store_unavailable')
        assert keyservice.member().get(
            '/v1/policies').json()['policies'] == []

    @pytest.mark.parametrize('payload, code', [
        (b'x' * 8193, 'secret_too_large'), (b'', 'secret_empty')])
    def test_secret_that_cannot_be_used(self, keyservice, payload, code):
        error(create(keyservice, secrets=[{
            'guid': harness.LUKS_GUID,
            'secret_ref': keyservice.secret(payload)}]), 400, code)

    def test_weaker_policy_is_warned_of(self, keyservice):
        first = keyservice.policy()
        assert not any('named by policy' in warning
                       for warning in first['warnings'])
        second = keyservice.policy(name='weak', is_default=False,
                                   firmware_boot=True,
                                   secrets=first['secrets'])
        assert any("named by policy 'web'" in warning
                   for warning in second['warnings'])
        assert any('firmware_boot' in warning
                   for warning in second['warnings'])
        shown = keyservice.member().get(f'/v1/policies/{first["id"]}')
        assert any(
            "named by policy 'weak'" in warning
            and 'guards less: it boots what the firmware finds' in warning
            for warning in shown.json()['policy']['warnings'])

    def test_how_policies_with_a_secret_compare(self, either):
        first = either.policy()
        api = either.member()
        paths = [f'/v1/policies/{first["id"]}']
        for name in ('b', 'a'):
            policy = either.policy(name=name, is_default=False,
                                   secrets=first['secrets'])
            paths.append(f'/v1/policies/{policy["id"]}')

        def told():
            """What is said of policy 'b' on the others, in a list, too."""
            listed = {policy['id']: policy['warnings'] for policy in
                      api.get('/v1/policies').json()['policies']}
            assert listed == {
                path.split('/')[-1]: api.get(path).json()['policy'][
                    'warnings'] for path in paths}
            return [text for policy_id, texts in listed.items()
                    for text in texts if "named by policy 'b'" in text]

        def change(**changes):
            response = api.patch(paths[1], headers={'If-Match': '*'},
                                 json={'policy': changes})
            assert response.status_code == 200, response.text

        assert len(told()) == 2
        assert not any('which guards less' in text for text in told())
        for path in paths:
            assert api.patch(path, headers={'If-Match': '*'}, json={
                'policy': {'approval': 'owner', 'limits': {
                    'max_releases': 3}}}).status_code == 200
        assert not any('which guards less' in text for text in told())
        change(approval='automatic')
        assert all('less: it releases without its owner' in text
                   for text in told())
        change(approval='owner', limits=None)
        assert all('less: it releases more often' in text for text in told())
        api.put(f'{paths[1]}/revocation')
        assert all(text.endswith('which is revoked.') for text in told())
        api.delete(f'{paths[1]}/revocation')
        assert len(told()) == 2
        # Who verifies alone has no secret here to share.
        change(verifier='owner', approval='automatic', secrets=[])
        assert told() == []

    def test_secret_under_two_guids(self, keyservice):
        first = keyservice.policy()
        secret_id = first['secrets'][0]['secret_ref']
        second = keyservice.policy(name='b', is_default=False, secrets=[
            {'guid': str(uuid.UUID(int=n)), 'secret_ref': secret_id}
            for n in (1, 2)])
        assert len([text for text in second['warnings']
                    if 'named by' in text]) == 1

    def test_secret_shared_with_another_project_is_not_told(self,
                                                            keyservice):
        first = keyservice.policy()
        secret_id = first['secrets'][0]['secret_ref']
        keyservice.cloud.barbican.secrets[secret_id].readers.add('user-of-q')
        theirs = keyservice.policy(project='q', secrets=first['secrets'])
        assert not any('named by' in text for text in theirs['warnings'])


class TestContent:

    @pytest.mark.parametrize('changes, status, code', [
        ({'firmwares': []}, 400, 'firmware_missing'),
        ({'firmwares': ['0' * 64]}, 400, 'firmware_unknown'),
        ({'firmwares': ['x' * 64]}, 400, 'request_invalid'),
        ({'kernels': ['0' * 63]}, 400, 'request_invalid'),
        ({'kernels': ['0' * 64 + '\n']}, 400, 'request_invalid'),
        ({'kernels': ['0' * 64] * 2}, 400, 'request_invalid'),
        ({'command_lines': []}, 400, 'command_line_missing'),
        ({'command_lines': ['a\0b']}, 400, 'request_invalid'),
        ({'command_lines': ['x' * 4097]}, 400, 'request_invalid'),
        ({'command_lines': None}, 400, 'request_invalid'),
        ({'technologies': ['intel-tdx']}, 400, 'request_invalid'),
        ({'technologies': []}, 400, 'request_invalid'),
        ({'trusted_roots': ['unheard-of']}, 400, 'trusted_root_unknown'),
        ({'trusted_roots': []}, 400, 'request_invalid'),
        ({'vcpus': []}, 400, 'request_invalid'),
        ({'vcpus': [0]}, 400, 'request_invalid'),
        ({'cpu_models': ['Pentium']}, 400, 'profile_unknown'),
        ({'cpu_models': None}, 400, 'request_invalid'),
        ({'cpu_signatures': [0]}, 400, 'request_invalid'),
        ({'cpu_signatures': [1 << 32]}, 400, 'request_invalid'),
        ({'cpu_signatures': ['0x800f12']}, 400, 'request_invalid'),
        ({'launch_profiles': ['qemu-legacy-99']}, 400, 'profile_unknown'),
        ({'launch_profiles': ['']}, 400, 'request_invalid'),
        (SEV_ES | {'vcpus': None}, 400, 'sev_es_incomplete'),
        (SEV_ES | {'cpu_models': []}, 400, 'sev_es_incomplete'),
        (SEV_ES | {'launch_profiles': []}, 400, 'sev_es_incomplete'),
        (SEV_ES | {'vcpus': list(range(1, 65)),
                   'cpu_signatures': list(range(1, 65))}, 400,
         'policy_too_broad'),
        (SEV_ES | {'vcpus': [4096],
                   'cpu_signatures': list(range(1, 33))}, 400,
         'policy_too_broad'),
        ({'min_api_version': '1'}, 400, 'request_invalid'),
        ({'min_api_version': '1.256'}, 400, 'request_invalid'),
        ({'name': ''}, 400, 'request_invalid'),
        ({'name': ' web'}, 400, 'request_invalid'),
        ({'name': 'we\nb'}, 400, 'request_invalid'),
        ({'name': 'x' * 256}, 400, 'request_invalid'),
        ({'name': str(uuid.UUID(int=5))}, 400, 'policy_name_invalid'),
        ({'is_default': 'yes'}, 400, 'request_invalid'),
        ({'owner': 'me'}, 400, 'request_invalid'),
        ({'secrets': [{'guid': 'x', 'secret_ref': 'y' * 36}]}, 400,
         'request_invalid'),
        ({'secrets': [{'guid': harness.LUKS_GUID}]}, 400,
         'request_invalid'),
        ({'kernels': ['%064x' % n for n in range(64)],
          'initrds': ['%064x' % n for n in range(64)],
          'command_lines': ['a', 'b']}, 400, 'policy_too_broad'),
    ])
    def test_refused(self, keyservice, changes, status, code):
        error(create(keyservice, **changes), status, code)
        assert keyservice.member().get(
            '/v1/policies').json()['policies'] == []

    def test_kernels_need_a_firmware_that_measures_them(self, keyservice):
        bare = keyservice.upload(platforms.firmware(hash_table=None))
        error(create(keyservice, firmwares=[bare]), 400,
              'firmware_unusable')
        assert create(keyservice, firmwares=[bare], kernels=[],
                      firmware_boot=True).status_code == 201

    def test_sev_es(self, either):
        policy = either.policy(**SEV_ES | {
            'technologies': ['amd-sev', 'amd-sev-es'], 'vcpus': [1, 2.0],
            'cpu_signatures': [0x60fb1],
            'launch_profiles': ['qemu-legacy', 'qemu-init2-1']})
        assert policy['vcpus'] == [1, 2]
        assert policy['cpu_models'] == ['EPYC-v4']
        assert policy['cpu_signatures'] == [0x60fb1]
        # Names are kept with their versions: a later one is another.
        assert policy['launch_profiles'] == ['qemu-legacy-1', 'qemu-init2-1']
        shown = either.member().get(f'/v1/policies/{policy["id"]}')
        assert shown.json()['policy'] == policy

    def test_sev_es_lacks_are_named(self, keyservice):
        detail = error(create(keyservice, technologies=['amd-sev-es']), 400,
                       'sev_es_incomplete')
        assert ('lacks vcpus, cpu_models or cpu_signatures, launch_profiles'
                in detail)

    def test_a_change_may_not_take_away_what_sev_es_needs(self, keyservice):
        policy = keyservice.policy(**SEV_ES)
        path = f'/v1/policies/{policy["id"]}'
        api = keyservice.member()
        etag = api.get(path).headers['ETag']
        error(api.patch(path, json={'policy': {'vcpus': None}},
                        headers={'If-Match': etag}), 400, 'sev_es_incomplete')
        changed = api.patch(path, json={'policy': {'vcpus': [8]}},
                            headers={'If-Match': etag}).json()['policy']
        assert changed['vcpus'] == [8]
        assert changed['cpu_models'] == SEV_ES['cpu_models']

    def test_several_vcpus_need_a_firmware_that_starts_them(self,
                                                            keyservice):
        bare = keyservice.upload(platforms.firmware(reset_eip=None))
        error(create(keyservice, firmwares=[bare], **SEV_ES), 400,
              'firmware_unusable')
        assert create(keyservice, firmwares=[bare], **SEV_ES | {
            'vcpus': [1]}).status_code == 201

    def test_revisions_from_before_sev_es_are_read(self, keyservice):
        policy = keyservice.policy()
        added = ('cpu_models', 'cpu_signatures', 'launch_profiles',
                 'verifier', 'approval', 'limits')
        with keyservice.service.database.writer() as session:
            revision = session.scalars(
                sa.select(models.PolicyRevision)).one()
            body = json.loads(revision.body)
            for name in added:
                del body[name]
            revision.body = json.dumps(body)
        shown = keyservice.member().get(
            f'/v1/policies/{policy["id"]}').json()['policy']
        assert shown == policy
        assert [shown[name] for name in added] == [
            [], [], [], 'service', 'automatic', None]

    def test_firmware_of_another_project(self, keyservice):
        theirs = keyservice.upload(project='p')
        error(create(keyservice, keyservice.member('q'), project='q',
                     firmwares=[theirs]), 400, 'firmware_unknown')

    def test_a_policy_that_allows_nothing_is_warned_of(self, keyservice):
        policy = keyservice.policy(kernels=[])
        assert any('allows no launch' in text for text in policy['warnings'])

    def test_emulated_root_is_warned_of(self, keyservice):
        assert any('emulated' in text
                   for text in keyservice.policy()['warnings'])
        body = keyservice.policy_body(name='real', is_default=False,
                                      secrets=[])
        del body['trusted_roots']
        answer = keyservice.member().post('/v1/policies',
                                          json={'policy': body})
        assert answer.json()['policy']['warnings'] == []


class TestChange:

    @pytest.fixture
    def path(self, keyservice):
        return f'/v1/policies/{keyservice.policy()["id"]}'

    def test_change_while_another_is_written(self, keyservice, path,
                                             monkeypatch):
        """The revision that was read is held to again in the write."""
        api, authoring = keyservice.member(), keyservice.service.authoring
        prove = authoring._prove_readable

        def between(context, content):
            monkeypatch.setattr(authoring, '_prove_readable', prove)
            assert api.patch(path, headers={'If-Match': '*'}, json={
                'policy': {'name': 'faster'}}).status_code == 200
            prove(context, content)

        monkeypatch.setattr(authoring, '_prove_readable', between)
        error(api.patch(path, headers={'If-Match': '*'},
                        json={'policy': {'kernels': []}}),
              412, 'policy_changed')
        shown = api.get(path).json()['policy']
        assert (shown['name'], shown['revision']) == ('faster', 2)
        assert shown['kernels'] != []

    def test_restored_while_changed(self, keyservice, path, monkeypatch):
        """Who restores proves what is in force then."""
        api, authoring = keyservice.member(), keyservice.service.authoring
        api.put(f'{path}/revocation')
        prove = authoring._prove_readable

        def between(context, content):
            monkeypatch.setattr(authoring, '_prove_readable', prove)
            assert api.patch(path, headers={'If-Match': '*'}, json={
                'policy': {'name': 'faster'}}).status_code == 200
            prove(context, content)

        monkeypatch.setattr(authoring, '_prove_readable', between)
        error(api.delete(f'{path}/revocation'), 412, 'policy_changed')
        assert api.get(path).json()['policy']['revoked_at'] is not None

    def test_new_revision(self, keyservice, path):
        api = keyservice.member()
        before = api.get(path)
        response = api.patch(
            path, headers={'If-Match': before.headers['ETag']},
            json={'policy': {'kernels': [], 'firmware_boot': True}})
        after = response.json()['policy']
        expected = before.json()['policy'] | {
            'kernels': [], 'firmware_boot': True, 'revision': 2}
        for moving in ('updated_at', 'warnings'):
            assert after.pop(moving) != expected.pop(moving)
        assert after == expected
        assert response.headers['ETag'] != before.headers['ETag']
        assert api.get(path).headers['ETag'] == response.headers['ETag']

    def test_condition(self, keyservice, path):
        api, body = keyservice.member(), {'policy': {'name': 'new'}}
        error(api.patch(path, json=body), 428, 'if_match_missing')
        old = api.get(path).headers['ETag']
        for tag in ('"other"', 'W/' + old, old.strip('"'), '"*"'):
            error(api.patch(path, headers={'If-Match': tag}, json=body),
                  412, 'policy_changed')
        several = api.patch(path, headers={'If-Match': f'"other", {old}'},
                            json=body)
        assert several.status_code == 200
        error(api.patch(path, headers={'If-Match': old}, json=body),
              412, 'policy_changed')
        assert api.patch(path, headers={'If-Match': '*'},
                         json=body).status_code == 200

    @pytest.mark.parametrize('change', [
        {}, {'revision': 5}, {'project_id': 'q'}, {'name': None}])
    def test_malformed(self, keyservice, path, change):
        error(keyservice.member().patch(path, headers={'If-Match': '*'},
                                        json={'policy': change}),
              400, 'request_invalid')

    def test_default_is_handed_over_in_two_steps(self, keyservice, path):
        api = keyservice.member()
        other = keyservice.policy(name='other', is_default=False)
        other_path = f'/v1/policies/{other["id"]}'

        def set_default(where, value):
            return api.patch(where, headers={'If-Match': '*'},
                             json={'policy': {'is_default': value}})

        error(set_default(other_path, True), 409, 'default_exists')
        assert set_default(path, False).status_code == 200
        assert set_default(other_path, True).status_code == 200
        error(set_default(path, True), 409, 'default_exists')

    def test_name_taken(self, keyservice, path):
        other = keyservice.policy(name='other', is_default=False)
        error(keyservice.member().patch(
            f'/v1/policies/{other["id"]}', headers={'If-Match': '*'},
            json={'policy': {'name': 'web'}}), 409, 'policy_name_taken')

    def test_delete(self, keyservice, path):
        api = keyservice.member()
        assert api.delete(path).status_code == 204
        error(api.delete(path), 404, 'policy_not_found')
        error(api.get(path), 404, 'policy_not_found')
        assert keyservice.policy()['name'] == 'web'


class TestRoles:
    """Who verifies and who approves."""

    def test_defaults(self, keyservice):
        policy = keyservice.policy()
        assert (policy['verifier'], policy['approval'], policy['limits']) == (
            'service', 'automatic', None)
        assert (policy['revoked_at'], policy['release_count']) == (None, 0)

    def test_owner_verifies(self, either):
        """Nothing is asked of what the service does not look at."""
        response = either.member().post('/v1/policies', json={'policy': {
            'name': 'mine', 'verifier': 'owner',
            'technologies': ['amd-sev', 'amd-sev-es']}})
        assert response.status_code == 201, response.text
        policy = response.json()['policy']
        assert (policy['verifier'], policy['firmwares']) == ('owner', [])
        assert policy['warnings'] == []

    def test_owner_verifies_and_names_what_it_launches(self, keyservice):
        assert create(keyservice, verifier='owner',
                      secrets=[]).json()['policy']['verifier'] == 'owner'

    @pytest.mark.parametrize('changes, code', [
        ({'verifier': 'owner'}, 'owner_has_secrets'),
        ({'verifier': 'owner', 'secrets': [], 'approval': 'owner'},
         'owner_approves_alone'),
        ({'verifier': 'host'}, 'request_invalid'),
        ({'approval': 'host'}, 'request_invalid'),
        ({'approval': None}, 'request_invalid'),
        ({'verifier': None}, 'request_invalid')])
    def test_refused(self, keyservice, changes, code):
        error(create(keyservice, **changes), 400, code)

    def test_change(self, keyservice):
        path = f'/v1/policies/{keyservice.policy()["id"]}'
        change = functools.partial(
            keyservice.member().patch, path, headers={'If-Match': '*'})
        assert change(json={'policy': {'approval': 'owner'}}).json()[
            'policy']['approval'] == 'owner'
        error(change(json={'policy': {'verifier': 'owner',
                                      'approval': 'automatic'}}),
              400, 'owner_has_secrets')
        assert change(json={'policy': {
            'verifier': 'owner', 'approval': 'automatic', 'secrets': [],
            'firmwares': []}}).status_code == 200
        error(change(json={'policy': {'verifier': 'service'}}),
              400, 'firmware_missing')


class TestLimits:

    ALL = {'servers': [str(uuid.UUID(int=1))],
           'host_aggregates': ['rack-1', 'r\u00e4ck 2'],
           'not_before': '2026-01-31T00:00:00Z',
           'not_after': '2026-02-01T00:00:00.500000Z', 'max_releases': 5}

    def test_kept_and_taken_away(self, either):
        policy = either.policy(limits=self.ALL)
        assert policy['limits'] == self.ALL
        path = f'/v1/policies/{policy["id"]}'
        api = either.member()
        tag = api.get(path).headers['ETag']
        changed = api.patch(path, headers={'If-Match': tag}, json={
            'policy': {'limits': {'max_releases': 7}}})
        assert changed.json()['policy']['limits'] == {'max_releases': 7}
        assert changed.headers['ETag'] != tag
        changed = api.patch(
            path, headers={'If-Match': changed.headers['ETag']},
            json={'policy': {'limits': None}})
        assert changed.json()['policy']['limits'] is None
        found = api.get(f'{path}/revisions').json()['revisions']
        assert [revision['limits'] for revision in found] == [
            None, {'max_releases': 7}, self.ALL]

    def test_normal_form(self, keyservice):
        assert keyservice.policy(limits={})['limits'] is None
        shown = keyservice.policy(name='other', is_default=False, limits={
            'not_before': '2026-01-31T00:00:00.5Z', 'max_releases': 2.0})
        assert shown['limits'] == {
            'not_before': '2026-01-31T00:00:00.500000Z', 'max_releases': 2}

    @pytest.mark.parametrize('limits, told', [
        ({'not_after': '2020-01-01T00:00:00Z'},
         'its limits ended at 2020-01-01T00:00:00Z'),
        ({'not_after': '2999-01-01T00:00:00Z'}, None),
        ({'not_before': '2999-01-01T00:00:00Z'}, None),
        ({'max_releases': 1}, None), ({'host_aggregates': ['a']}, None)])
    def test_warned_of(self, keyservice, limits, told):
        warnings = keyservice.policy(limits=limits, secrets=[])['warnings']
        assert len(warnings) == (1 if told is None else 2)
        assert told is None or told in warnings[1]

    def test_used_up(self, keyservice):
        policy = keyservice.policy(limits={'max_releases': 2})
        path = f'/v1/policies/{policy["id"]}'
        counted = []
        for _ in range(3):
            with keyservice.service.database.writer() as session:
                counted.append(policies.count_release(
                    session, policy['id'], 2))
        assert counted == [True, True, False]
        shown = keyservice.member().get(path).json()['policy']
        assert shown['release_count'] == 2
        assert any('all of its 2 releases are used up' in text
                   for text in shown['warnings'])
        # It counts over all revisions.
        changed = keyservice.member().patch(
            path, headers={'If-Match': '*'},
            json={'policy': {'limits': {'max_releases': 3}}})
        assert changed.json()['policy']['release_count'] == 2
        assert not any('used up' in text
                       for text in changed.json()['policy']['warnings'])

    def test_advisory_where_hosts_share_a_credential(self, cloud, tmp_path):
        service = harness.KeyService(
            cloud, tmp_path,
            trust='[launches]\nhost_credentials = shared\n')
        try:
            policy = service.policy(limits={'host_aggregates': ['a']})
            assert any('host_aggregates is advisory' in text
                       for text in policy['warnings'])
        finally:
            service.stop()

    @pytest.mark.parametrize('limits, code', [
        ({'servers': []}, 'request_invalid'),
        ({'servers': ['web-1']}, 'request_invalid'),
        ({'servers': [str(uuid.UUID(int=10)).upper()]}, 'request_invalid'),
        ({'servers': [str(uuid.UUID(int=n)) for n in range(257)]},
         'request_invalid'),
        ({'servers': [str(uuid.UUID(int=1))] * 2}, 'request_invalid'),
        ({'servers': None}, 'request_invalid'),
        ({'host_aggregates': []}, 'request_invalid'),
        ({'host_aggregates': ['']}, 'request_invalid'),
        ({'host_aggregates': ['a\nb']}, 'request_invalid'),
        ({'host_aggregates': ['x' * 256]}, 'request_invalid'),
        ({'not_before': '2026-01-31'}, 'request_invalid'),
        ({'not_before': '2026-01-31T00:00:00+01:00'}, 'request_invalid'),
        ({'not_after': '2026-02-30T00:00:00Z'}, 'time_invalid'),
        ({'not_after': '0000-01-01T00:00:00Z'}, 'time_invalid'),
        ({'not_before': '2026-01-31T00:00:00Z',
          'not_after': '2026-01-31T00:00:00Z'}, 'time_invalid'),
        ({'not_before': '2026-01-31T00:00:00Z',
          'not_after': '2026-01-30T00:00:00Z'}, 'time_invalid'),
        ({'max_releases': 0}, 'request_invalid'),
        ({'max_releases': 1 << 31}, 'request_invalid'),
        ({'max_releases': 1.5}, 'request_invalid'),
        ({'hosts': ['host-1']}, 'request_invalid'),
        ([], 'request_invalid')])
    def test_refused(self, keyservice, limits, code):
        error(create(keyservice, limits=limits), 400, code)


class TestRevocation:

    @pytest.fixture
    def path(self, keyservice):
        return f'/v1/policies/{keyservice.policy()["id"]}'

    def test_revoke_and_restore(self, either):
        path = f'/v1/policies/{either.policy()["id"]}'
        api = either.member()
        before = api.get(path)
        revoked = api.put(f'{path}/revocation')
        assert revoked.status_code == 200
        policy = revoked.json()['policy']
        assert policy['revoked_at'] is not None
        assert policy['revision'] == 1
        again = api.put(f'{path}/revocation')
        assert again.json() == revoked.json()
        assert api.get(path).json() == revoked.json()
        restored = api.delete(f'{path}/revocation')
        assert restored.status_code == 200
        assert restored.json() == before.json()
        assert api.delete(f'{path}/revocation').json() == before.json()
        assert recorded(either, policy['id']) == [
            'policy.created', 'policy.revoked', 'policy.restored']

    def test_nothing_is_counted_of_what_is_revoked(self, keyservice, path):
        policy_id = path.split('/')[-1]

        def count():
            with keyservice.service.database.writer() as session:
                return policies.count_release(session, policy_id)

        api = keyservice.member()
        api.put(f'{path}/revocation')
        assert not count()
        api.delete(f'{path}/revocation')
        assert count()
        api.delete(path)
        assert not count()

    def test_default_is_warned_of(self, keyservice, path):
        policy = keyservice.member().put(f'{path}/revocation').json()['policy']
        assert any('while the project\'s default policy is revoked' in text
                   for text in policy['warnings'])

    def test_etag(self, keyservice, path):
        """What was read before the revocation is not what is there."""
        api = keyservice.member()
        before = api.get(path).headers['ETag']
        revoked = api.put(f'{path}/revocation').headers['ETag']
        assert api.get(path, headers={
            'If-None-Match': before}).status_code == 200
        assert api.get(path, headers={
            'If-None-Match': revoked}).status_code == 304
        error(api.patch(path, headers={'If-Match': before},
                        json={'policy': {'name': 'new'}}),
              412, 'policy_changed')
        assert api.delete(f'{path}/revocation').headers['ETag'] == before
        assert api.put(f'{path}/revocation').headers['ETag'] != revoked

    def test_a_change_does_not_restore(self, keyservice, path):
        api = keyservice.member()
        since = api.put(f'{path}/revocation').json()['policy']['revoked_at']
        changed = api.patch(path, headers={'If-Match': '*'},
                            json={'policy': {'name': 'new'}})
        assert changed.json()['policy']['revoked_at'] == since

    def test_restoring_proves_it_anew(self, keyservice, path):
        """Who may not read a secret may withhold it, and not release it."""
        colleague = keyservice.api('admin', user='colleague')
        assert colleague.put(f'{path}/revocation').status_code == 200
        error(colleague.delete(f'{path}/revocation'), 403,
              'secret_forbidden')
        assert keyservice.member().delete(
            f'{path}/revocation').json()['policy']['revoked_at'] is None

    def test_open_launches_are_denied(self, either):
        either.policy()
        other = either.policy(name='other', is_default=False)
        hosts = [harness.Host(either) for _ in range(3)]
        spared = harness.Host(either, policy='other')
        for host in (*hosts, spared):
            host.launch()
        assert hosts[0].outcome('failed').status_code == 200
        policy_id = hosts[0].show()['policy_id']
        either.member().put(f'/v1/policies/{policy_id}/revocation')
        assert [host.show()['status'] for host in (*hosts, spared)] == [
            'failed', 'denied', 'denied', 'session_issued']
        assert spared.show()['policy_id'] == other['id']
        with either.service.database.reader() as session:
            rows = {row.id: row for row in session.scalars(
                sa.select(models.Launch))}
            denials = {
                row.subject: json.loads(row.details)
                for row in session.scalars(sa.select(models.AuditRecord))
                if row.event == 'launch.denied'}
        for host in hosts[1:]:
            assert rows[host.id].sealed_keys is None
            assert rows[host.id].open_for is None
            assert denials.pop(host.id)['reason_code'] == (
                'attestation.policy_revoked')
        assert denials == {}
        assert rows[spared.id].sealed_keys is not None

    def test_listed(self, keyservice, path):
        keyservice.policy(name='other', is_default=False)
        api = keyservice.member()
        api.put(f'{path}/revocation')

        def names(revoked):
            answer = api.get(f'/v1/policies?revoked={revoked}').json()
            return [policy['name'] for policy in answer['policies']]

        assert (names('true'), names('false')) == (['web'], ['other'])

    def test_who_may(self, keyservice, path):
        for api in (keyservice.api('reader'), keyservice.compute()):
            error(api.put(f'{path}/revocation'), 403, 'forbidden')
            error(api.delete(f'{path}/revocation'), 403, 'forbidden')
        other = keyservice.member('q')
        error(other.put(f'{path}/revocation'), 404, 'policy_not_found')
        error(other.delete(f'{path}/revocation'), 404, 'policy_not_found')
        error(other.put('/v1/policies/x/revocation'), 404, 'not_found')
        assert keyservice.member().get(
            path).json()['policy']['revoked_at'] is None


def recorded(keyservice, subject):
    """The events of a subject in the audit, oldest first."""
    with keyservice.service.database.reader() as session:
        return list(session.scalars(
            sa.select(models.AuditRecord.event)
            .where(models.AuditRecord.subject == subject)
            .order_by(models.AuditRecord.sequence)))


class TestQuota:

    @pytest.fixture
    def quota(self, keyservice):
        def override(**values):
            for name, value in values.items():
                keyservice.conf.set_override(name, value, group='quotas')
        yield override
        for name in ('policies', 'policy_revisions'):
            keyservice.conf.clear_override(name, group='quotas')

    def test_policies(self, keyservice, quota):
        quota(policies=2)
        for name in ('a', 'b'):
            keyservice.policy(name=name, is_default=False)
        detail = error(create(keyservice, name='c', is_default=False), 403,
                       'quota_exceeded')
        assert 'would be 3 policies' in detail and 'quota is 2' in detail
        # Another project has its own, and a change is no further policy.
        assert keyservice.policy(project='q')['name'] == 'web'
        api = keyservice.member()
        found = api.get('/v1/policies').json()['policies']
        path = f'/v1/policies/{found[0]["id"]}'
        assert [policy['name'] for policy in found] == ['a', 'b']
        assert api.patch(path, headers={'If-Match': '*'}, json={
            'policy': {'name': 'c'}}).status_code == 200
        api.delete(path)
        assert create(keyservice, name='a',
                      is_default=False).status_code == 201
        quota(policies=-1)
        assert create(keyservice, name='d',
                      is_default=False).status_code == 201
        quota(policies=0)
        error(create(keyservice, name='e', is_default=False), 403,
              'quota_exceeded')

    def test_revisions(self, keyservice, quota):
        quota(policy_revisions=2)
        path = f'/v1/policies/{keyservice.policy()["id"]}'
        change = functools.partial(
            keyservice.member().patch, path, headers={'If-Match': '*'})
        assert change(json={'policy': {'name': 'b'}}).status_code == 200
        detail = error(change(json={'policy': {'name': 'c'}}), 403,
                       'quota_exceeded')
        assert 'Make a new policy' in detail
        # It can be withdrawn all the same.
        assert keyservice.member().put(
            f'{path}/revocation').status_code == 200


def test_writes_are_recorded(either):
    api = either.member()
    policy = either.policy()
    path = f'/v1/policies/{policy["id"]}'
    api.patch(path, headers={'If-Match': '*'},
              json={'policy': {'name': 'new'}})
    error(api.patch(path, headers={'If-Match': '"other"'},
                    json={'policy': {'name': 'never'}}),
          412, 'policy_changed')
    with either.service.database.reader() as session:
        bodies = list(session.scalars(
            sa.select(models.PolicyRevision.body)
            .order_by(models.PolicyRevision.revision)))
    api.delete(path)
    assert recorded(either, policy['id']) == [
        'policy.created', 'policy.updated', 'policy.deleted']
    with either.service.database.reader() as session:
        found = [(record.actor, json.loads(record.details))
                 for record in session.scalars(
                     sa.select(models.AuditRecord)
                     .where(models.AuditRecord.subject == policy['id'])
                     .order_by(models.AuditRecord.sequence))]
    texts = [json.dumps(json.loads(body), sort_keys=True,
                        separators=(',', ':')) for body in bodies]
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    assert found == [('user-of-p', {
        'name': name, 'revision': revision,
        'content_sha256': hashes[revision - 1]})
        for name, revision in (('web', 1), ('new', 2), ('new', 2))]


def test_record_of_a_revision_of_an_older_release(keyservice):
    """What a later release adds does not change what was recorded."""
    policy = keyservice.policy()
    with keyservice.service.database.writer() as session:
        revision = session.scalars(sa.select(models.PolicyRevision)).one()
        body = json.loads(revision.body)
        del body['limits']
        revision.body = json.dumps(body)
    with keyservice.service.database.reader() as session:
        found = policies.get(session, 'p', policy['id'])
    assert found.content_sha256 == hashlib.sha256(json.dumps(
        body, sort_keys=True, separators=(',', ':')).encode()).hexdigest()


def test_other_project(keyservice):
    path = f'/v1/policies/{keyservice.policy()["id"]}'
    other = keyservice.member('q')
    assert other.get('/v1/policies').json()['policies'] == []
    error(other.get(path), 404, 'policy_not_found')
    error(other.patch(path, headers={'If-Match': '*'},
                      json={'policy': {'name': 'mine'}}),
          404, 'policy_not_found')
    error(other.delete(path), 404, 'policy_not_found')
    assert keyservice.member().get(path).status_code == 200


def test_roles(keyservice):
    path = f'/v1/policies/{keyservice.policy()["id"]}'
    body = {'policy': keyservice.policy_body(name='x', is_default=False)}
    reader = keyservice.api('reader')
    assert reader.get(path).status_code == 200
    for api in (reader, keyservice.compute()):
        error(api.post('/v1/policies', json=body), 403, 'forbidden')
        error(api.patch(path, headers={'If-Match': '*'},
                        json={'policy': {'name': 'n'}}), 403, 'forbidden')
        error(api.delete(path), 403, 'forbidden')
    error(keyservice.compute().get(path), 403, 'forbidden')
    error(keyservice.compute().get('/v1/policies'), 403, 'forbidden')


def test_pages(either):
    names = ['c', 'a', 'b']
    for name in names:
        either.policy(name=name, is_default=False, secrets=[])
    api, found, path = either.member(), [], '/v1/policies?limit=2'
    while path:
        answer = api.get(path).json()
        found += [policy['name'] for policy in answer['policies']]
        links = answer['policies_links']
        path = links[0]['href'] if links else None
    assert found == names
    answer = api.get('/v1/policies?name=a').json()
    assert [policy['name'] for policy in answer['policies']] == ['a']
    error(api.get('/v1/policies', params={'marker': str(uuid.uuid4())}),
          400, 'marker_not_found')
