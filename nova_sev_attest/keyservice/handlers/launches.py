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

"""/v1/launches"""

import falcon

from nova_sev_attest.keyservice.handlers import common
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.keyservice.policies import launches as rules
from nova_sev_attest.keyservice.schemas import launches as schemas


class _Resource:
    """:param service: Service"""

    def __init__(self, service):
        self._service = service

    def _view(self, context, rule, rule_for_all):
        """What the caller may see of which launches.

        :returns: (project that launches must belong to, None for any;
            function of a launch and the base URL that gives a view)
        :raises Forbidden: nothing
        """
        if self._service.authorizer.allows(context, rule_for_all):
            return None, schemas.operators
        self._service.authorizer.require(context, rule)
        return context.project_id, schemas.full

    def _read(self, req, rule, operation, launch_id):
        """Check a PUT of the compute service.

        :returns: (launch token, body)
        """
        self._service.authorizer.require(req.context.identity, rule)
        operation.check_path({'launch_id': launch_id})
        token = req.get_header(schemas.TOKEN_HEADER)
        operation.check_header(schemas.TOKEN_HEADER, token)
        return token, common.read_json(
            req, operation, self._service.conf.api.max_body_size)

    def _decided(self, req, step):
        """Take a host's step; where it waits for the owner, wait along.

        :param step: function that returns the Launch; the same request again
        :returns: Launch, which may wait for its owner still
        """
        launch = step()
        seconds = common.read_wait(req)
        if launch.waiting_for and seconds and self._service.engine.wait(
                launch, seconds):
            launch = step()
        return launch

    @staticmethod
    def _wait(req, resp, launch):
        """Answer that a launch waits for its owner."""
        resp.status = falcon.HTTP_202
        resp.media = {'launch': schemas.reduced(launch, common.base(req))}


class Collection(_Resource):

    def on_get(self, req, resp):
        project_id, view = self._view(
            req.context.identity, rules.LIST, rules.LIST_ALL)
        limit, query = common.read_query(
            req, schemas.LIST, self._service.conf.api.max_limit)
        self._service.engine.sweep()
        with self._service.database.reader() as session:
            found, more = launches.page(
                session, limit, visible_to=project_id, **query)
        resp.media = {
            'launches': [view(launch, common.base(req))
                         for launch in found],
            'launches_links': common.next_links(
                req, more, found and found[-1].id, limit, query),
        }


class Item(_Resource):

    def on_get(self, req, resp, launch_id):
        project_id, view = self._view(
            req.context.identity, rules.SHOW, rules.SHOW_ALL)
        schemas.SHOW.check_path({'launch_id': launch_id})
        self._service.engine.sweep()
        with self._service.database.reader() as session:
            launch = launches.get(session, launch_id, project_id)
        resp.media = {'launch': view(launch, common.base(req))}

    def on_put(self, req, resp, launch_id):
        token, body = self._read(req, rules.CREATE, schemas.CREATE,
                                 launch_id)
        self._service.host_credentials.check(
            req.context.identity, body['launch']['host'])
        begun = []

        def create():
            launch, new = self._service.engine.create(
                launch_id, token, body['launch'])
            begun.append(new)
            return launch

        launch = self._decided(req, create)
        if launch.waiting_for == 'session':
            self._wait(req, resp, launch)
            return
        resp.status = falcon.HTTP_201 if any(begun) else falcon.HTTP_200
        resp.media = {'launch': schemas.session(launch, common.base(req))}


class Evidence(_Resource):

    def on_get(self, req, resp, launch_id):
        context = req.context.identity
        self._service.authorizer.require(context, rules.SHOW_EVIDENCE)
        schemas.SHOW_EVIDENCE.check_path({'launch_id': launch_id})
        evidence, claims = self._service.engine.show_evidence(
            context.project_id, launch_id)
        resp.media = {'evidence': evidence, 'claims': claims}

    def on_put(self, req, resp, launch_id):
        token, body = self._read(req, rules.EVIDENCE, schemas.EVIDENCE,
                                 launch_id)
        launch = self._decided(req, lambda: self._service.engine.evidence(
            launch_id, token, body['evidence'], body.get('claims', {})))
        if launch.waiting_for:
            self._wait(req, resp, launch)
            return
        resp.media = {'launch': schemas.reduced(launch, common.base(req)),
                      'release': schemas.release(launch)}


class Outcome(_Resource):

    def on_put(self, req, resp, launch_id):
        token, body = self._read(req, rules.OUTCOME, schemas.OUTCOME,
                                 launch_id)
        launch = self._service.engine.outcome(
            launch_id, token, body['outcome']['status'],
            body['outcome'].get('reason'))
        resp.media = {'launch': schemas.reduced(launch, common.base(req))}
