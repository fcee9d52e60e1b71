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

"""HTTP requests to the key service, bounded in time, size and number."""

import dataclasses
import email.utils
import json as jsonlib
import random
import re
import time
import urllib.parse

from keystoneauth1 import exceptions as ksa_exceptions
from oslo_log import log as logging
import urllib3.exceptions

from nova_sev_attest.client import answers
from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.client import exceptions

LOG = logging.getLogger(__name__)

MAX_ANSWER = 4 * 1024 * 1024
MAX_DETAIL = 500
MAX_DELAY = 8.0
_CHUNK = 64 * 1024
_REQUEST_ID = re.compile(r'[A-Za-z0-9_.-]{1,64}')
_CODE = re.compile(r'(?=.{1,100}\Z)[a-z0-9_]+(\.[a-z0-9_]+)*')
_IDEMPOTENT = frozenset(['GET', 'PUT', 'DELETE'])


@dataclasses.dataclass(frozen=True)
class Answer:
    """A successful answer.

    :ivar body: the decoded JSON, None for an empty body
    """

    status: int
    headers: dict
    body: object
    request_id: str | None


class _Retriable(Exception):
    """One attempt failed in a way that another may not."""

    def __init__(self, reason, request_id=None, retry_after=0.0):
        self.reason = reason
        self.request_id = request_id
        self.retry_after = retry_after
        super().__init__(reason)


class RestClient:
    """JSON over a keystoneauth1 adapter.

    keystoneauth's own logging is off for every request: at debug it would
    write the launch token and the released packet into the log. Redirects
    are not followed: they would carry the launch token to another host.

    :param adapter: keystoneauth1.adapter.Adapter for the service type
        attestation; its endpoint is the unversioned one
    :param timeout: seconds that connecting, or any one silence of the
        service, may last
    :param total_timeout: seconds that one call may take with its
        repetitions, where the caller gives no deadline
    :param max_retries: repetitions after a connection error or a 5xx
    :param retry_delay: seconds before the first repetition, then doubled
    :param sleep: for tests
    """

    def __init__(self, adapter, timeout=10.0, total_timeout=60.0,
                 max_retries=4, retry_delay=0.5, sleep=time.sleep):
        self._adapter = adapter
        self._timeout = timeout
        self._total_timeout = total_timeout
        self._max_retries = max_retries
        self._retry_delay = retry_delay
        self._sleep = sleep

    def request(self, method, path, json=None, data=None, headers=None,
                params=None, deadline=None, max_answer=MAX_ANSWER):
        """Make one request, repeated where that is safe and may help.

        Only methods that are idempotent are repeated, only after connection
        errors and answers of the 5xx class, and only within the deadline. A
        peer that dribbles its answer is cut off at the deadline or at most
        one read timeout later.

        :param path: below the endpoint, '/v1/...'
        :param json: body to be sent as JSON
        :param data: body to be sent as it is
        :param headers: further headers; never logged
        :param deadline: Deadline of the caller's whole operation
        :param max_answer: largest answer taken, in bytes
        :returns: Answer
        :raises RequestRefused: the service answered 4xx
        :raises ServiceUnavailable: no usable answer in time
        :raises InvalidResponse: an answer that is none of the API's
        """
        if deadline is None:
            deadline = deadlines.Deadline(self._total_timeout)
        retries = self._max_retries if method in _IDEMPOTENT else 0
        failure = _Retriable('no time was left to ask it')
        attempt = 0
        while not deadline.has_passed():
            try:
                return self._attempt(method, path, json, data, headers,
                                     params, deadline, max_answer)
            except _Retriable as error:
                failure = error
            delay = self._delay(attempt, failure.retry_after)
            attempt += 1
            if attempt > retries or delay >= deadline.remaining():
                break
            LOG.info('Key service: trying again in %.1f s.', delay)
            self._sleep(delay)
        raise exceptions.ServiceUnavailable(
            f'The key service gave no answer within {deadline.seconds:g} s '
            f'and {attempt} attempt(s): {failure.reason}. Try again later.',
            request_id=failure.request_id)

    def page(self, path, collection, filters, deadline=None):
        """One page of a collection.

        :param collection: the member that holds the items
        :param filters: query parameters; those that are None are left out
        :returns: the items, and the marker of the next page or None
        :raises InvalidResponse: the answer is no such collection
        """
        params = {name: value for name, value in filters.items()
                  if value is not None}
        answer = self.request('GET', path, params=params, deadline=deadline)
        items = answers.member(answer.body, collection, list)
        links = answer.body.get(f'{collection}_links') or []
        try:
            following = [link['href'] for link in links
                         if link['rel'] == 'next']
            if not following:
                return items, None
            query = urllib.parse.urlsplit(following[0]).query
            return items, urllib.parse.parse_qs(query)['marker'][0]
        except (TypeError, KeyError, IndexError, AttributeError, ValueError):
            raise exceptions.InvalidResponse(
                f'The key service answered "{collection}_links" without a '
                f'marker.', request_id=answer.request_id) from None

    def _delay(self, attempt, retry_after):
        """Seconds to wait after failed attempt number `attempt` (from 0)."""
        backoff = min(MAX_DELAY, self._retry_delay * 2 ** attempt)
        # Hosts that failed together should not come back together.
        return max(backoff * random.uniform(0.5, 1.0), retry_after)

    def _attempt(self, method, path, json, data, headers, params, deadline,
                 max_answer):
        sent = {'Accept': 'application/json', 'Accept-Encoding': 'identity'}
        sent.update(headers or {})
        kwargs = {'headers': sent, 'stream': True,
                  'timeout': min(self._timeout, deadline.remaining())}
        if json is not None:
            kwargs['json'] = json
        if data is not None:
            kwargs['data'] = data
        if params is not None:
            kwargs['params'] = params
        try:
            response = self._adapter.request(
                path, method, raise_exc=False, log=False, redirect=False,
                connect_retries=0, status_code_retries=0, **kwargs)
        except ksa_exceptions.ConnectTimeout as error:
            self._log_failure(method, path, error)
            raise _Retriable('it was silent too long') from None
        except ksa_exceptions.RetriableConnectionFailure as error:
            self._log_failure(method, path, error)
            raise _Retriable('it cannot be reached') from None
        except ksa_exceptions.EndpointNotFound:
            raise exceptions.ServiceUnavailable(
                'The key service has no endpoint in the catalog: create one '
                'of service type "attestation" for this region and '
                'interface, or set endpoint_override.') from None
        except ksa_exceptions.ClientException as error:
            # Keystone's refusal, a broken catalog, a bad certificate:
            # asking again gives the same.
            self._log_failure(method, path, error)
            raise exceptions.ServiceUnavailable(
                f'The key service could not be asked '
                f'({type(error).__name__}); the log of the service that '
                f'asked tells why.') from None
        try:
            return self._read(method, path, response, deadline, max_answer)
        finally:
            response.close()

    @staticmethod
    def _log_failure(method, path, error):
        # Here and not in the exception: it names hosts, and exceptions
        # reach users.
        LOG.warning('Key service: %(method)s %(path)s failed: %(error)s',
                    {'method': method, 'path': path,
                     'error': _clean(str(error)) or type(error).__name__})

    def _read(self, method, path, response, deadline, max_answer):
        status = response.status_code
        request_id = _request_id(response)
        LOG.debug('Key service: %(method)s %(path)s answered %(status)s '
                  '(%(request_id)s).',
                  {'method': method, 'path': path, 'status': status,
                   'request_id': request_id})
        if status >= 500:
            code, detail = self._error(response, deadline, max_answer)
            reason = f'HTTP {status} {code} {detail}'.strip().rstrip('.')
            self._log_failure(method, path, reason)
            raise _Retriable(reason, request_id=request_id,
                             retry_after=_retry_after(response))
        if 400 <= status:
            code, detail = self._error(response, deadline, max_answer)
            raise exceptions.RequestRefused(status, code, detail,
                                            request_id=request_id)
        if not 200 <= status < 300:
            raise exceptions.InvalidResponse(
                f'The key service answered HTTP {status}, which its API '
                f'never does; check the endpoint.', request_id=request_id)
        body = _body(response, deadline, max_answer, request_id)
        return Answer(status, response.headers,
                      _json(body, request_id) if body else None, request_id)

    @staticmethod
    def _error(response, deadline, max_answer):
        """The code and detail of an error document, '' where absent.

        The status alone decides what happens, so a document that cannot be
        read takes nothing from the error but its words.
        """
        try:
            document = _json(_body(response, deadline, max_answer, None),
                             None)
            error = document['errors'][0]
            code, detail = error.get('code'), error.get('detail')
        except (exceptions.InvalidResponse, _Retriable, KeyError, IndexError,
                TypeError, AttributeError):
            return '', ''
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            code = ''
        return code, _clean(detail) if isinstance(detail, str) else ''


