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

import datetime
import email.utils
import http.server
import io
import json
import logging
import threading
import time

from keystoneauth1 import adapter
from keystoneauth1 import exceptions as ksa_exceptions
from keystoneauth1 import noauth
from keystoneauth1 import session
import pytest
import requests

from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions
from nova_sev_attest.client import replies
from nova_sev_attest.client import rest
from tests.unit.client import fakes

URL = fakes.URL
PATH = '/v1/launches/1'


@pytest.fixture
def naps():
    return []


def make_client(url=URL, naps=None, **options):
    naps = [] if naps is None else naps
    return rest.RestClient(fakes.make_adapter(url), sleep=naps.append,
                           **options)


def refusal(status, code, detail):
    return {'status_code': status, 'json': {'errors': [{
        'code': code, 'detail': detail, 'status': status}]}}


def test_answer(requests_mock):
    requests_mock.put(URL + PATH, json={'a': 1}, status_code=201, headers={
        'X-Openstack-Request-Id': 'req-1'})
    answer = make_client().request('PUT', PATH, json={'b': 2},
                                   headers={'X-H': 'h'})
    assert (answer.status, answer.body, answer.request_id) == (
        201, {'a': 1}, 'req-1')
    sent = requests_mock.last_request
    assert sent.json() == {'b': 2} and sent.headers['X-H'] == 'h'


def test_empty_answer(requests_mock):
    requests_mock.delete(URL + PATH, status_code=204)
    assert make_client().request('DELETE', PATH).body is None


@pytest.mark.parametrize('status', [400, 401, 403, 404, 409, 412, 413, 428,
                                    429])
def test_4xx_is_final(requests_mock, naps, status):
    requests_mock.put(URL + PATH, headers={
        'X-Openstack-Request-Id': 'req-1', 'Retry-After': '1'},
        **refusal(status, 'attestation.launch_conflict', 'No\x00 so\nthere'))
    with pytest.raises(exceptions.RequestRefused) as caught:
        make_client(naps=naps).request('PUT', PATH)
    error = caught.value
    assert (error.status, error.code, error.detail, error.request_id) == (
        status, 'attestation.launch_conflict', 'No so there', 'req-1')
    assert requests_mock.call_count == 1 and naps == []


@pytest.mark.parametrize('body', [
    b'', b'no', b'{}', b'[]', b'{"errors": []}', b'{"errors": [7]}',
    b'{"errors": [{"code": 7, "detail": {}}]}', b'\xff', b'[' * 99999])
def test_4xx_with_any_body(requests_mock, body):
    requests_mock.get(URL + PATH, status_code=403, content=body)
    with pytest.raises(exceptions.RequestRefused) as caught:
        make_client().request('GET', PATH)
    assert (caught.value.code, caught.value.detail) == ('', '')


def test_words_of_a_refusal_are_bounded(requests_mock):
    requests_mock.get(URL + PATH, **refusal(
        400, 'a' * 5000, 'x' * 100000))
    with pytest.raises(exceptions.RequestRefused) as caught:
        make_client().request('GET', PATH)
    assert caught.value.code == ''
    assert len(caught.value.detail) == replies.MAX_DETAIL


def test_5xx_is_repeated_with_back_off(requests_mock, naps):
    requests_mock.put(URL + PATH, [
        {'status_code': 503}, {'status_code': 500}, {'status_code': 502},
        {'json': {}}])
    make_client(naps=naps).request('PUT', PATH, json={'b': 2})
    assert requests_mock.call_count == 4
    assert len({request.body for request
                in requests_mock.request_history}) == 1
    for nap, full in zip(naps, (0.5, 1, 2), strict=True):
        assert full / 2 <= nap <= full


def test_5xx_is_repeated_so_often_only(requests_mock, naps):
    requests_mock.put(URL + PATH, headers={
        'X-Openstack-Request-Id': 'req-9'},
        **refusal(503, 'attestation.secret_store_unavailable', 'Barbican.'))
    with pytest.raises(exceptions.ServiceUnavailable,
                       match='Barbican') as caught:
        make_client(naps=naps, max_retries=2).request('PUT', PATH)
    assert requests_mock.call_count == 3
    assert caught.value.request_id == 'req-9'


@pytest.mark.parametrize('failure', [
    requests.exceptions.ConnectionError, requests.exceptions.ConnectTimeout,
    requests.exceptions.ReadTimeout])
def test_connection_errors_are_repeated(requests_mock, naps, failure):
    requests_mock.put(URL + PATH, [{'exc': failure}, {'json': {}}])
    make_client(naps=naps).request('PUT', PATH)
    assert len(naps) == 1


@pytest.mark.parametrize('method', ['POST', 'PATCH'])
def test_what_is_not_idempotent_is_not_repeated(requests_mock, method):
    requests_mock.register_uri(method, URL + PATH, status_code=503)
    with pytest.raises(exceptions.ServiceUnavailable):
        make_client().request(method, PATH)
    assert requests_mock.call_count == 1


