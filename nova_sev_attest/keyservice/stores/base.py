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

"""What a store of the owners' secrets offers to the key service.

A driver is named in the namespace nova_sev_attest.secret_stores and
constructed with the service's ConfigOpts.
"""

import abc


class StoreError(Exception):
    """Base of the errors; the text never holds a secret.

    :ivar secret_id: UUID of the secret that was asked for, where it is known
    """

    secret_id = None


class StoreUnavailable(StoreError):
    """The store cannot be asked now; asking again later may help."""


class SecretUnavailable(StoreError):
    """The store refuses: no such secret, or not for this identity."""


class SecretEmpty(StoreError):
    """The secret is there and holds nothing."""


class SecretTooLarge(StoreError):
    """The secret is larger than the service reads."""


class SecretMalformed(SecretUnavailable):
    """The secret is there, but not in a form that the store reads."""


class SecretStore(abc.ABC):
    """A store of secrets, each named by a UUID.

    An implementation resolves UUIDs at its configured endpoint and contacts
    nothing that a caller names. It never reads more of an answer than
    [secret_store] max_secret_size asks for, gives up what makes no progress,
    and keeps secrets out of logs, reprs and errors. It may be called from
    several threads at once. SecretReader holds each to the time and the size;
    a store of one's own is run by tests/unit/keyservice/stores/contract.py.
    """

    @abc.abstractmethod
    def check_readable(self, secret_id, context):
        """Make sure that a caller may decrypt a secret.

        Whatever proves it comes from the caller: a token of its own that the
        store accepts, or a project that keystone confirmed and whose secrets
        are kept apart. That this service could read the secret proves
        nothing.

        :param secret_id: UUID as text, in lower case with hyphens
        :param context: RequestContext of the caller, with auth_token and
            project_id
        :raises StoreError: it may not, or it cannot be found out
        """

    @abc.abstractmethod
    def fetch(self, secret_id, project_id):
        """Read a secret with the service's credential.

        Only called for a launch whose measurement was verified.

        :param secret_id: UUID as text, in lower case with hyphens
        :param project_id: the project of the launch and of the policy that
            names the secret
        :returns: bytes, at least one
        :raises StoreError: it cannot be had
        """
