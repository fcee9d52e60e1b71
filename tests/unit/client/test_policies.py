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

import pytest

from nova_sev_attest.client import exceptions
from tests.unit.client import fakes

URL = fakes.URL


@pytest.fixture
def resource():
    return fakes.make_client().policies


def test_create(requests_mock, resource):
    requests_mock.post(f'{URL}/v1/policies', status_code=201,
                       headers={'ETag': '"1"'},
                       json={'policy': {'id': 'p'}})
    policy = resource.create({'name': 'web'})
    assert (policy.body, policy.etag) == ({'id': 'p'}, '"1"')
    assert requests_mock.last_request.json() == {'policy': {'name': 'web'}}


def test_update_names_the_revision(requests_mock, resource):
    requests_mock.patch(f'{URL}/v1/policies/p', headers={'ETag': '"2"'},
                        json={'policy': {'id': 'p', 'revision': 2}})
    policy = resource.update('p', {'name': 'db'}, '"1"')
    assert policy.etag == '"2"'
    assert requests_mock.last_request.headers['If-Match'] == '"1"'


def test_update_of_an_older_revision(requests_mock, resource):
    requests_mock.patch(f'{URL}/v1/policies/p', status_code=412, json={})
    with pytest.raises(exceptions.RequestRefused) as caught:
        resource.update('p', {}, '"1"')
    assert caught.value.status == 412


@pytest.mark.parametrize('answer', [
    {'json': {'policy': {}}}, {'json': {}, 'headers': {'ETag': '"1"'}},
    {'json': [], 'headers': {'ETag': '"1"'}}])
def test_answered_otherwise(requests_mock, resource, answer):
    requests_mock.get(f'{URL}/v1/policies/p', **answer)
    with pytest.raises(exceptions.InvalidResponse):
        resource.get('p')


def test_list_and_delete(requests_mock, resource):
    requests_mock.get(f'{URL}/v1/policies?name=web', json={'policies': [{}]})
    requests_mock.delete(f'{URL}/v1/policies/p', status_code=204)
    assert resource.list(name='web') == ([{}], None)
    resource.delete('p')
    assert requests_mock.last_request.method == 'DELETE'


def test_each_goes_on(requests_mock, resource):
    requests_mock.get(f'{URL}/v1/policies', json={
        'policies': [{'id': 'a'}], 'policies_links': [
            {'rel': 'next', 'href': f'{URL}/v1/policies?marker=a'}]})
    requests_mock.get(f'{URL}/v1/policies?marker=a',
                      json={'policies': [{'id': 'b'}]})
    assert [each['id'] for each in resource.each(revoked=False)] == ['a', 'b']
    assert requests_mock.request_history[0].qs == {'revoked': ['false']}


def revision(number, *kernels):
    return {'headers': {'ETag': f'"{number}"'},
            'json': {'policy': {'id': 'p', 'revision': number,
                                'kernels': list(kernels)}}}


def append(policy):
    return {'kernels': [*policy['kernels'], 'mine']}


def test_change_starts_again_from_a_newer_revision(requests_mock, resource):
    requests_mock.get(f'{URL}/v1/policies/p',
                      [revision(1), revision(2, 'other')])
    requests_mock.patch(f'{URL}/v1/policies/p', [
        {'status_code': 412, 'json': {}}, revision(3, 'other', 'mine')])
    assert resource.change('p', append).body['revision'] == 3
    first, second = (each for each in requests_mock.request_history
                     if each.method == 'PATCH')
    assert first.headers['If-Match'] == '"1"'
    assert second.headers['If-Match'] == '"2"'
    assert second.json() == {'policy': {'kernels': ['other', 'mine']}}


def test_change_gives_up(requests_mock, resource):
    requests_mock.get(f'{URL}/v1/policies/p', **revision(1))
    requests_mock.patch(f'{URL}/v1/policies/p', status_code=412, json={})
    with pytest.raises(exceptions.RevisionChanged):
        resource.change('p', append)
    assert requests_mock.call_count == 10


def test_change_of_nothing(requests_mock, resource):
    requests_mock.get(f'{URL}/v1/policies/p', **revision(1))
    assert resource.change('p', lambda policy: {}).etag == '"1"'
    assert requests_mock.call_count == 1


def test_revocation(requests_mock, resource):
    where = f'{URL}/v1/policies/p/revocation'
    requests_mock.put(where, **revision(1))
    requests_mock.delete(where, **revision(1))
    assert resource.revoke('p').body['id'] == 'p'
    assert resource.restore('p').body['id'] == 'p'
    assert [each.method for each in requests_mock.request_history] == [
        'PUT', 'DELETE']
