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

"""openstack attestation policy ..."""

from osc_lib import exceptions

from nova_sev_attest.osc import base
from nova_sev_attest.osc import columns
from nova_sev_attest.osc import content
from nova_sev_attest.osc import measured
from nova_sev_attest.osc import names

_ORDER = (
    'id', 'name', 'revision', 'is_default', 'technologies', 'trusted_roots',
    'firmwares', 'kernels', 'initrds', 'command_lines', 'vcpus',
    'cpu_models', 'cpu_signatures', 'launch_profiles', 'firmware_boot',
    'min_api_version', 'min_build', 'allowed_chips', 'allowed_owners',
    'secrets', 'verifier', 'approval', 'limits', 'rescue',
    'release_count', 'revoked_at', 'project_id', 'created_at', 'updated_at',
    'warnings')


def _row(members, known=None):
    """A policy as a row; with what it measures where that is known."""
    shown, values = columns.row(members, _ORDER)
    if known is not None and known.images:
        shown += ('measured',)
        values += (known.column(members),)
    return shown, values


class _Writing(base.ShowOne):
    """Commands that make a revision."""

    def warn_of(self, given, policy):
        for text in [*given.warnings, *given.known.warnings(policy)]:
            self.warn(text)

    def _finish(self, policy, known):
        for text in policy.get('warnings') or ():
            self.warn(text)
        return _row(policy, known)


class Create(_Writing):
    """Create a policy: what may be launched, and the secrets it gets.

    Files are hashed here. What will be measured is shown, and what cannot
    work is warned of.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('name', metavar='<name>',
                            help='Name, by which servers choose the policy')
        content.add_options(parser)
        parser.add_argument(
            '--dry-run', action='store_true',
            help='Show what would be created and measured; neither policy '
                 'nor firmware reaches the key service')
        return parser

    def take_action(self, parsed_args):
        given = content.read(self, parsed_args,
                             upload=not parsed_args.dry_run)
        if not given.lists['firmwares'] and parsed_args.verifier != 'owner':
            raise exceptions.CommandError(
                'A policy names at least one firmware, unless you verify '
                'yourself (--verifier owner): give --firmware <file>.')
        policy = {'name': parsed_args.name, **given.changes({})}
        self.warn_of(given, policy)
        if parsed_args.dry_run:
            return _row({'technologies': ['amd-sev'], **policy}, given.known)
        created = self.client.policies.create(policy).body
        return self._finish(created, given.known)


class Set(_Writing):
    """Change a policy: makes a new revision of it.

    What is given is added to the lists; an option --no-... empties a list
    first. Open launches go on under the revision that they began with.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('policy', metavar='<policy>',
                            help='Policy to change (name or ID)')
        parser.add_argument('--name', metavar='<name>', help='New name')
        content.add_options(parser, clearing=True)
        state = parser.add_mutually_exclusive_group()
        state.add_argument(
            '--revoked', action='store_true', default=None,
            help='Let nothing be launched under it any more, and deny the '
                 'launches that are open')
        state.add_argument('--not-revoked', action='store_false',
                           dest='revoked', help='Take that back')
        return parser

    def take_action(self, parsed_args):
        policy_id = names.policy(self.client, parsed_args.policy)
        policies = self.client.policies
        # Before all else: it is what one is in a hurry to do.
        if parsed_args.revoked:
            policies.revoke(policy_id)
        given = content.read(self, parsed_args)

        def decide(policy):
            changes = given.changes(policy)
            if parsed_args.name is not None:
                changes['name'] = parsed_args.name
            return {name: value for name, value in changes.items()
                    if policy.get(name) != value}

        policy = policies.change(policy_id, decide).body
        if parsed_args.revoked is False:
            policy = policies.restore(policy_id).body
        self.warn_of(given, policy)
        return self._finish(policy, given.known)


class Unset(_Writing):
    """Take something out of a policy: makes a new revision of it."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('policy', metavar='<policy>',
                            help='Policy to change (name or ID)')
        content.add_unset_options(parser)
        return parser

    def take_action(self, parsed_args):
        policy = self.client.policies.change(
            names.policy(self.client, parsed_args.policy),
            lambda policy: content.without(self, parsed_args, policy)).body
        for text in measured.Measured().warnings(policy):
            self.warn(text)
        return self._finish(policy, None)


class List(base.Lister):
    """List the project's policies."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--name', metavar='<name>',
                            help='Only the policy of this name')
        kind = parser.add_mutually_exclusive_group()
        kind.add_argument('--default', action='store_true', default=None,
                          dest='is_default',
                          help='Only the project\'s default policy')
        kind.add_argument('--not-default', action='store_false',
                          dest='is_default', help='Only others')
        state = parser.add_mutually_exclusive_group()
        state.add_argument('--revoked', action='store_true', default=None,
                           help='Only policies that are revoked')
        state.add_argument('--not-revoked', action='store_false',
                           dest='revoked', help='Only others')
        parser.add_argument('--sort', metavar='<key>[:<direction>]',
                            help='Keys name, created_at and updated_at')
        parser.add_argument('--long', action='store_true',
                            help='Show who verifies and what is allowed')
        return parser

    def take_action(self, parsed_args):
        found = self.client.policies.each(
            name=parsed_args.name, is_default=parsed_args.is_default,
            revoked=parsed_args.revoked, sort=parsed_args.sort)
        shown = ['id', 'name', 'revision', 'is_default', 'technologies',
                 'revoked_at']
        titles = ['ID', 'Name', 'Revision', 'Default', 'Technologies',
                  'Revoked At']
        if parsed_args.long:
            shown += ['verifier', 'approval', 'release_count',
                      'trusted_roots', 'firmwares', 'kernels', 'updated_at']
            titles += ['Verifier', 'Approval', 'Releases', 'Trusted Roots',
                       'Firmwares', 'Kernels', 'Updated At']
        return columns.table(found, shown, titles)


class Show(base.ShowOne):
    """Show a policy, and on demand the launch digests that it allows."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('policy', metavar='<policy>',
                            help='Policy to show (name or ID)')
        parser.add_argument('--revision', metavar='<number>', type=int,
                            help='Show this revision, not the current one')
        parser.add_argument(
            '--firmware', metavar='<file>', action='append', default=[],
            dest='firmwares',
            help='Show the launch digests with this firmware, which the '
                 'policy names (repeat for several)')
        return parser

    def take_action(self, parsed_args):
        from nova_sev_attest import files

        policy_id = names.policy(self.client, parsed_args.policy)
        if parsed_args.revision is None:
            policy = self.client.policies.get(policy_id).body
        else:
            policy = self.client.policies.revision(policy_id,
                                                   parsed_args.revision)
        known = measured.Measured()
        for path in parsed_args.firmwares:
            image = files.Reader().firmware(path)
            if image.sha256.hex() not in policy['firmwares']:
                raise exceptions.CommandError(
                    f'{path} has SHA-256 {image.sha256.hex()}, which the '
                    f'policy does not name.')
            known.add(image, path)
        return _row(policy, known)


class Delete(base.Command):
    """Delete policies. Open launches under them are denied."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'policies', metavar='<policy>', nargs='+',
            help='Policy to delete (name or ID; repeat to delete several)')
        return parser

    def take_action(self, parsed_args):
        base.each(self, parsed_args.policies, lambda word:
                  self.client.policies.delete(
                      names.policy(self.client, word)))
