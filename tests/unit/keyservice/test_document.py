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

import openapi_spec_validator
import pytest

from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.schemas import document


def test_document_is_openapi():
    openapi_spec_validator.validate(document.load())


def test_operation_ids_are_there_and_differ():
    found = [operation['operationId']
             for item in document.load()['paths'].values()
             for method, operation in item.items() if method != 'parameters']
    assert len(found) == len(set(found)) > 0


class TestBody:
    operation = document.Operation(
        '/v1/launches/{launch_id}/outcome', 'put')

    @pytest.mark.parametrize('body', [
        {'outcome': {'status': 'running'}},
        {'outcome': {'status': 'failed', 'reason': None}}])
    def test_accepted(self, body):
        self.operation.check_body(body)

    @pytest.mark.parametrize('body, message', [
        (None, 'None is not of type'),
        ({}, "'outcome' is a required property"),
        ({'outcome': {'status': 'done'}}, "outcome.status: 'done'"),
        ({'outcome': {'status': 'failed', 'reason': 1}}, 'outcome.reason: 1'),
        ({'outcome': {'status': 'failed'}, 'x': 1}, "'x' was unexpected")])
    def test_refused(self, body, message):
        with pytest.raises(errors.BadRequest, match=message):
            self.operation.check_body(body)

    def test_long_values_are_cut(self):
        with pytest.raises(errors.BadRequest) as caught:
            self.operation.check_body({'outcome': {'status': 'x' * 100000}})
        assert len(caught.value.detail) < 600


@pytest.mark.parametrize('text', ['0' * 64 + '\n', ' ' + '0' * 64, '\u0660',
                                  '0' * 63 + '\u0660'])
def test_patterns_match_the_whole_text_in_ascii(text):
    operation = document.Operation('/v1/firmwares/{sha256}', 'get')
    operation.check_path({'sha256': '0' * 64})
    with pytest.raises(errors.NotFound):
        operation.check_path({'sha256': text})


def test_secret_header_is_not_quoted():
    operation = document.Operation('/v1/launches/{launch_id}', 'put')
    name = 'X-Attestation-Launch-Token'
    operation.check_header(name, 'a' * 64)
    for value in (None, 'sesame' * 10):
        with pytest.raises(errors.BadRequest) as caught:
            operation.check_header(name, value)
        assert 'sesame' not in caught.value.detail


class TestQuery:
    operation = document.Operation('/v1/launches', 'get')

    def test_values(self):
        assert self.operation.query([]) == {}
        assert self.operation.query([
            ('limit', '10'), ('status', 'denied')]) == {
            'limit': 10, 'status': 'denied'}

    @pytest.mark.parametrize('pairs', [
        [('limit', '0')], [('limit', '1' * 12)], [('limit', '\u0661')],
        [('nothing', 'x')], [('limit', '1'), ('limit', '1')],
        [('status', 'DENIED')], [('server_id', 'x')]])
    def test_refused(self, pairs):
        with pytest.raises(errors.BadRequest):
            self.operation.query(pairs)


class TestParse:

    def test_value(self):
        assert document.parse_json('{"a": ["\u00fc", 1]}'.encode()) == {
            'a': ['\u00fc', 1]}

    @pytest.mark.parametrize('data', [
        b'', b'{', b'{} {}', b'\xff', b'{"a": 1, "a": 1}',
        b'{"b": {"a": 1, "a": 2}}', b'[NaN]', b'[-Infinity]',
        b'["\\udc00"]', b'[' * 200000, b'[' + b'1' * 10000 + b']'])
    def test_refused(self, data):
        with pytest.raises(errors.BadRequest):
            document.parse_json(data)
