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

"""Reading the key service's JSON without believing its shape.

Each function takes a decoded JSON value apart and raises InvalidResponse,
naming the member, where it is missing or not what the REST API says. The
text of a value is never put into the message: it may be a session or a
secret.
"""

import base64
import binascii

from nova_sev_attest.client import exceptions


def member(answer, name, kind):
    """A required member of a JSON object.

    :param answer: the decoded object
    :param name: the member
    :param kind: the type that it must have (bool does not pass for int)
    :raises InvalidResponse: answer is no object, lacks the member, or the
        member is of another type
    """
    if not isinstance(answer, dict):
        raise exceptions.InvalidResponse(
            f'The key service answered a {type(answer).__name__} where an '
            f'object with "{name}" was expected.')
    if name not in answer:
        raise exceptions.InvalidResponse(
            f'The key service\'s answer lacks "{name}".')
    value = answer[name]
    if not isinstance(value, kind) or (
            isinstance(value, bool) and kind is not bool):
        raise exceptions.InvalidResponse(
            f'The key service answered a {type(value).__name__} as "{name}" '
            f'where {kind.__name__} was expected.')
    return value


def integer(answer, name, lowest, highest):
    """A required integer within inclusive bounds.

    :raises InvalidResponse: missing, no integer, or out of bounds
    """
    value = member(answer, name, int)
    if not lowest <= value <= highest:
        raise exceptions.InvalidResponse(
            f'The key service answered {value} as "{name}" where '
            f'{lowest} to {highest} was expected.')
    return value


def octets(answer, name, lowest, highest):
    """A required member in base64 (RFC 4648 section 4, no line breaks).

    :param lowest: least number of decoded bytes
    :param highest: largest number of decoded bytes
    :raises InvalidResponse: missing, no string, not base64, or not of that
        size
    """
    text = member(answer, name, str)
    # Four characters for three bytes, and padding: measured before decoding.
    if len(text) > (highest + 2) // 3 * 4:
        raise exceptions.InvalidResponse(
            f'The key service answered {len(text)} characters as "{name}", '
            f'more than {highest} bytes of base64.')
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise exceptions.InvalidResponse(
            f'The key service answered "{name}" not in base64.') from None
    if not lowest <= len(data) <= highest:
        raise exceptions.InvalidResponse(
            f'The key service answered {len(data)} bytes as "{name}" where '
            f'{lowest} to {highest} were expected.')
    return data


def encode(data):
    """Bytes as the REST API carries them: base64 without line breaks."""
    return base64.b64encode(data).decode('ascii')


def flag(value):
    """A query's boolean, None where there is none."""
    return None if value is None else str(value).lower()
