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

"""What the handlers of all resources do alike."""

import re
import urllib.parse

import falcon

from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.schemas import document

JSON = 'application/json'

# Preference to wait, RFC 7240, 4.3.
_WAIT = re.compile(r'wait\s*=\s*"?([0-9]{1,6})"?\s*(?:;.*)?', re.IGNORECASE)
# Entity tags, RFC 9110, 8.8.3.
_ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')


def base(req):
    """Scheme, host and mount point of the service, for links."""
    return req.prefix.rstrip('/')


def read_body(req, media_type, limit):
    """Read a request body of one media type, up to a limit in bytes.

    :raises UnsupportedMediaType, LengthRequired, TooLarge: else
    """
    found = (req.content_type or '').partition(';')[0].strip().lower()
    if found != media_type:
        raise errors.UnsupportedMediaType(
            'media_type_unsupported',
            f'The request body must be {media_type}.')
    if req.content_length is None:
        raise errors.LengthRequired(
            'length_required', 'The header Content-Length is missing.')
    if req.content_length > limit:
        raise errors.TooLarge(
            'body_too_large',
            f'The request body has {req.content_length} bytes, the limit is '
            f'{limit}.')
    parts, left = [], req.content_length
    while left:
        part = req.bounded_stream.read(min(left, 64 * 1024))
        if not part:
            raise errors.BadRequest(
                'request_invalid',
                f'The request body ends {left} bytes before its '
                f'Content-Length.')
        parts.append(part)
        left -= len(part)
    return b''.join(parts)


def read_json(req, operation, limit):
    """Read a JSON body and check it against the API document."""
    value = document.parse_json(read_body(req, JSON, limit))
    operation.check_body(value)
    return value


def read_query(req, operation, max_limit):
    """Check the query of a list operation.

    :returns: (limit, dict of the other parameters)
    """
    try:
        pairs = urllib.parse.parse_qsl(
            req.query_string, keep_blank_values=True, strict_parsing=bool(
                req.query_string), errors='strict', max_num_fields=16)
    except ValueError:
        raise errors.BadRequest('request_invalid',
                                'The query is malformed.') from None
    query = operation.query(pairs)
    return min(query.pop('limit', max_limit), max_limit), query


def next_links(req, more, marker, limit, query):
    """The links of a page.

    :param marker: id of the page's last item
    """
    if not more:
        return []
    kept = {name: str(value).lower() if isinstance(value, bool) else value
            for name, value in query.items() if name != 'marker'}
    text = urllib.parse.urlencode(
        kept | {'limit': limit, 'marker': marker}, doseq=True)
    return [{'rel': 'next', 'href': f'{base(req)}{req.path}?{text}'}]


def answer(req, resp, etag, media):
    """Answer with a representation, or 304 when the caller has it already.

    :param etag: opaque text that names what is shown, without quotes
    """
    resp.set_header('ETag', f'"{etag}"')
    if req.method == 'GET' and _names(
            req.get_header('If-None-Match'), etag, weakly=True):
        resp.status = falcon.HTTP_304
        return
    resp.media = media


def read_condition(req, operation):
    """The condition If-Match of a request.

    :returns: function that tells whether the condition names an ETag (as
        given to answer()); None when the request has no condition
    :raises BadRequest: the header is not as documented
    """
    text = req.get_header('If-Match')
    operation.check_header('If-Match', text)
    if text is None:
        return None
    return lambda etag: _names(text, etag)


def _names(text, etag, weakly=False):
    """Whether the value of a conditional header names an ETag.

    :param text: the header's value (RFC 9110, 13.1), or None
    :param etag: opaque text without quotes
    :param weakly: whether weak tags count
    """
    if text is None or text.strip() == '*':
        return text is not None
    return any(tag == etag and (weakly or not weak)
               for weak, tag in _ENTITY_TAG.findall(text))


def read_wait(req):
    """Seconds that a request prefers to wait for an answer (RFC 7240).

    :returns: 0 when it does not, or not in the form of the RFC, which lets
        preferences be ignored
    """
    for preference in (req.get_header('Prefer') or '').split(','):
        found = _WAIT.fullmatch(preference.strip())
        if found:
            return int(found[1])
    return 0
