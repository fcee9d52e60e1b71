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

import urllib.parse

from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.schemas import document

JSON = 'application/json'


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
    kept = {name: value for name, value in query.items()
            if name != 'marker'}
    text = urllib.parse.urlencode(kept | {'limit': limit, 'marker': marker})
    return [{'rel': 'next', 'href': f'{base(req)}{req.path}?{text}'}]