def _body(response, deadline, max_answer, request_id):
    """The whole body, at most max_answer bytes, by the deadline."""
    encoding = response.headers.get('Content-Encoding', 'identity')
    if encoding.lower() != 'identity':
        raise exceptions.InvalidResponse(
            'The key service compressed an answer unasked.',
            request_id=request_id)
    chunks = []
    size = 0
    while True:
        try:
            # One read of the socket each, so that dribbled bytes cannot
            # stretch a call past its deadline.
            chunk = response.raw.read1(_CHUNK)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            LOG.warning('Key service: an answer broke off: %s',
                        _clean(str(error)))
            raise _Retriable('its answer broke off',
                             request_id=request_id) from None
        if not chunk:
            return b''.join(chunks)
        size += len(chunk)
        if size > max_answer:
            raise exceptions.InvalidResponse(
                f'The key service\'s answer is longer than {max_answer} '
                f'bytes.', request_id=request_id)
        chunks.append(chunk)
        if deadline.has_passed():
            raise _Retriable(f'its answer was not complete after '
                             f'{deadline.seconds:g} s',
                             request_id=request_id)


def _json(body, request_id):
    try:
        return jsonlib.loads(body)
    except (ValueError, RecursionError):
        raise exceptions.InvalidResponse(
            'The key service\'s answer is not JSON; check that the endpoint '
            'is the key service\'s.', request_id=request_id) from None


def _request_id(response):
    value = response.headers.get('X-Openstack-Request-Id', '')
    return value if _REQUEST_ID.fullmatch(value) else None


def _retry_after(response):
    """Seconds of a Retry-After header (RFC 9110 10.2.3), else 0.0."""
    value = response.headers.get('Retry-After', '').strip()
    if re.fullmatch(r'[0-9]{1,9}', value):
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _clean(text):
    """Text of another's as one printable line of bounded length."""
    line = ' '.join(''.join(
        char if char.isprintable() else ' '
        for char in text[:MAX_DETAIL]).split())
    return line
