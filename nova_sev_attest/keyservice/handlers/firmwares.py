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

"""/v1/firmwares"""

import falcon

from nova_sev_attest.keyservice.handlers import common
from nova_sev_attest.keyservice.objects import firmwares
from nova_sev_attest.keyservice.policies import firmwares as rules
from nova_sev_attest.keyservice.schemas import firmwares as schemas

OCTETS = 'application/octet-stream'


def _etag(firmware):
    # Not its SHA-256: another upload of the same image is another firmware.
    return firmware.id


class Collection:
    """:param service: Service"""

    def __init__(self, service):
        self._service = service

    def on_get(self, req, resp):
        context = req.context.identity
        self._service.authorizer.require(context, rules.LIST)
        limit, query = common.read_query(
            req, schemas.LIST, self._service.conf.api.max_limit)
        with self._service.database.reader() as session:
            found, more = firmwares.page(
                session, context.project_id, limit, **query)
        resp.media = {
            'firmwares': [schemas.view(firmware, common.base(req))
                          for firmware in found],
            'firmwares_links': common.next_links(
                req, more, found and found[-1].sha256, limit, query),
        }


class Item:
    """:param service: Service"""

    def __init__(self, service):
        self._service = service

    def on_get(self, req, resp, sha256):
        context = req.context.identity
        self._service.authorizer.require(context, rules.SHOW)
        schemas.SHOW.check_path({'sha256': sha256})
        with self._service.database.reader() as session:
            firmware = firmwares.get(session, context.project_id, sha256)
        self._show(req, resp, firmware)

    def on_put(self, req, resp, sha256):
        context = req.context.identity
        self._service.authorizer.require(context, rules.UPLOAD)
        schemas.UPLOAD.check_path({'sha256': sha256})
        data = common.read_body(req, OCTETS,
                                self._service.conf.api.max_firmware_size)
        firmware, new = self._service.authoring.upload_firmware(
            context.project_id, sha256, data)
        resp.status = falcon.HTTP_201 if new else falcon.HTTP_200
        self._show(req, resp, firmware)

    def on_delete(self, req, resp, sha256):
        context = req.context.identity
        self._service.authorizer.require(context, rules.DELETE)
        schemas.DELETE.check_path({'sha256': sha256})
        matches = common.read_condition(req, schemas.DELETE)
        self._service.authoring.delete_firmware(
            context.project_id, sha256,
            matches and (lambda firmware: matches(_etag(firmware))))
        resp.status = falcon.HTTP_204

    @staticmethod
    def _show(req, resp, firmware):
        common.answer(req, resp, _etag(firmware), {
            'firmware': schemas.view(firmware, common.base(req))})
