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

"""Reading from a secret store within bounds.

Whatever a store does, nobody waits for it longer than [secret_store]
deadline, and no more than max_calls of its calls run, those left behind
counted.
"""

import time

from oslo_context import context as oslo_context
from oslo_log import log as logging

from nova_sev_attest import bounded
from nova_sev_attest.keyservice.stores import base

LOG = logging.getLogger(__name__)


class SecretReader:
    """What the service asks of a store.

    :param store: SecretStore
    :param options: the group [secret_store]
    """

    def __init__(self, store, options):
        self._store = store
        self._deadline = options.deadline
        self._max_size = options.max_secret_size
        self._calls = bounded.BoundedCalls(options.max_calls,
                                           'secret-store')

    def check_readable(self, secret_ids, context):
        """Make sure that a caller may decrypt secrets.

        :param secret_ids: UUIDs as text
        :param context: RequestContext of the caller
        :raises StoreError: for one of them; its secret_id says for which
        """
        self._each(secret_ids, lambda secret_id: self._store.check_readable(
            secret_id, context))

    def fetch(self, secret_ids, project_id):
        """Read secrets for a launch that was verified.

        :param secret_ids: UUIDs as text
        :param project_id: the project of the launch
        :returns: {UUID: bytes, at least one}
        :raises StoreError: for one of them; its secret_id says for which
        """
        found = self._each(secret_ids, lambda secret_id: self._store.fetch(
            secret_id, project_id))
        for secret_id, secret in found.items():
            self._check(secret_id, secret)
        return found

    def _each(self, secret_ids, function):
        """Call a function of the store for each secret, bounded in all."""
        secret_ids = sorted(set(secret_ids))
        if not secret_ids:
            return {}
        give_up_at = time.monotonic() + self._deadline
        context = oslo_context.get_current()

        def call_all():
            if context is not None:
                # For the request id in what the store logs.
                context.update_store()
            found = {}
            for secret_id in secret_ids:
                if time.monotonic() > give_up_at:
                    # Nobody waits any more.
                    return {}
                try:
                    found[secret_id] = function(secret_id)
                except base.StoreError as failure:
                    failure.secret_id = secret_id
                    raise
            return found

        return self._bounded(call_all)

    def _check(self, secret_id, secret):
        if not isinstance(secret, bytes):
            failure = base.StoreUnavailable(
                f'the store gave a {type(secret).__name__} for secret '
                f'{secret_id}')
        elif not secret:
            failure = base.SecretEmpty(f'secret {secret_id} is empty')
        elif len(secret) > self._max_size:
            failure = base.SecretTooLarge(
                f'secret {secret_id} is larger than {self._max_size} bytes')
        else:
            return
        failure.secret_id = secret_id
        raise failure

    def _bounded(self, function):
        try:
            return self._calls.run(function, self._deadline)
        except base.StoreError:
            raise
        except bounded.Overdue:
            raise base.StoreUnavailable(
                f'the secret store took longer than {self._deadline:g} '
                f's') from None
        except bounded.TooMany:
            raise base.StoreUnavailable(
                'all calls that [secret_store] max_calls allows wait for the '
                'store') from None
        except Exception as failure:
            # Its text is not ours, and may hold what was read.
            LOG.error('The secret store failed: %s', type(failure).__name__)
            raise base.StoreUnavailable(
                f'the secret store failed: '
                f'{type(failure).__name__}') from None
