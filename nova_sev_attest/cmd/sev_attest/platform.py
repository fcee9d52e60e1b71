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
from nova_sev_attest.cmd.sev_attest import files
from nova_sev_attest.cmd.sev_attest import options


class Verify(base.Command):
    """Verify a platform's certificates up to AMD's root.

    AMD's own roots are known by their fingerprints.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        options.add_platform(parser)
        return parser

    def take_action(self, parsed_args):
        platform, bundle = options.platform(parsed_args, files.Reader())
        return base.row({
            **options.platform_facts(platform),
            'recognised': base.Shown(
                dict(bundle.recognised), '\n'.join(
                    f'{name}: {what}'
                    for name, what in bundle.recognised.items()))})
