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

"""What schemathesis loads beside its own checks.

Each request that it makes is made once more with the token of each other
role, from the least of them to the greatest, and every answer is held to the
document and to what its role may know. The file that NOVA_SEV_ATTEST_CONTRACT
names has the roles and what may not be told to them.
"""

import json
import os
import pathlib

import requests
import schemathesis
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

_TOKEN = 'X-Auth-Token'
_PLAN = json.loads(
    pathlib.Path(os.environ['NOVA_SEV_ATTEST_CONTRACT']).read_text())
_COUNTS = pathlib.Path(_PLAN['counts']).open('a', buffering=1)
_SESSION = requests.Session()
# Those that look at one answer.
_CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.negative_data_rejection,
    openapi_checks.positive_data_acceptance,
]


@schemathesis.hook
def after_call(ctx, case, response):
    """Count what the driving role asked."""
    _count(_PLAN['role'], response.status_code)


@schemathesis.check
def as_each_role(ctx, response, case):
    """No role is told what it may not know, whoever asks."""
    _look(_PLAN['role'], response.content, response.headers,
          response.request)
    if response.request.headers.get(_TOKEN) != _PLAN['token']:
        # What is wrong with it is its token.
        return
    for role, token in _PLAN['others'].items():
        answer = _again(response.request, token)
        _count(role, answer.status_code)
        try:
            case.validate_response(answer, checks=_CHECKS)
            _look(role, answer.content, answer.raw.headers, answer.request)
        except Exception as exc:
            raise AssertionError(
                f'as {role}, answered {answer.status_code} '
                f'{answer.text[:400]!r}: {exc}') from exc


def _again(request, token):
    request = request.copy()
    request.headers.pop(_TOKEN, None)
    if token is not None:
        request.headers[_TOKEN] = token
    return _SESSION.send(request, timeout=60, allow_redirects=False)


def _count(role, status):
    _COUNTS.write(f'{role} {status}\n')


def _look(role, content, headers, request):
    answer = content.decode('utf-8', 'replace') + repr(dict(headers))
    for text in _PLAN['hidden']:
        assert text not in answer, f'{role} was told a secret'
    found = [text for text in _PLAN['markers'][role] if text in answer]
    if found:
        asked = _said(request)
        for text in found:
            assert text in asked, f'{role} was told {text!r}'


def _said(request):
    """All that a request said, as text."""
    body = request.body or b''
    if not isinstance(body, bytes):
        body = str(body).encode()
    return ' '.join((request.url, *map(str, request.headers.values()),
                     body.decode('utf-8', 'replace')))
