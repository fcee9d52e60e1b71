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

"""/v1/platforms"""

from nova_sev_attest.keyservice.handlers import common
from nova_sev_attest.keyservice.objects import platforms
from nova_sev_attest.keyservice.policies import platforms as rules
from nova_sev_attest.keyservice.schemas import platforms as schemas


class _Resource:
    """:param service: Service"""

    def __init__(self, service):
        self._service = service

    def _scope(self, context, rule, rule_for_all):
        """Whose sightings the caller sees: a project's, None for all's."""
        if self._service.authorizer.allows(context, rule_for_all):
            return None
        self._service.authorizer.require(context, rule)
        return context.project_id


class Collection(_Resource):

    def on_get(self, req, resp):
        project_id = self._scope(req.context.identity, rules.LIST,
                                 rules.LIST_ALL)
        limit, query = common.read_query(
            req, schemas.LIST, self._service.conf.api.max_limit)
        with self._service.database.reader() as session:
            found, more = platforms.page(session, limit, project_id, **query)
            resp.media = {
                'platforms': [schemas.view(platform, common.base(req))
                              for platform in found],
                'platforms_links': common.next_links(
                    req, more, found and found[-1].platform_id, limit,
                    query),
            }


class Item(_Resource):

    def on_get(self, req, resp, platform_id):
        project_id = self._scope(req.context.identity, rules.SHOW,
                                 rules.SHOW_ALL)
        schemas.SHOW.check_path({'platform_id': platform_id})
        with self._service.database.reader() as session:
            platform = platforms.get(session, platform_id, project_id)
            resp.media = {'platform': schemas.view(platform,
                                                   common.base(req))}
