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

import urllib.parse

from keystoneauth1 import exceptions as ksa_exceptions
from oslo_log import log as logging
import urllib3.exceptions

from nova_sev_attest.client import answers
from nova_sev_attest.client import attempts
from nova_sev_attest.client import exceptions
from nova_sev_attest.client import replies

LOG = logging.getLogger(__name__)

MAX_ANSWER = 4 * 1024 * 1024
_CHUNK = 64 * 1024
_IDEMPOTENT = frozenset(['GET', 'PUT', 'DELETE'])


class RestClient:
    """JSON over a keystoneauth1 adapter.

    keystoneauth's own logging is off for every request: at debug it would
    write the launch token and the released packet into the log. Redirects
    are not followed: they would carry the launch token to another host.

    :param adapter: keystoneauth1.adapter.Adapter for the service type
        attestation; its endpoint is the unversioned one
    :param timeout: seconds that connecting, or any one silence of the
        service, may last
    :param policy: what Attempts takes: total_timeout, max_retries,
        retry_delay, sleep
    """

    def __init__(self, adapter, timeout=10.0, **policy):
        self._adapter = adapter
        self._timeout = timeout
        self.attempts = attempts.Attempts(**policy)

    def request(self, method, path, json=None, data=None, headers=None,
                params=None, deadline=None, max_answer=MAX_ANSWER,
                wait=None):
        """Make one request, repeated where that is safe and may help.

        Only methods that are idempotent are repeated, only after connection
        errors and answers of the 5xx class, and only within the deadline. A
        peer that dribbles its answer is cut off at the deadline or at most
        one read timeout later.

        :param path: below the endpoint, '/v1/...'
        :param json: body to be sent as JSON
        :param data: body to be sent as it is: bytes, or a function that
            gives a file object, called anew for each repetition
        :param headers: further headers; never logged
        :param deadline: Deadline of the caller's whole operation
        :param max_answer: largest answer taken, in bytes
        :param wait: seconds that the service may wait for news before it
            answers (RFC 7240); failures are then borne until the deadline
        :returns: replies.Answer
        :raises RequestRefused: the service answered 4xx
        :raises ServiceUnavailable: no usable answer in time
        :raises InvalidResponse: an answer that is none of the API's
        """
        sent = {'Accept': 'application/json', 'Accept-Encoding': 'identity'}
        sent.update(headers or {})
        if wait is not None:
            sent['Prefer'] = f'wait={wait}'
        kwargs = {'headers': sent, 'json': json, 'data': data,
                  'params': params}
        kwargs = {name: value for name, value in kwargs.items()
                  if value is not None}
        return self.attempts.run(
            lambda limit: self._attempt(method, path, limit, max_answer,
                                        wait or 0, kwargs),
            deadline, repeat=method in _IDEMPOTENT, patient=wait is not None)

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

    def items(self, path, collection, filters, deadline=None):
        """Every item of a collection, whatever number of pages it has.

        A page is asked for when the items before it are used up. Each one
        gets the time of a request of its own unless a deadline is given.

        :param filters: as for page(); ``limit`` is the size of a page
        :returns: iterator of the items
        """
        marker = filters.get('marker')
        while True:
            found, following = self.page(
                path, collection, {**filters, 'marker': marker}, deadline)
            yield from found
            if following is None:
                return
            if following == marker:
                raise exceptions.InvalidResponse(
                    f'The key service answered the same page of '
                    f'"{collection}" twice.')
            marker = following

    def _attempt(self, method, path, deadline, max_answer, wait, kwargs):
        timeout = min(self._timeout + wait, deadline.remaining())
        if not timeout:
            # It passed since it was looked at last.
            raise attempts.Retriable('no time was left to ask it')
        if callable(kwargs.get('data')):
            kwargs = kwargs | {'data': kwargs['data']()}
        try:
            response = self._adapter.request(
                path, method, raise_exc=False, log=False, redirect=False,
                connect_retries=0, status_code_retries=0, stream=True,
                timeout=timeout, **kwargs)
        except ksa_exceptions.ConnectTimeout as error:
            self._log_failure(method, path, error)
            raise attempts.Retriable('it was silent too long') from None
        except ksa_exceptions.RetriableConnectionFailure as error:
            self._log_failure(method, path, error)
            raise attempts.Retriable('it cannot be reached') from None
        except ksa_exceptions.EndpointNotFound:
            raise exceptions.ServiceUnavailable(
                'The key service has no endpoint in the catalog for this '
                'region and interface: choose another region or interface, '
                'have one of service type "attestation" made, or set '
                'endpoint_override.') from None
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
                     'error': (replies.clean(str(error))
                               or type(error).__name__)})

    def _read(self, method, path, response, deadline, max_answer):
        request_id = replies.request_id_of(response.headers)
        LOG.debug('Key service: %(method)s %(path)s answered %(status)s '
                  '(%(request_id)s).',
                  {'method': method, 'path': path,
                   'status': response.status_code,
                   'request_id': request_id})
        return replies.interpret(
            response.status_code, response.headers,
            lambda: _body(response, deadline, max_answer, request_id),
            lambda reason: self._log_failure(method, path, reason))


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
                        replies.clean(str(error)))
            raise attempts.Retriable('its answer broke off',
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
            raise attempts.Retriable(f'its answer was not complete after '
                                     f'{deadline.seconds:g} s',
                                     request_id=request_id)
