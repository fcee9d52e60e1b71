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

"""Versions and the API document; no authentication."""

import falcon

from nova_sev_attest.keyservice.handlers import common
from nova_sev_attest.keyservice import microversion
from nova_sev_attest.keyservice.schemas import document


def _version(req):
    return {
        'id': 'v1.0',
        'status': 'CURRENT',
        'min_version': str(microversion.LOWEST),
        'max_version': str(microversion.HIGHEST),
        'links': [
            {'rel': 'self', 'href': common.base(req) + '/v1'},
            {'rel': 'describedby',
             'href': common.base(req) + '/v1/openapi.json'},
        ],
    }


class Versions:
    def on_get(self, req, resp):
        resp.status = falcon.HTTP_300
        resp.media = {'versions': [_version(req)]}


class Version:
    def on_get(self, req, resp):
        resp.media = {'version': _version(req)}


class Document:
    def on_get(self, req, resp):
        resp.media = document.load()
