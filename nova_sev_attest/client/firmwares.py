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

from nova_sev_attest.client import answers


class Firmwares:
    """The resource.

    :param rest: RestClient
    """

    def __init__(self, rest):
        self._rest = rest

    def upload(self, image, deadline=None):
        """Upload an image under its SHA-256; harmless when it is known.

        :param image: the firmware file's bytes
        :returns: the firmware's members
        :raises RequestRefused: status 400 for an image that cannot receive
            a launch secret, 413 for one that is too large
        """
        sha256 = hashlib.sha256(image).hexdigest()
        answer = self._rest.request(
            'PUT', f'/v1/firmwares/{sha256}', data=image,
            headers={'Content-Type': 'application/octet-stream'},
            deadline=deadline)
        return answers.member(answer.body, 'firmware', dict)

    def get(self, sha256, deadline=None):
        answer = self._rest.request('GET', f'/v1/firmwares/{sha256}',
                                    deadline=deadline)
        return answers.member(answer.body, 'firmware', dict)

    def list(self, sort=None, limit=None, marker=None, deadline=None):
        """One page of firmwares, and the marker of the next page or None."""
        return self._rest.page('/v1/firmwares', 'firmwares', {
            'sort': sort, 'limit': limit, 'marker': marker}, deadline)

    def delete(self, sha256, deadline=None):
        self._rest.request('DELETE', f'/v1/firmwares/{sha256}',
                           deadline=deadline)
