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

"""sev-attest session create."""

from nova_sev_attest.cmd.sev_attest import base
from nova_sev_attest.cmd.sev_attest import options
from nova_sev_attest.cmd.sev_attest import rules
from nova_sev_attest import files


class Create(base.Command):
    """Make a launch session for one launch on a platform.

    The platform is verified, and held to your rules, first. Writes
    NAME_godh.b64 and NAME_session.b64 for the host (libvirt's dhCert and
    session) and NAME_tek.bin and NAME_tik.bin, which never leave you.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        options.add_platform(parser)
        rules.add_platform(parser)
        group = parser.add_argument_group('the session')
        group.add_argument('--name', default='vm',
                           help="beginning of the files' names (default: vm)")
        group.add_argument('--directory', metavar='DIR', default='.',
                           help='where to write (default: here)')
        chosen = group.add_mutually_exclusive_group()
        chosen.add_argument('--mode', choices=sorted(options.TECHNOLOGIES),
                            help='makes the strictest policy for it '
                                 '(default: sev, policy 0x3b)')
        chosen.add_argument('--policy', metavar='WORD', type=options.number,
                            help='policy word to use in place of it')
        group.add_argument('--min-api', metavar='MAJOR.MINOR',
                           type=options.version,
                           help='oldest SEV API accepted; with --mode. It '
                                'goes into the policy word, and the platform '
                                'refuses to start the guest on an older one')
        return parser

    def take_action(self, parsed_args):
        from nova_sev_attest.launch import policy as launch_policy
        from nova_sev_attest.launch import session

        if parsed_args.policy is not None and parsed_args.min_api:
            raise files.Unusable(
                '--min-api goes with --mode; a policy word has its own')
        reader = files.Reader()
        wanted = rules.read(parsed_args, reader)
        wanted.require_chip(parsed_args)
        min_api = wanted.min_api or (0, 0)
        if parsed_args.policy is None:
            policy = launch_policy.LaunchPolicy.for_technology(
                options.TECHNOLOGIES[parsed_args.mode or 'sev'], min_api)
        else:
            policy = launch_policy.LaunchPolicy.parse(parsed_args.policy)
            if policy.min_api < min_api:
                raise files.Unusable(
                    f'--policy {policy.word:#x} lets the guest start with '
                    f'API {{}}.{{}}, and the rules ask for {{}}.{{}}: that '
                    f'would be the word {{:#x}}'.format(
                        *policy.min_api, *min_api, launch_policy.LaunchPolicy(
                            policy.flags, min_api).word))
        if '/' in parsed_args.name or not parsed_args.name:
            raise files.Unusable(
                f'--name {parsed_args.name!r}: expected a name without a '
                f'slash; --directory says where')
        platform, _ = options.platform(parsed_args, reader)
        wanted.admit(platform)
        made = session.create_session(platform, policy)
        paths = files.session_paths(parsed_args.name, parsed_args.directory)
        self.pending = {
            paths['tek']: (made.keys.tek, files.PRIVATE),
            paths['tik']: (made.keys.tik, files.PRIVATE),
            paths['godh']: (files.encode(made.godh_certificate),
                            files.PUBLIC),
            paths['session']: (files.encode(made.session), files.PUBLIC)}
        return base.row({
            **options.platform_facts(platform),
            'rules': wanted.shown(),
            'policy': f'{policy.word:#x}',
            **{f'{kind}_file': str(path) for kind, path in paths.items()}})
