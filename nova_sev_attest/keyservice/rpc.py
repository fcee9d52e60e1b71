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

"""The REST API's launches over oslo.messaging.

For compute hosts that reach RabbitMQ and not the key service. Each message
becomes a request to the very application that serves HTTP, in process: the
keystone token that it carries is validated, and the caller authorized, the
body checked and errors made there and nowhere else. Who can send messages can
do nothing that it could not do over HTTP.
"""

import io
import json
import re
import sys
import threading
import uuid

from oslo_log import log as logging
import oslo_messaging

from nova_sev_attest.keyservice import app
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.schemas import launches as schemas
from nova_sev_attest import messaging

LOG = logging.getLogger(__name__)

_MEMBERS = frozenset(
    ['launch_id', 'keystone_token', 'launch_token', 'body', 'wait'])
_LAUNCH_ID = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')
# Visible ASCII: what may stand in an HTTP header.
_TOKEN = re.compile(r'[\x21-\x7e]{0,16384}')
_MAX_WAIT = 3600
_RABBIT_GROUP = 'oslo_messaging_rabbit'


class _Refused(Exception):
    """A message that does not become a request.

    :param error: ServiceError
    """

    def __init__(self, error):
        super().__init__(error.detail)
        self.error = error


class Endpoint:
    """The methods of messaging.METHODS, and ping.

    :param application: the WSGI application
    :param max_body_size: largest request body, in bytes
    :param max_waits: how many requests may wait for news at once; others are
        answered at once, and asked again by the driver
    """

    target = oslo_messaging.Target(version=messaging.VERSION)

    def __init__(self, application, max_body_size, max_waits):
        self._application = application
        self._max_body_size = max_body_size
        self._waits = threading.BoundedSemaphore(max_waits)

    @oslo_messaging.expose
    def ping(self, context):
        """Tells that there is somebody, and which version."""
        return {messaging.ANSWER: {'version': messaging.VERSION}}

    @oslo_messaging.expose
    def create_launch(self, context, sev_attest_request):
        return self._answer('create_launch', sev_attest_request)

    @oslo_messaging.expose
    def send_evidence(self, context, sev_attest_request):
        return self._answer('send_evidence', sev_attest_request)

    @oslo_messaging.expose
    def report_outcome(self, context, sev_attest_request):
        return self._answer('report_outcome', sev_attest_request)

    def _answer(self, method, request):
        waits = False
        try:
            environ = self._environ(method, request)
            if request['wait'] is not None:
                waits = self._waits.acquire(blocking=False)
            if waits:
                environ['HTTP_PREFER'] = f'wait={request["wait"]}'
            status, headers, body = _call(self._application, environ)
        except _Refused as refused:
            LOG.info('RPC %(method)s: %(detail)s',
                     {'method': method, 'detail': refused})
            status, headers, body = _error(refused.error)
        except Exception as failure:
            # Without its text, which may hold what the message held.
            LOG.error('RPC %(method)s failed: %(type)s', {
                'method': method, 'type': type(failure).__name__})
            status, headers, body = _error(errors.Internal(
                'internal_error',
                'The key service failed; its log says why.'))
        finally:
            if waits:
                self._waits.release()
        return {messaging.ANSWER: {
            'status': status, 'headers': headers, 'body': body}}

    def _environ(self, method, request):
        """The WSGI environment of a message.

        :raises _Refused: it is malformed, or too large
        """
        if not isinstance(request, dict) or set(request) != _MEMBERS:
            raise _malformed('it needs the members '
                             + ', '.join(sorted(_MEMBERS)))
        wait = request['wait']
        if wait is not None and (type(wait) is not int
                                 or not 0 <= wait <= _MAX_WAIT):
            raise _malformed(f'wait is null or 0 to {_MAX_WAIT}')
        for name, pattern in (('launch_id', _LAUNCH_ID),
                              ('keystone_token', _TOKEN),
                              ('launch_token', _TOKEN)):
            if not isinstance(request[name], str) or not pattern.fullmatch(
                    request[name]):
                raise _malformed(f'{name} is not one')
        if not isinstance(request['body'], str):
            raise _malformed('body is not text')
        # Characters are never more than bytes: bound before encoding.
        if len(request['body']) > self._max_body_size:
            raise self._too_large(len(request['body']))
        try:
            body = request['body'].encode()
        except UnicodeEncodeError:
            raise _malformed('body is not Unicode') from None
        if len(body) > self._max_body_size:
            raise self._too_large(len(body))
        header = schemas.TOKEN_HEADER.upper().replace('-', '_')
        environ = {
            'REQUEST_METHOD': 'PUT',
            'SCRIPT_NAME': '',
            'PATH_INFO': f'/v1/launches/{request["launch_id"]}'
                         f'{messaging.METHODS[method]}',
            'QUERY_STRING': '',
            'SERVER_NAME': 'localhost',
            'SERVER_PORT': '80',
            'SERVER_PROTOCOL': 'HTTP/1.1',
            'HTTP_HOST': 'localhost',
            'HTTP_ACCEPT': 'application/json',
            'CONTENT_TYPE': 'application/json',
            'CONTENT_LENGTH': str(len(body)),
            'wsgi.version': (1, 0),
            'wsgi.url_scheme': 'http',
            'wsgi.input': io.BytesIO(body),
            'wsgi.errors': sys.stderr,
            'wsgi.multithread': True,
            'wsgi.multiprocess': True,
            'wsgi.run_once': False,
        }
        # An empty token is one that is missing.
        if request['keystone_token']:
            environ['HTTP_X_AUTH_TOKEN'] = request['keystone_token']
        if request['launch_token']:
            environ['HTTP_' + header] = request['launch_token']
        return environ

    def _too_large(self, size):
        return _Refused(errors.TooLarge(
            'body_too_large',
            f'The request body has {size} bytes, the limit is '
            f'{self._max_body_size}.'))


