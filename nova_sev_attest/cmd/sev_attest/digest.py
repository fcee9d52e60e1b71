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

"""sev-attest digest compute."""

from nova_sev_attest.cmd.sev_attest import base
from nova_sev_attest.cmd.sev_attest import options
from nova_sev_attest import files
from nova_sev_attest.launch import profile


class Compute(base.Command):
    """Compute the launch digest that a platform will measure.

    "-f value -c digest" prints the hexadecimal digest alone.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--mode', choices=sorted(options.TECHNOLOGIES),
                            required=True)
        options.add_launch(parser, many=False)
        return parser

    def take_action(self, parsed_args):
        if None not in (parsed_args.cpu_model, parsed_args.cpu_sig):
            raise files.Unusable('give --cpu-model or --cpu-sig, not both')
        launch = options.Launch(parsed_args, files.Reader(),
                                options.TECHNOLOGIES[parsed_args.mode])
        (digest, inputs), = launch.expected_digests().items()
        return base.row({'digest': digest.hex(), **show_inputs(inputs)})


def show_inputs(inputs):
    """The columns of an expectation.Inputs."""
    claims = inputs.claims()
    columns = {name: claims.get(name) for name in (
        'technology', 'firmware_sha256', 'kernel_sha256', 'initrd_sha256',
        'command_line_sha256', 'vcpus', 'cpu_signature', 'launch_profile')}
    signature = columns['cpu_signature']
    if signature is not None:
        columns['cpu_signature'] = base.Shown(signature,
                                              profile.cpu_name(signature))
    return columns
