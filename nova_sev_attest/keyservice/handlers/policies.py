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

"""/v1/policies"""

import falcon

from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.handlers import common
from nova_sev_attest.keyservice.objects import policies
from nova_sev_attest.keyservice.policies import policies as rules
from nova_sev_attest.keyservice.schemas import policies as schemas


def _etag(policy):
    """Names what the owner said.

    The count of releases may change without it, as warnings may.
    """
    tag = f'{policy.id}.{policy.revision}'
    if policy.revoked_at is not None:
        tag += f'.revoked-{policy.revoked_at:%Y%m%dT%H%M%S.%f}'
    return tag


class _Resource:
    """:param service: Service"""

    def __init__(self, service):
        self._service = service

    def _show(self, req, resp, policy):
        warnings = self._service.authoring.warnings(
            policy.project_id, [policy])
        common.answer(req, resp, _etag(policy), {
            'policy': schemas.view(policy, warnings[policy.id],
                                   common.base(req))})


class Collection(_Resource):

    def on_get(self, req, resp):
        context = req.context.identity
        self._service.authorizer.require(context, rules.LIST)
        limit, query = common.read_query(
            req, schemas.LIST, self._service.conf.api.max_limit)
        with self._service.database.reader() as session:
            found, more = policies.page(
                session, context.project_id, limit, **query)
        warnings = self._service.authoring.warnings(
            context.project_id, found)
        resp.media = {
            'policies': [
                schemas.view(policy, warnings[policy.id], common.base(req))
                for policy in found],
            'policies_links': common.next_links(
                req, more, found and found[-1].id, limit, query),
        }

    def on_post(self, req, resp):
        context = req.context.identity
        self._service.authorizer.require(context, rules.CREATE)
        body = common.read_json(req, schemas.CREATE,
                                self._service.conf.api.max_body_size)
        policy = self._service.authoring.create_policy(
            context, body['policy'])
        resp.status = falcon.HTTP_201
        resp.location = f'{common.base(req)}/v1/policies/{policy.id}'
        self._show(req, resp, policy)


class Item(_Resource):

    def on_get(self, req, resp, policy_id):
        context = req.context.identity
        self._service.authorizer.require(context, rules.SHOW)
        schemas.SHOW.check_path({'policy_id': policy_id})
        with self._service.database.reader() as session:
            policy = policies.get(session, context.project_id, policy_id)
        self._show(req, resp, policy)

    def on_patch(self, req, resp, policy_id):
        context = req.context.identity
        self._service.authorizer.require(context, rules.UPDATE)
        schemas.UPDATE.check_path({'policy_id': policy_id})
        matches = common.read_condition(req, schemas.UPDATE)
        if matches is None:
            raise errors.PreconditionRequired(
                'if_match_missing',
                'A change needs the header If-Match with the ETag of the '
                'revision that it was made from.')
        body = common.read_json(req, schemas.UPDATE,
                                self._service.conf.api.max_body_size)
        policy = self._service.authoring.update_policy(
            context, policy_id,
            lambda policy: matches(_etag(policy)), body['policy'])
        self._show(req, resp, policy)

    def on_delete(self, req, resp, policy_id):
        context = req.context.identity
        self._service.authorizer.require(context, rules.DELETE)
        schemas.DELETE.check_path({'policy_id': policy_id})
        matches = common.read_condition(req, schemas.DELETE)
        self._service.authoring.delete_policy(
            context.project_id, policy_id,
            matches and (lambda policy: matches(_etag(policy))))
        resp.status = falcon.HTTP_204


class Revocation(_Resource):

    def on_put(self, req, resp, policy_id):
        context = req.context.identity
        self._service.authorizer.require(context, rules.REVOKE)
        schemas.REVOKE.check_path({'policy_id': policy_id})
        self._show(req, resp, self._service.authoring.revoke_policy(
            context.project_id, policy_id))

    def on_delete(self, req, resp, policy_id):
        context = req.context.identity
        self._service.authorizer.require(context, rules.RESTORE)
        schemas.RESTORE.check_path({'policy_id': policy_id})
        self._show(req, resp, self._service.authoring.restore_policy(
            context, policy_id))


class Revisions(_Resource):

    def on_get(self, req, resp, policy_id):
        context = req.context.identity
        self._service.authorizer.require(context, rules.LIST_REVISIONS)
        schemas.LIST_REVISIONS.check_path({'policy_id': policy_id})
        limit, query = common.read_query(
            req, schemas.LIST_REVISIONS, self._service.conf.api.max_limit)
        with self._service.database.reader() as session:
            found, more = policies.page_of_revisions(
                session, context.project_id, policy_id, limit, **query)
        resp.media = {
            'revisions': [schemas.revision(policy, common.base(req))
                          for policy in found],
            'revisions_links': common.next_links(
                req, more, found and found[-1].revision, limit, query),
        }


class Revision(_Resource):

    def on_get(self, req, resp, policy_id, revision):
        context = req.context.identity
        self._service.authorizer.require(context, rules.SHOW_REVISION)
        path = schemas.SHOW_REVISION.check_path(
            {'policy_id': policy_id, 'revision': revision})
        with self._service.database.reader() as session:
            policy = policies.get(session, context.project_id, **path)
        common.answer(req, resp, f'{policy.id}.{policy.revision}', {
            'revision': schemas.revision(policy, common.base(req))})
