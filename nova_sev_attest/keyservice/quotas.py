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

"""How much a project may store; the group [quotas] says how much."""

from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import firmwares
from nova_sev_attest.keyservice.objects import policies


def _check(name, what, wanted, quota, remedy):
    """Refuse more than a quota.

    :param wanted: how much the project would have
    :param quota: how much it may have; -1: any
    """
    if -1 < quota < wanted:
        raise errors.Forbidden(
            'quota_exceeded',
            f'With this there would be {wanted} {what}, the quota is {quota}. '
            f'{remedy} The operator sets it as {name} in the group [quotas] '
            f'of the key service.')


class Quotas:
    """Checks made in the transaction that stores.

    Requests that come at the same moment do not see each other, and can
    exceed a quota by as many.

    :param conf: ConfigOpts with the group [quotas]
    """

    def __init__(self, conf):
        self._quotas = conf.quotas

    def check_firmware(self, session, project_id, size):
        """Refuse one more firmware of a project.

        :param size: of the image in bytes
        :raises Forbidden: it would be one too many, or too large
        """
        count, total = firmwares.usage(session, project_id)
        remedy = 'Delete firmwares that no policy needs.'
        _check('firmwares', 'firmwares in the project', count + 1,
               self._quotas.firmwares, remedy)
        _check('firmware_bytes', 'bytes of firmware in the project',
               total + size, self._quotas.firmware_bytes, remedy)

    def check_policies(self, session, project_id):
        """Refuse the last policy that was created in a transaction.

        :raises Forbidden: it is one too many
        """
        _check('policies', 'policies in the project',
               policies.count(session, project_id),
               self._quotas.policies, 'Delete policies that no server needs.')

    def check_revision(self, policy):
        """Refuse one more revision of a policy.

        :param policy: its current revision
        :raises Forbidden: it would be one too many
        """
        _check('policy_revisions', f'revisions of policy {policy.id}',
               policy.revision + 1, self._quotas.policy_revisions,
               'Make a new policy in its place.')
