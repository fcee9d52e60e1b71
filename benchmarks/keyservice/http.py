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

"""An HTTP client that takes little of the machine that it measures."""

import asyncio
import json
import urllib.parse

from benchmarks.keyservice import cloud


class Unanswered(Exception):
    """A request got no answer: refused, cut off, or too late."""


class Answer:
    """Status, headers (names in lower case) and body of an answer."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """The error's code, or the status as text."""
        try:
            return self.json()['errors'][0]['code']
        except (ValueError, KeyError, TypeError):
            return str(self.status)


class Client:
    """Asks one server, a connection for each request.

    :param url: of the server
    :param token: None when each request brings its own
    :param seconds: that an answer may take
    """

    def __init__(self, url, token=None, seconds=120):
        parts = urllib.parse.urlsplit(url)
        self._address = parts.hostname, parts.port
        self._headers = {} if token is None else {'X-Auth-Token': token}
        self._seconds = seconds

    async def __call__(self, method, path, value=None, headers=(),
                       data=None):
        """Ask; value is sent as JSON, data as it is.

        :raises Unanswered: there was no whole answer
        """
        kind = 'application/json' if data is None else (
            'application/octet-stream')
        if data is None:
            data = b'' if value is None else json.dumps(value).encode()
        lines = [f'{method} {path} HTTP/1.1',
                 'Host: {}:{}'.format(*self._address), 'Connection: close',
                 f'Content-Type: {kind}', f'Content-Length: {len(data)}',
                 *(f'{name}: {text}' for name, text in (
                     self._headers | dict(headers)).items())]
        message = '\r\n'.join([*lines, '', '']).encode() + data
        try:
            async with asyncio.timeout(self._seconds):
                return await self._ask(message)
        except (OSError, asyncio.IncompleteReadError) as exc:
            raise Unanswered(type(exc).__name__) from exc

    async def _ask(self, message):
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            writer.write(message)
            status, headers = await cloud.read_head(reader)
            size = headers.get('content-length')
            body = await (reader.read() if size is None
                          else reader.readexactly(int(size)))
        finally:
            writer.close()
        return Answer(int(status.split()[1]), headers, body)
