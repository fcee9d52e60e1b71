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

"""Platforms that launches were begun on (/v1/platforms)."""

from nova_sev_attest.client import answers


class Platforms:
    """The resource; nothing of it can be changed.

    :param rest: RestClient
    """

    def __init__(self, rest):
        self._rest = rest

    def get(self, platform_id, deadline=None):
        """The platform's members.

        :raises NotFound: the project has no such platform
        """
        answer = self._rest.request('GET', f'/v1/platforms/{platform_id}',
                                    deadline=deadline)
        return answers.member(answer.body, 'platform', dict)

    def list(self, host=None, root=None, emulated=None, last_verdict=None,
             sort=None, limit=None, marker=None, deadline=None):
        """One page of platforms, and the marker of the next page or None.

        :param emulated: only emulated ones, only others, None for both
        :param last_verdict: 'verified' or 'refused'
        :param sort: such as 'host:asc,last_seen_at:desc'
        """
        return self._rest.page('/v1/platforms', 'platforms', {
            'host': host, 'root': root,
            'emulated': answers.flag(emulated),
            'last_verdict': last_verdict, 'sort': sort, 'limit': limit,
            'marker': marker}, deadline)

    def each(self, host=None, root=None, emulated=None, last_verdict=None,
             sort=None, deadline=None):
        """Every platform, chosen as in list(); an iterator."""
        return self._rest.items('/v1/platforms', 'platforms', {
            'host': host, 'root': root,
            'emulated': answers.flag(emulated),
            'last_verdict': last_verdict, 'sort': sort}, deadline)
