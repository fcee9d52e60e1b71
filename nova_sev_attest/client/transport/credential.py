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

"""The credential of the group [sev_attest], for every transport."""

from keystoneauth1 import exceptions as ksa_exceptions
from keystoneauth1 import loading as ks_loading
from oslo_log import log as logging

from nova_sev_attest.client import attempts
from nova_sev_attest.client import exceptions
from nova_sev_attest.client import replies
from nova_sev_attest.conf import driver as options

LOG = logging.getLogger(__name__)


def load_session(conf):
    """A keystoneauth session with the credential.

    It is the service's of that group, never the user's token: many boots have
    no user, and the key service believes none here.

    :param conf: ConfigOpts with the group [sev_attest]
    :raises ServiceUnavailable: there is no credential, or none that can be
        used
    """
    group = options.GROUP.name
    try:
        auth = ks_loading.load_auth_from_conf_options(conf, group)
        session = ks_loading.load_session_from_conf_options(
            conf, group, auth=auth)
    except ksa_exceptions.ClientException as error:
        raise exceptions.ServiceUnavailable(
            f'The credential in [{group}] of nova.conf cannot be used: '
            f'{error}') from None
    if auth is None:
        raise exceptions.ServiceUnavailable(
            f'[{group}] of nova.conf names no credential for the key '
            f'service: set auth_type and what it needs.')
    return session


class Tokens:
    """Keystone tokens of the credential, renewed before they expire."""

    def __init__(self, conf):
        self._session = load_session(conf)

    def get(self):
        """A token that is good as far as one can tell here.

        :raises Retriable: keystone cannot be reached now
        :raises ServiceUnavailable: keystone refuses the credential
        """
        try:
            return self._session.get_token()
        except ksa_exceptions.RetriableConnectionFailure as error:
            self._log(error)
            raise attempts.Retriable('keystone cannot be reached') from None
        except ksa_exceptions.ClientException as error:
            self._log(error)
            raise exceptions.ServiceUnavailable(
                f'No token for the key service could be had of keystone '
                f'({type(error).__name__}); the log of the service that '
                f'asked tells why.') from None

    def renew(self, token):
        """Let the next token be another than this, which was refused.

        Raises what get() does.
        """
        if self.get() == token:
            self._session.invalidate()

    @staticmethod
    def _log(error):
        LOG.warning('Key service: no token: %s', replies.clean(str(error)))
