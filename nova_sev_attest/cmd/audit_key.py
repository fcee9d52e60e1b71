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

"""nova-sev-attest-manage audit-key: the keys that sign the audit's heads."""

from nova_sev_attest.keyservice.audit import keys as audit_keys


def _repository(conf):
    return audit_keys.AuditKeys(conf.audit.key_repository)


def create(conf, args):
    """Make a key, which signs from now on."""
    repository = _repository(conf)
    key_id = repository.create()
    print(f'Audit key {key_id} made; it signs from now on. Copy '
          f'{repository.path} to every node of the service, and {key_id}.pub '
          f'to whoever verifies. Heads that are there get its signature with '
          f'their project\'s next record, or by "nova-sev-attest-manage '
          f'audit sign".')
    return 0


def show(conf, args):
    """List the keys."""
    repository = _repository(conf)
    private = repository.private_ids()
    for key_id in repository.public_ids():
        what = ('signs and verifies' if private[-1:] == [key_id] else
                'verifies; its private half can be retired'
                if key_id in private else 'verifies')
        print(f'{key_id}  {what}')
    return 0


def retire(conf, args):
    """Destroy the private half of a key that signs no more."""
    repository = _repository(conf)
    repository.retire(args.key)
    print(f'The private half of audit key {args.key} is deleted; its public '
          f'half still verifies. Delete it on the other nodes of the '
          f'service, too.')
    return 0


def add_retire_arguments(parser):
    parser.add_argument('key', metavar='KEY', help='id of the key')
