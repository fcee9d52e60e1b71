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

"""sev-attest platform verify."""

from nova_sev_attest.cmd.sev_attest import base
from nova_sev_attest.cmd.sev_attest import options
from nova_sev_attest.cmd.sev_attest import rules
from nova_sev_attest import files


class Verify(base.Command):
    """Verify a platform's certificates up to AMD's root, and your rules.

    AMD's own roots are known by their fingerprints. A platform that breaks a
    rule is refused, and the rule named.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        options.add_platform(parser)
        rules.add_platform(parser)
        group = rules.add_firmware(parser)
        group.add_argument('--api', metavar='MAJOR.MINOR',
                           type=options.version,
                           help='SEV API version that the host says it has; '
                                'proven by its evidence only')
        group.add_argument('--build', metavar='N', type=options.number,
                           help='build of it, likewise')
        return parser

    def take_action(self, parsed_args):
        reader = files.Reader()
        wanted = rules.read(parsed_args, reader)
        wanted.require_chip(parsed_args)
        if (wanted.min_api is not None and parsed_args.api is None or
                wanted.min_build is not None and parsed_args.build is None):
            raise files.Unusable(
                'a minimum API version or build is held against --api and '
                '--build, which certificates do not tell: give what the host '
                'says (sevctl show version), or leave that rule to '
                '"measurement verify"')
        platform, bundle = options.platform(parsed_args, reader)
        wanted.admit(platform)
        if wanted.min_api is not None:
            wanted.admit_firmware(parsed_args.api, parsed_args.build or 0)
        return base.row({
            **options.platform_facts(platform),
            'rules': wanted.shown(),
            'recognised': base.Shown(
                dict(bundle.recognised), '\n'.join(
                    f'{name}: {what}'
                    for name, what in bundle.recognised.items()))})
