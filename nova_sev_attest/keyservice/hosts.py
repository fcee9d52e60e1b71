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

"""Which compute host a credential is good for."""

from nova_sev_attest.keyservice import errors

PER_HOST = 'per-host'
SHARED = 'shared'


def are_claims(conf):
    """Whether the host that begins a launch is its own claim."""
    return conf.launches.host_credentials == SHARED


class HostCredentials:
    """Holds the host that a launch names to the caller's credential.

    :param conf: ConfigOpts with the group [launches]
    """

    def __init__(self, conf):
        self._shared = are_claims(conf)
        self._domain = conf.launches.host_user_domain
        self._prefix = conf.launches.host_user_prefix
        self._hosts = conf.launches.host_users

    def check(self, context, host):
        """Refuse a host that the caller's credential is not for.

        :param context: RequestContext
        :param host: name of the compute host, as Nova has it
        :raises Forbidden: another user, or a user of another domain
        """
        if self._shared:
            return
        # User names are unique within a domain only.
        user = (context.user_name
                if context.user_domain_name == self._domain else None)
        if user is None or self._host(user) != host:
            raise errors.Forbidden(
                'host_credential_mismatch',
                f'The credential of user {context.user_name} of domain '
                f'{context.user_domain_name} does not speak for host {host}. '
                f'Each host needs a user of its own, named '
                f'{self._prefix}<host> or listed in [launches] host_users of '
                f'the key service; clouds whose hosts share one user set '
                f'[launches] host_credentials to "{SHARED}".')

    def _host(self, user):
        if user in self._hosts:
            return self._hosts[user]
        if user.startswith(self._prefix):
            return user.removeprefix(self._prefix)
        return None
