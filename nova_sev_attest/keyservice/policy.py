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

"""Authorization through oslo.policy."""

import sys

from oslo_policy import policy

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice import policies


def make_enforcer(conf):
    """Enforcer with the documented defaults and the operator's file."""
    enforcer = policy.Enforcer(conf)
    enforcer.register_defaults(policies.list_rules())
    enforcer.load_rules()
    return enforcer


def get_enforcer():
    """Entry point of oslo.policy's command line tools."""
    # The tools parse their own options from sys.argv after this call.
    args = [arg for index, arg in enumerate(sys.argv)
            if '--config-file' in (arg, sys.argv[index - 1])
            or arg.startswith('--config-file=')]
    return make_enforcer(conf_keyservice.load(args))


class Authorizer:
    """Answers whether a request may do an operation."""

    def __init__(self, conf):
        self._enforcer = make_enforcer(conf)

    def allows(self, context, rule, project_id=None):
        """Whether the operation is allowed on what belongs to a project.

        :param project_id: owner of the target; None: the caller's project
        """
        if context.project_id is None:
            # Would equal a target that has no project either.
            return False
        if project_id is None:
            project_id = context.project_id
        try:
            return bool(self._enforcer.authorize(
                rule, {'project_id': project_id}, context, do_raise=False))
        except policy.InvalidScope:
            return False

    def require(self, context, rule, project_id=None):
        """Like allows().

        :raises Forbidden: when it is not allowed
        """
        if not self.allows(context, rule, project_id):
            raise errors.Forbidden(
                'forbidden',
                f'The operation {rule} is not allowed to the roles of this '
                f'token ({", ".join(sorted(context.roles)) or "none"}).')