def _malformed(what):
    return _Refused(errors.BadRequest(
        'request_invalid', f'The RPC message is malformed: {what}.'))


def _error(error):
    """An answer that was not made by the application."""
    request_id = f'req-{uuid.uuid4()}'
    return (error.status, {messaging.HEADERS[0]: request_id},
            json.dumps(errors.document(error, request_id)))


def _call(application, environ):
    """Make a WSGI request.

    :returns: (status, headers that are passed on, body as text)
    """
    begun = []

    def start_response(status, headers, exc_info=None):
        begun[:] = [(int(status.partition(' ')[0]), headers)]
        return lambda data: None

    parts = application(environ, start_response)
    try:
        body = b''.join(parts)
    finally:
        close = getattr(parts, 'close', None)
        if close is not None:
            close()
    (status, headers), = begun
    found = {name.lower(): value for name, value in headers}
    return (status, {name: found[name.lower()] for name in messaging.HEADERS
                     if name.lower() in found}, body.decode())


def make_transport(conf):
    """The transport that [DEFAULT] transport_url names.

    :raises oslo_messaging.MessagingException: it names none that can be used
    """
    messaging.register_opts(conf)
    # A process takes from RabbitMQ what it can work on, and leaves the rest
    # to others.
    conf.set_default('rabbit_qos_prefetch_count', conf.rpc.threads,
                     group=_RABBIT_GROUP)
    return oslo_messaging.get_rpc_transport(conf)


def make_server(service, transport, name):
    """An RPC server over a Service, not started yet.

    :param transport: oslo_messaging's RPC transport
    :param name: of this host, for its queue
    :returns: oslo_messaging's RPCServer
    """
    conf = service.conf
    messaging.keep_out_of_logs()
    endpoint = Endpoint(
        app.make(service), conf.api.max_body_size,
        # The other half of the threads always moves on.
        max(1, conf.rpc.threads // 2))
    return oslo_messaging.get_rpc_server(
        transport, messaging.target(server=name), [endpoint],
        access_policy=oslo_messaging.ExplicitRPCAccessPolicy)