def test_users_are_told_no_addresses(requests_mock, caplog):
    requests_mock.put(URL + PATH, exc=requests.exceptions.ConnectionError)
    with pytest.raises(exceptions.ServiceUnavailable) as caught:
        make_client().request('PUT', PATH)
    assert 'attestation.test' not in str(caught.value)
    assert 'attestation.test' in caplog.text


def test_retry_after_in_seconds(requests_mock, naps):
    requests_mock.put(URL + PATH, [
        {'status_code': 503, 'headers': {'Retry-After': '7'}},
        {'json': {}}])
    make_client(naps=naps).request('PUT', PATH)
    assert naps == [7]


def test_retry_after_as_a_date(requests_mock, naps):
    moment = (datetime.datetime.now(datetime.timezone.utc) +
              datetime.timedelta(seconds=20))
    requests_mock.put(URL + PATH, [
        {'status_code': 503, 'headers': {
            'Retry-After': email.utils.format_datetime(moment)}},
        {'json': {}}])
    make_client(naps=naps).request('PUT', PATH)
    assert 15 < naps[0] <= 20


@pytest.mark.parametrize('value', ['soon', '-3', '', '9' * 30])
def test_retry_after_that_says_nothing(requests_mock, naps, value):
    requests_mock.put(URL + PATH, [
        {'status_code': 503, 'headers': {'Retry-After': value}},
        {'json': {}}])
    make_client(naps=naps).request('PUT', PATH)
    assert naps[0] <= 0.5


def test_retry_after_past_the_deadline_is_not_waited_for(requests_mock,
                                                         naps):
    requests_mock.put(URL + PATH, status_code=503,
                      headers={'Retry-After': '100'})
    with pytest.raises(exceptions.ServiceUnavailable):
        make_client(naps=naps).request(
            'PUT', PATH, deadline=deadlines.Deadline(50))
    assert naps == [] and requests_mock.call_count == 1


def test_deadline_that_is_over(requests_mock):
    with pytest.raises(exceptions.ServiceUnavailable, match='5 s'):
        make_client().request('PUT', PATH, deadline=deadlines.Deadline(
            5, clock=iter([0, 9, 9, 9]).__next__))
    assert requests_mock.call_count == 0


def test_deadline_that_passes_just_before_a_request(requests_mock):
    # Not over when it is looked at, over when it becomes the time-out.
    now = iter([0.0, 0.5])
    deadline = deadlines.Deadline(1, clock=lambda: next(now, 2.0))
    with pytest.raises(exceptions.ServiceUnavailable, match='no time was'):
        make_client().request('PUT', PATH, deadline=deadline)
    assert not requests_mock.called


def test_timeout_is_what_the_deadline_leaves(requests_mock):
    requests_mock.put(URL + PATH, json={})
    make_client(timeout=10).request('PUT', PATH,
                                    deadline=deadlines.Deadline(3))
    assert 2 < requests_mock.last_request.timeout <= 3


@pytest.mark.parametrize('body', [b'<html>', b'\xff\xfe', b'[' * 99999])
def test_rubbish_is_not_repeated(requests_mock, body):
    requests_mock.put(URL + PATH, content=body)
    with pytest.raises(exceptions.InvalidResponse, match='not JSON'):
        make_client().request('PUT', PATH)
    assert requests_mock.call_count == 1


def test_answer_that_is_too_long(requests_mock):
    requests_mock.put(URL + PATH, content=b'"' + b'a' * 5000 + b'"')
    with pytest.raises(exceptions.InvalidResponse, match='1000 bytes'):
        make_client().request('PUT', PATH, max_answer=1000)


def test_compressed_answer(requests_mock):
    requests_mock.put(URL + PATH, content=b'{}',
                      headers={'Content-Encoding': 'gzip'})
    with pytest.raises(exceptions.InvalidResponse, match='compressed'):
        make_client().request('PUT', PATH)


def test_redirect_takes_no_token_elsewhere(requests_mock):
    elsewhere = requests_mock.put('http://elsewhere.test/', json={})
    requests_mock.put(URL + PATH, status_code=307,
                      headers={'Location': 'http://elsewhere.test/'})
    with pytest.raises(exceptions.InvalidResponse, match='307'):
        make_client().request('PUT', PATH, headers={'X-Token': 'secret'})
    assert not elsewhere.called


def test_no_endpoint():
    class NoEndpoint(noauth.NoAuth):
        def get_endpoint(self, *args, **kwargs):
            return None

    client = rest.RestClient(adapter.Adapter(
        session.Session(auth=NoEndpoint()), service_type='attestation'))
    with pytest.raises(exceptions.ServiceUnavailable, match='catalog'):
        client.request('GET', PATH)


def test_keystone_refuses(caplog):
    class Refused(noauth.NoAuth):
        def get_headers(self, *args, **kwargs):
            raise ksa_exceptions.Unauthorized('Wrong password?')

    client = rest.RestClient(adapter.Adapter(
        session.Session(auth=Refused(endpoint=URL))))
    with pytest.raises(exceptions.ServiceUnavailable,
                       match='Unauthorized'):
        client.request('GET', PATH)
    assert 'Wrong password' in caplog.text


