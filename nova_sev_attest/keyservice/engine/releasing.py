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

"""What a launch that verified gets."""

import uuid

from oslo_log import log as logging

from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.stores import base as store_base

LOG = logging.getLogger(__name__)


class Releasing:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts

    def fetch(self, content, project_id):
        try:
            found = self._parts.store.fetch(content.secrets.values(),
                                            project_id)
        except store_base.SecretUnavailable as exc:
            raise errors.Denied(
                'secret_unavailable',
                'A secret of the policy cannot be read; its owner must grant '
                'the key service read access to it.',
                {'store': str(exc)}) from exc
        except store_base.SecretTooLarge as exc:
            raise errors.Denied(
                'secret_too_large', 'A secret of the policy is too large.',
                {'store': str(exc)}) from exc
        except store_base.SecretEmpty as exc:
            raise errors.Denied(
                'secret_empty', 'A secret of the policy is empty.',
                {'store': str(exc)}) from exc
        except store_base.StoreUnavailable as exc:
            LOG.warning('A secret cannot be fetched now: %s', exc)
            raise errors.Unavailable(
                'secret_store_unavailable',
                'The secret store cannot be asked now; the launch stays open '
                'until it expires, send the same evidence again.') from exc
        return {uuid.UUID(guid): found[secret_id]
                for guid, secret_id in content.secrets.items()}
