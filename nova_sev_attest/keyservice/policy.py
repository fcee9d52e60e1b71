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

    def allows(self, context, rule):
        """Whether the caller may do an operation.

        Rules are asked about the caller's own project; what belongs to
        another one is looked for under it and not found.
        """
        if context.project_id is None and context.system_scope is None:
            # Scoped to nothing, or to a domain.
            return False
        # Never None, which would equal the project of a token without one.
        target = {'project_id': context.project_id or ''}
        try:
            return bool(self._enforcer.authorize(rule, target, context,
                                                 do_raise=False))
        except policy.InvalidScope:
            return False

    def require(self, context, rule):
        """Like allows(), for an operation within the caller's project.

        :raises Forbidden: it is not allowed, or the token has no project
        """
        if context.project_id is None or not self.allows(context, rule):
            raise forbidden(context, rule)


def forbidden(context, rule):
    """The error of an operation that is not allowed to the caller."""
    return errors.Forbidden(
        'forbidden',
        f'The operation {rule} is not allowed to the roles of this token '
        f'({", ".join(sorted(context.roles)) or "none"}) in its scope.')
