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

"""sev-attest launch explain."""

import os
import time

from nova_sev_attest.cmd.sev_attest import base
from nova_sev_attest.cmd.sev_attest import options
from nova_sev_attest import files


class Explain(base.Command):
    """Say what differs when a measurement is not that of what you allow.

    Tries the known candidates: those of the options, every number of vCPUs up
    to 64, CPU model, launch profile and policy word. The explanation is for
    you: the "summary" alone may be told to the operator.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        options.add_evidence(parser)
        options.add_launch(parser, many=True)
        group = parser.add_argument_group(
            'what is known', 'What may have been launched in place of it; '
            'each may be given several times.')
        for name, metavar, text in (
                ('firmware', 'FILE', None), ('kernel', 'FILE', None),
                ('initrd', 'FILE', None),
                ('append', 'LINE', 'kernel command line'),
                ('tik', 'FILE', 'TIK of another launch'),
                ('measurement', 'FILE', 'measurement of an earlier launch')):
            group.add_argument(f'--known-{name}', metavar=metavar, help=text,
                               action='append', default=[])
        group.add_argument('--seconds', type=float, default=10.0,
                           help='how long to try (default: 10)')
        return parser

    def take_action(self, parsed_args):
        from nova_sev_attest.launch import diagnosis

        reader = files.Reader()
        shown = options.evidence(parsed_args, reader)
        if not parsed_args.firmware:
            raise files.Unusable(
                'give --firmware and what should have been launched with it')
        launch = options.Launch(parsed_args, reader, shown.technology)
        launch.expected_digests()  # refuses what cannot be launched
        known = self._known(parsed_args, reader, launch)
        found = diagnosis.diagnose(
            shown.keys, shown.policy, shown.evidence, launch.lists,
            launch.firmwares.values(), known, clock=time.monotonic,
            seconds=parsed_args.seconds)
        text = found.text
        if not shown.belongs:
            text += ('; TIK or policy are not those of the session: its '
                     'policy MAC differs')
        if found.category != 'allowed' or not shown.belongs:
            self.status = base.REFUSED
        return base.row({
            'category': found.category, 'summary': found.summary,
            'explanation': text,
            'differs': base.Shown(
                [each.input for each in found.differences],
                ', '.join(each.input for each in found.differences)),
            'checked': found.checked, 'complete': found.complete})

    def _known(self, args, reader, launch):
        from nova_sev_attest.launch import diagnosis
        from nova_sev_attest.launch import session

        for path in args.known_firmware:
            launch.add_firmware(path, reader)
        for path in args.known_kernel:
            launch.add_hash('kernels', path, reader)
        for path in args.known_initrd:
            launch.add_hash('initrds', path, reader)
        names = {kind: {sha256: os.path.basename(path)
                        for sha256, path in found.items()}
                 for kind, found in launch.names.items()}
        sessions = {}
        for path in args.known_tik:
            sessions[path] = session.TransportKeys(
                bytes(session.KEY_SIZE), reader.key(path, 'TIK'))
        return diagnosis.Known(
            **names, command_lines=tuple(args.known_append),
            sessions=sessions,
            measurements={options.read_measurement(path, reader): path
                          for path in args.known_measurement})
