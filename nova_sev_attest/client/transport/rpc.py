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

"""To the key service over oslo.messaging, with this host's own credential.

For compute hosts that reach RabbitMQ and not the key service. What is said is
what the REST API says: the resource is the same, and only how a request gets
there differs.
"""

import json as jsonlib
import threading

from oslo_log import log as logging
import oslo_messaging

from nova_sev_attest import bounded
from nova_sev_attest.client import attempts
from nova_sev_attest.client import exceptions
from nova_sev_attest.client import launches
from nova_sev_attest.client import replies
from nova_sev_attest.client.transport import base
from nova_sev_attest.client.transport import credential
from nova_sev_attest.conf import driver as options
from nova_sev_attest import messaging

LOG = logging.getLogger(__name__)

_METHODS = {below: method for method, below in messaging.METHODS.items()}
# At once, in one nova-compute: more than it builds, and a bound to what a
# broker that never answers can hold.
_MAX_CALLS = 64


class RpcClient:
    """Makes the requests that the resource Launches makes.

    Stands in the place of rest.RestClient, for PUTs below /v1/launches only.

    :param call: _Calls
    :param tokens: credential.Tokens
    :param timeout: seconds that the key service may be silent
    :param policy: what Attempts takes
    """

    def __init__(self, call, tokens, timeout, **policy):
        self._call = call
        self._tokens = tokens
        self._timeout = timeout
        self.attempts = attempts.Attempts(**policy)

    def request(self, method, path, json, headers, deadline=None,
                max_answer=messaging.MAX_ANSWER, wait=None):
        """Make one request, repeated where that may help.

        Takes, returns and raises what RestClient.request does.
        """
        _empty, _version, _launches, launch_id, *below = path.split('/')
        rpc_method = _METHODS[''.join(f'/{part}' for part in below)]
        request = {
            'launch_id': launch_id,
            'launch_token': headers[launches.TOKEN_HEADER],
            'body': jsonlib.dumps(json, ensure_ascii=False),
            'wait': wait,
        }
        return self.attempts.run(
            lambda limit: self._attempt(rpc_method, request, limit,
                                        max_answer, wait or 0),
            deadline, patient=wait is not None)

    def _attempt(self, method, request, deadline, max_answer, wait):
        for last in (False, True):
            token = self._tokens.get()
            try:
                return self._ask(method, request | {'keystone_token': token},
                                 deadline, max_answer, wait)
            except exceptions.RequestRefused as refusal:
                if refusal.status != 401 or last:
                    raise
                # It has expired, or was revoked.
                self._tokens.renew(token)

    def _ask(self, method, request, deadline, max_answer, wait):
        seconds = min(self._timeout + wait, max(deadline.remaining(), 0.1))
        try:
            answer = self._call(method, request, seconds)
        except (oslo_messaging.MessagingTimeout, bounded.Overdue):
            self._log_failure(method, f'no answer after {seconds:.1f} s')
            raise attempts.Retriable('it was silent too long') from None
        except bounded.TooMany:
            self._log_failure(method, f'{_MAX_CALLS} calls are under way')
            raise attempts.Retriable('too many calls wait for it') from None
        except oslo_messaging.MessageUndeliverable:
            self._log_failure(method, 'no nova-sev-attest-rpc listens')
            raise attempts.Retriable('it does not listen') from None
        except oslo_messaging.RemoteError as error:
            # Our server answers all it understands. Its words and traceback
            # are another's.
            self._log_failure(method, f'remote {error.exc_type}')
            raise exceptions.InvalidResponse(
                f'The key service\'s RPC server failed '
                f'({replies.clean(str(error.exc_type))}); it may be of '
                f'another version than {messaging.VERSION}.') from None
        except oslo_messaging.MessagingException as error:
            self._log_failure(method, type(error).__name__)
            raise attempts.Retriable('the message broker cannot be '
                                     'reached') from None
        status, headers, body = _parse(answer, max_answer)
        LOG.debug('Key service: RPC %(method)s answered %(status)s '
                  '(%(request_id)s).',
                  {'method': method, 'status': status,
                   'request_id': replies.request_id_of(headers)})
        return replies.interpret(
            status, headers, lambda: body,
            lambda reason: self._log_failure(method, reason))

    @staticmethod
    def _log_failure(method, reason):
        LOG.warning('Key service: RPC %(method)s failed: %(reason)s',
                    {'method': method, 'reason': replies.clean(reason)})


