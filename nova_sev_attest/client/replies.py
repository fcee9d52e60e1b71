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

"""What an answer of the key service means, whichever way it came."""

import dataclasses
import email.utils
import json
import re
import time

from nova_sev_attest.client import attempts
from nova_sev_attest.client import exceptions

MAX_DETAIL = 500
_REQUEST_ID = re.compile(r'[A-Za-z0-9_.-]{1,64}')
_CODE = re.compile(r'(?=.{1,100}\Z)[a-z0-9_]+(\.[a-z0-9_]+)*')

_REFUSALS = {404: exceptions.NotFound, 409: exceptions.Conflict,
             412: exceptions.RevisionChanged}


@dataclasses.dataclass(frozen=True)
class Answer:
    """A successful answer.

    :ivar body: the decoded JSON, None for an empty body
    """

    status: int
    headers: dict
    body: object = dataclasses.field(repr=False)
    request_id: str | None


def interpret(status, headers, read_body, log_failure):
    """An answer as Answer, or as the exception that it stands for.

    :param status: the HTTP status
    :param headers: mapping of header names to text
    :param read_body: returns the body's bytes, or raises InvalidResponse or
        Retriable
    :param log_failure: called with a line about a 5xx
    :raises RequestRefused: 4xx
    :raises Retriable: 5xx
    :raises InvalidResponse: an answer that the REST API does not allow
    """
    request_id = request_id_of(headers)
    if status >= 500:
        code, detail = _error(read_body)
        reason = f'HTTP {status} {code} {detail}'.strip().rstrip('.')
        log_failure(reason)
        raise attempts.Retriable(reason, request_id=request_id,
                                 retry_after=_retry_after(headers))
    if 400 <= status:
        code, detail = _error(read_body)
        refusal = _REFUSALS.get(status, exceptions.RequestRefused)
        raise refusal(status, code, detail, request_id=request_id)
    if not 200 <= status < 300:
        raise exceptions.InvalidResponse(
            f'The key service answered HTTP {status}, which its API never '
            f'does; check the endpoint.', request_id=request_id)
    body = read_body()
    return Answer(status, headers, _json(body, request_id) if body else None,
                  request_id)


def request_id_of(headers):
    """The request id that an answer names, None where it is none."""
    value = headers.get('X-Openstack-Request-Id', '')
    return value if _REQUEST_ID.fullmatch(value) else None


def clean(text):
    """Text of another's as one printable line of bounded length."""
    return ' '.join(''.join(
        char if char.isprintable() else ' '
        for char in text[:MAX_DETAIL]).split())


def _error(read_body):
    """The code and detail of an error document, '' where absent.

    The status alone decides what happens, so a document that cannot be read
    takes nothing from the error but its words.
    """
    try:
        document = _json(read_body(), None)
        error = document['errors'][0]
        code, detail = error.get('code'), error.get('detail')
    except (exceptions.InvalidResponse, attempts.Retriable, KeyError,
            IndexError, TypeError, AttributeError):
        return '', ''
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        code = ''
    return code, clean(detail) if isinstance(detail, str) else ''


def _json(body, request_id):
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise exceptions.InvalidResponse(
            'The key service\'s answer is not JSON; check that the endpoint '
            'is the key service\'s.', request_id=request_id) from None


def _retry_after(headers):
    """Seconds of a Retry-After header (RFC 9110 10.2.3), else 0.0."""
    value = headers.get('Retry-After', '').strip()
    if re.fullmatch(r'[0-9]{1,9}', value):
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
