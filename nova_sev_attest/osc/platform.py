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

"""openstack attestation platform ..."""

from nova_sev_attest.osc import base
from nova_sev_attest.osc import columns
from nova_sev_attest.osc import names


class List(base.Lister):
    """List platforms: the machines that launches were begun on.

    A project sees those of its own launches.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--host', metavar='<host>',
                            help='Only platforms of this compute host')
        parser.add_argument('--root', metavar='<root>',
                            help='Only platforms below this root, such as '
                                 'amd-milan')
        kind = parser.add_mutually_exclusive_group()
        kind.add_argument('--emulated', action='store_true', default=None,
                          help='Only emulated platforms')
        kind.add_argument('--genuine', action='store_false',
                          dest='emulated', help='Only others')
        parser.add_argument('--verdict', choices=('verified', 'refused'),
                            help='Only platforms whose last launch got this')
        parser.add_argument('--sort', metavar='<key>[:<direction>]',
                            help='Keys first_seen_at, last_seen_at and host')
        parser.add_argument('--long', action='store_true',
                            help='Show all that is known')
        return parser

    def take_action(self, parsed_args):
        found = self.client.platforms.each(
            host=parsed_args.host, root=parsed_args.root,
            emulated=parsed_args.emulated, last_verdict=parsed_args.verdict,
            sort=parsed_args.sort)
        shown = ['id', 'host', 'root', 'emulated', 'last_verdict',
                 'last_seen_at']
        titles = ['ID', 'Host', 'Root', 'Emulated', 'Last Verdict',
                  'Last Seen At']
        if parsed_args.long:
            shown += ['api_version', 'build', 'last_attested_at',
                      'cek_fingerprint', 'chip_id']
            titles += ['API Version', 'Build', 'Last Attested At',
                       'CEK Fingerprint', 'Chip ID']
        return columns.table(found, shown, titles)


class Show(base.ShowOne):
    """Show a platform."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('platform', metavar='<platform>',
                            help='Id of the platform, or name of its host')
        return parser

    def take_action(self, parsed_args):
        return columns.row(names.platform(self.client,
                                          parsed_args.platform))
