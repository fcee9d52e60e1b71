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

"""Firmware images that policies may name (/v1/firmwares)."""

import hashlib
import io

from nova_sev_attest.client import answers


class Firmwares:
    """The resource.

    :param rest: RestClient
    """

    def __init__(self, rest):
        self._rest = rest

    def upload(self, image, progress=None, deadline=None):
        """Upload an image under its SHA-256; harmless when it is known.

        :param image: the firmware file's bytes
        :param progress: called with the number of bytes that have gone, as
            they go; it starts again when the upload is repeated
        :returns: the firmware's members
        :raises RequestRefused: status 400 for an image that cannot receive
            a launch secret, 413 for one that is too large
        """
        sha256 = hashlib.sha256(image).hexdigest()
        answer = self._rest.request(
            'PUT', f'/v1/firmwares/{sha256}',
            data=image if progress is None else (
                lambda: _Reported(image, progress)),
            headers={'Content-Type': 'application/octet-stream'},
            deadline=deadline)
        return answers.member(answer.body, 'firmware', dict)

    def get(self, sha256, deadline=None):
        """The firmware's members.

        :raises NotFound: the project has no such firmware
        """
        answer = self._rest.request('GET', f'/v1/firmwares/{sha256}',
                                    deadline=deadline)
        return answers.member(answer.body, 'firmware', dict)

    def list(self, sort=None, limit=None, marker=None, deadline=None):
        """One page of firmwares, and the marker of the next page or None."""
        return self._rest.page('/v1/firmwares', 'firmwares', {
            'sort': sort, 'limit': limit, 'marker': marker}, deadline)

    def each(self, sort=None, deadline=None):
        """Every firmware; an iterator."""
        return self._rest.items('/v1/firmwares', 'firmwares', {'sort': sort},
                                deadline)

    def delete(self, sha256, deadline=None):
        """Delete a firmware.

        :raises Conflict: a policy names it
        """
        self._rest.request('DELETE', f'/v1/firmwares/{sha256}',
                           deadline=deadline)


class _Reported(io.BytesIO):
    """Bytes to be sent, that tell how many of them were read."""

    def __init__(self, data, progress):
        super().__init__(data)
        self._progress = progress

    def read(self, size=-1):
        piece = super().read(size)
        self._progress(self.tell())
        return piece
