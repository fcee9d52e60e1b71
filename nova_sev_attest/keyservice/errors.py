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

"""Errors that the REST API answers with.

Each class is one HTTP status; the word makes the stable error code
``attestation.<word>``. The detail is read by whoever asked, so it tells what
was expected, what came and what to do, and never a secret.
"""


class ServiceError(Exception):
    """Base of the errors that become an answer of the API.

    :param word: what happened, one stable lower-case word with underscores
    :param detail: sentences for the reader of the answer
    """

    status = 500
    title = 'Internal Server Error'

    def __init__(self, word, detail):
        super().__init__(detail)
        self.word = word
        self.detail = detail

    @property
    def code(self):
        return 'attestation.' + self.word


class BadRequest(ServiceError):
    status = 400
    title = 'Bad Request'


class Unauthorized(ServiceError):
    status = 401
    title = 'Unauthorized'


class Forbidden(ServiceError):
    status = 403
    title = 'Forbidden'


class NotFound(ServiceError):
    status = 404
    title = 'Not Found'


class MethodNotAllowed(ServiceError):
    status = 405
    title = 'Method Not Allowed'


class NotAcceptable(ServiceError):
    status = 406
    title = 'Not Acceptable'


class Conflict(ServiceError):
    status = 409
    title = 'Conflict'


class LengthRequired(ServiceError):
    status = 411
    title = 'Length Required'


class PreconditionFailed(ServiceError):
    status = 412
    title = 'Precondition Failed'


class TooLarge(ServiceError):
    status = 413
    title = 'Content Too Large'


class UnsupportedMediaType(ServiceError):
    status = 415
    title = 'Unsupported Media Type'


class PreconditionRequired(ServiceError):
    status = 428
    title = 'Precondition Required'


class Internal(ServiceError):
    status = 500


class Unavailable(ServiceError):
    status = 503
    title = 'Service Unavailable'


class Denied(Forbidden):
    """A launch that did not attest; it is closed by whoever raises this.

    :param word: reason for the host
    :param detail: sentence for the host; names no expected value
    :param owner: mapping kept for the owner alone (what was claimed, what
        the policy allows)
    """

    def __init__(self, word, detail, owner=None):
        super().__init__(word, detail)
        self.owner = owner or {}


_BY_STATUS = {
    cls.status: cls for cls in (
        BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed,
        NotAcceptable, Conflict, LengthRequired, PreconditionFailed, TooLarge,
        UnsupportedMediaType, PreconditionRequired, Internal, Unavailable)}


def for_status(status):
    """The class of a status, for errors made outside the service's code."""
    return _BY_STATUS.get(
        status, BadRequest if 400 <= status < 500 else Internal)


def document(error, request_id, status=None):
    """The API-SIG error document of an error."""
    return {'errors': [{
        'request_id': request_id,
        'code': error.code,
        'status': status or error.status,
        'title': error.title,
        'detail': error.detail,
        'links': [],
    }]}