def test_nothing_secret_is_logged_or_raised(requests_mock, caplog):
    caplog.set_level(logging.DEBUG)
    requests_mock.put(URL + PATH, [
        {'exc': requests.exceptions.ConnectionError},
        {'status_code': 503, 'text': 'the-secret'},
        {'content': b'the-secret'}])
    with pytest.raises(exceptions.InvalidResponse) as caught:
        make_client().request('PUT', PATH, json={'x': 'the-secret'},
                              headers={'X-Token': 'the-secret'})
    assert 'trying again' in caplog.text
    assert 'the-secret' not in caplog.text
    assert 'the-secret' not in str(caught.value)
    assert caught.value.__suppress_context__


def test_page_and_its_marker(requests_mock):
    requests_mock.get(URL + '/v1/policies', json={
        'policies': [{'id': 'a'}], 'policies_links': [
            {'rel': 'next', 'href': URL + '/v1/policies?limit=1&marker=a'}]})
    assert make_client().page('/v1/policies', 'policies',
                              {'limit': 1, 'name': None}) == (
        [{'id': 'a'}], 'a')
    assert requests_mock.last_request.qs == {'limit': ['1']}


@pytest.mark.parametrize('links', [{}, {'policies_links': []}])
def test_last_page(requests_mock, links):
    requests_mock.get(URL + '/v1/policies', json={'policies': []} | links)
    assert make_client().page('/v1/policies', 'policies', {}) == ([], None)


@pytest.mark.parametrize('document', [
    [], {}, {'policies': 7}, {'policies': [], 'policies_links': 7},
    {'policies': [], 'policies_links': [{'rel': 'next'}]},
    {'policies': [], 'policies_links': [{'rel': 'next', 'href': '/x'}]}])
def test_page_of_another_shape(requests_mock, document):
    requests_mock.get(URL + '/v1/policies', json=document)
    with pytest.raises(exceptions.InvalidResponse):
        make_client().page('/v1/policies', 'policies', {})


class Dribbler(http.server.BaseHTTPRequestHandler):
    """Answers with a byte every tenth of a second."""

    def do_GET(self):
        body = json.dumps(['x' * 1000]).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        try:
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(0.1)
        except OSError:
            self.close_connection = True

    def log_message(self, *args):
        """Quiet."""


def test_dribbled_answer_ends_at_the_deadline():
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Dribbler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        started = time.monotonic()
        with pytest.raises(exceptions.ServiceUnavailable,
                           match='not complete'):
            make_client(f'http://127.0.0.1:{server.server_port}',
                        timeout=0.5).request(
                'GET', PATH, deadline=deadlines.Deadline(1.0))
        assert time.monotonic() - started < 2.0
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize('status, kind', [
    (404, exceptions.NotFound), (409, exceptions.Conflict),
    (412, exceptions.RevisionChanged), (400, exceptions.RequestRefused)])
def test_refusals_have_types(requests_mock, status, kind):
    requests_mock.get(URL + PATH, **refusal(status, 'attestation.x', 'No.'))
    with pytest.raises(exceptions.RequestRefused) as caught:
        make_client().request('GET', PATH)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.detail) == (status, 'No.')


def page_of(*numbers, following=None):
    return {'things': [{'id': number} for number in numbers],
            'things_links': [] if following is None else [{
                'rel': 'next', 'href': f'{URL}/v1/things?marker={following}'}]}


def test_items_of_all_pages(requests_mock):
    requests_mock.get(f'{URL}/v1/things', json=page_of(1, 2, following=2))
    requests_mock.get(f'{URL}/v1/things?marker=2',
                      json=page_of(3, following=3))
    requests_mock.get(f'{URL}/v1/things?marker=3', json=page_of())
    found = make_client().items('/v1/things', 'things',
                                {'name': 'a', 'host': None})
    assert not requests_mock.called  # asked as they are used
    assert [item['id'] for item in found] == [1, 2, 3]
    assert [asked.qs.get('marker') for asked in
            requests_mock.request_history] == [None, ['2'], ['3']]
    assert {asked.qs['name'][0]
            for asked in requests_mock.request_history} == {'a'}


def test_items_of_a_service_that_goes_in_circles(requests_mock):
    requests_mock.get(f'{URL}/v1/things', json=page_of(1, following=1))
    with pytest.raises(exceptions.InvalidResponse, match='twice'):
        list(make_client().items('/v1/things', 'things', {}))
    assert requests_mock.call_count == 2


def test_a_body_is_made_anew_for_each_repetition(requests_mock):
    bodies = []

    def answer(request, context):
        bodies.append(request.body.read())
        context.status_code = 503 if len(bodies) == 1 else 200
        return b'{}'

    requests_mock.put(URL + PATH, content=answer)
    make_client().request('PUT', PATH, data=lambda: io.BytesIO(b'image'))
    assert bodies == [b'image', b'image']
