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

"""Who asks: the request's identity, as keystonemiddleware confirmed it."""

from oslo_context import context


class RequestContext(context.RequestContext):
    """Identity of one request; auth_token is the caller's own token."""

    def __repr__(self):
        # The base class has no repr of its own; keep the token out for good.
        return (f'<RequestContext {self.request_id} user={self.user_id} '
                f'project={self.project_id}>')
