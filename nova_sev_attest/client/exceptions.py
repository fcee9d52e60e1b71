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

"""What can go wrong between a client and the key service.

::

    ClientError
      RequestRefused            4xx: asking again gives the same
        NotFound                404
        Conflict                409
        RevisionChanged         412
        AttestationDenied       403 to a compute host's launch
      ServiceUnavailable        no usable answer: another time may help
        OwnerTimeout
        InvalidResponse

No message or attribute here holds a launch token, a session or a secret:
they reach logs and the faults of servers.
"""


class ClientError(Exception):
    """Root of this package's errors.

    :ivar request_id: the key service's request id, None where there was no
        answer that named one
    """

    def __init__(self, message, request_id=None):
        self.request_id = request_id
        super().__init__(message)


class RequestRefused(ClientError):
    """The key service understood the request and will not do it (4xx).

    :ivar status: the HTTP status
    :ivar code: the service's stable word, 'attestation.<word>', or '' where
        the answer had none
    :ivar detail: the service's sentence, at most 500 printable characters
    """

    def __init__(self, status, code, detail, request_id=None):
        self.status = status
        self.code = code
        self.detail = detail
        message = detail or 'no reason given'
        super().__init__(
            f'The key service refused the request (HTTP {status}'
            f'{", " + code if code else ""}): {message}',
            request_id=request_id)


class NotFound(RequestRefused):
    """There is no such thing, or it belongs to another project (404)."""


class Conflict(RequestRefused):
    """It cannot be done to what is there as it is now (409)."""


class RevisionChanged(RequestRefused):
    """Another change came first: read it again, then change it (412)."""


class AttestationDenied(RequestRefused):
    """The key service refused this launch for good (403)."""


class ServiceUnavailable(ClientError):
    """No usable answer in the time and number of attempts allowed."""


class OwnerTimeout(ServiceUnavailable):
    """The launch waits for its owner, who did not act in time."""


class InvalidResponse(ServiceUnavailable):
    """An answer came, but not one that the REST API allows."""