def _parse(answer, max_answer):
    """The parts of an answer, once its shape and size are known.

    :raises InvalidResponse: it is not one
    """
    try:
        inner = answer[messaging.ANSWER]
        status, headers, body = (inner['status'], inner['headers'],
                                 inner['body'])
    except (TypeError, KeyError):
        status = None
    if (type(status) is not int or not isinstance(headers, dict)
            or not isinstance(body, str)
            or not all(isinstance(value, str)
                       for value in headers.values())):
        raise exceptions.InvalidResponse(
            'The key service\'s RPC server answered something else than '
            'an HTTP answer.')
    if len(body) > max_answer:
        raise exceptions.InvalidResponse(
            f'The key service\'s answer is longer than {max_answer} '
            f'characters.')
    return status, headers, body.encode()


class _Calls:
    """Calls over one connection to the broker, none longer than asked for.

    oslo.messaging connects to a broker for ever when it makes its queue of
    answers, whatever the time-out of the call. So the first call is a ping,
    which nobody waits for too long, and until one has come through, nothing
    else is sent: a request that were stuck there would be sent at some later
    time.

    :param transport: oslo_messaging's RPC transport
    """

    def __init__(self, transport):
        self._client = oslo_messaging.get_rpc_client(
            transport, messaging.target(),
            version_cap=messaging.VERSION, retry=1)
        # No queue means nobody listens, which need not wait for a time-out.
        self._options = oslo_messaging.TransportOptions(at_least_once=True)
        self._calls = bounded.BoundedCalls(_MAX_CALLS, 'sev-attest-rpc')
        self._lock = threading.Lock()
        self._connecting = None
        self._connected = threading.Event()

    def __call__(self, method, request, seconds):
        """Call a method.

        :returns: its answer
        :raises oslo_messaging.MessagingException: there is none
        :raises bounded.Overdue: neither answer nor error in time
        """
        if not self._connected.is_set():
            self._connect(seconds)
        client = self._client.prepare(timeout=seconds)
        # oslo.messaging begins to count when the message is sent.
        return self._calls.run(
            lambda: client.call({}, method, **{messaging.REQUEST: request}),
            seconds + 1)

    def _connect(self, seconds):
        with self._lock:
            if self._connecting is None or not self._connecting.is_alive():
                self._connecting = threading.Thread(
                    target=self._ping, name='sev-attest-rpc-connect',
                    daemon=True)
                self._connecting.start()
        if not self._connected.wait(seconds):
            raise bounded.Overdue('the message broker cannot be reached')

    def _ping(self):
        try:
            self._client.prepare(timeout=2).call({}, 'ping')
        except oslo_messaging.MessagingException as error:
            # Whatever became of it: the queue of answers is there.
            LOG.debug('Key service: RPC ping: %s', type(error).__name__)
        self._connected.set()


class RpcTransport(base.LaunchesTransport):
    """Launches over oslo.messaging, configured by the group [sev_attest]."""

    def __init__(self, conf):
        messaging.keep_out_of_logs()
        messaging.register_opts(conf)
        settings = conf[options.GROUP.name]
        tokens = credential.Tokens(conf)
        try:
            transport = oslo_messaging.get_rpc_transport(
                conf, url=settings.rpc_transport_url)
        except oslo_messaging.MessagingException as error:
            # Its text names the URL, which holds a password.
            raise exceptions.ServiceUnavailable(
                f'[{options.GROUP.name}] rpc_transport_url of nova.conf, or '
                f'Nova\'s own transport_url, cannot be used: '
                f'{type(error).__name__}') from None
        super().__init__(launches.Launches(RpcClient(
            _Calls(transport), tokens, settings.timeout,
            total_timeout=settings.launch_timeout,
            max_retries=settings.max_retries,
            retry_delay=settings.retry_delay)))
