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

"""/v1/launches/{launch_id}/...: what a launch's owner sees and decides."""

from nova_sev_attest.keyservice.handlers import common
from nova_sev_attest.keyservice.policies import launches as rules
from nova_sev_attest.keyservice.schemas import launches as schemas


class _Resource:
    """:param service: Service"""

    def __init__(self, service):
        self._service = service

    def _authorize(self, req, rule, operation, launch_id):
        """Check a request; returns its RequestContext."""
        context = req.context.identity
        self._service.authorizer.require(context, rule)
        operation.check_path({'launch_id': launch_id})
        return context

    def _read(self, req, operation):
        return common.read_json(req, operation,
                                self._service.conf.api.max_body_size)

    @staticmethod
    def _show(req, resp, launch):
        resp.media = {'launch': schemas.full(launch, common.base(req))}


class Certificates(_Resource):

    def on_get(self, req, resp, launch_id):
        context = self._authorize(req, rules.SHOW_CERTIFICATES,
                                  schemas.CERTIFICATES, launch_id)
        resp.media = {'certificates': schemas.certificates(
            self._service.engine.certificates(context.project_id,
                                              launch_id))}


class Session(_Resource):

    def on_put(self, req, resp, launch_id):
        context = self._authorize(req, rules.UPLOAD_SESSION, schemas.SESSION,
                                  launch_id)
        body = self._read(req, schemas.SESSION)
        self._show(req, resp, self._service.engine.upload_session(
            context.project_id, launch_id, body['session']))


class Secret(_Resource):

    def on_put(self, req, resp, launch_id):
        context = self._authorize(req, rules.UPLOAD_SECRET, schemas.SECRET,
                                  launch_id)
        body = self._read(req, schemas.SECRET)
        self._show(req, resp, self._service.engine.upload_secret(
            context, launch_id, body['secret']))


class Decision(_Resource):

    def on_put(self, req, resp, launch_id):
        context = self._authorize(req, rules.DECIDE, schemas.DECISION,
                                  launch_id)
        decision = self._read(req, schemas.DECISION)['decision']
        self._show(req, resp, self._service.engine.decide(
            context, launch_id, decision['action'], decision.get('reason')))


class Events(_Resource):

    def on_get(self, req, resp, launch_id):
        context = self._authorize(req, rules.LIST_EVENTS, schemas.EVENTS,
                                  launch_id)
        resp.media = {'events': [
            schemas.event(record) for record in self._service.engine.events(
                context.project_id, launch_id)]}
