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

"""sev-attest measurement verify, and what secret pack shares with it."""

import uuid

from nova_sev_attest.cmd.sev_attest import base
from nova_sev_attest.cmd.sev_attest import digest
from nova_sev_attest.cmd.sev_attest import options
from nova_sev_attest.cmd.sev_attest import rules
from nova_sev_attest import files


def add_arguments(parser):
    options.add_evidence(parser)
    options.add_launch(parser, many=True)
    parser.add_argument('--digest', metavar='HEX', action='append',
                        default=[], type=options.digest,
                        help='allow this launch digest, in place of what is '
                             'launched')
    rules.add_firmware(parser, only=True)


def verify(args, reader):
    """Verify the measurement that the options name.

    :returns: (Verified, {column: value}, Firmware of the launch or None).
    """
    from nova_sev_attest.launch import chain
    from nova_sev_attest.launch import errors
    from nova_sev_attest.launch import machine
    from nova_sev_attest.launch import profile
    from nova_sev_attest.launch import session

    wanted = rules.read(args, reader)
    shown = options.evidence(args, reader)
    technology = shown.technology
    if args.digest:
        # The digest stands for vCPUs, too; the firmware is there for its
        # secret area only.
        technology = profile.SEV
        if any(value is not None for value in (
                args.kernel, args.initrd, args.append, args.vcpus,
                args.cpu_model, args.cpu_sig, args.profile)):
            raise files.Unusable(
                '--digest stands for all that is measured: give it, or what '
                'is launched')
    launch = options.Launch(args, reader, technology)
    if not args.firmware and not args.digest:
        raise files.Unusable(
            'give --firmware and what is launched with it, or --digest')
    options.require_belongs(shown)
    found = launch.expected_digests() if not args.digest else {}
    allowed = {value: inputs.claims() for value, inputs in found.items()}
    allowed.update((value, {}) for value in args.digest)
    # The platform was verified when the session was made, and neither it nor
    # what the host got is part of the measurement.
    issued = machine.SessionIssued.restore(
        uuid.uuid4(),
        chain.PlatformFacts('not looked at', False, shown.evidence.api,
                            bytes(32)),
        session.Session(bytes(files.GODH_SIZE),
                        shown.session or bytes(session.SESSION_SIZE),
                        shown.keys, shown.policy))
    try:
        verified = issued.verify(shown.evidence, allowed)
    except errors.MeasurementMismatch as exc:
        raise errors.MeasurementMismatch(
            f'{exc}; "launch explain" with the same options looks for what '
            f'differs') from exc
    # Not before: API version and build are under the measurement.
    wanted.admit_firmware(shown.evidence.api, shown.evidence.build)
    inputs = found.get(verified.digest)
    columns = {'verified': True, 'launch_digest': verified.digest.hex(),
               'policy': f'{shown.policy.word:#x}',
               'api_version': verified.claims['api_version'],
               'build_id': verified.claims['build_id'],
               'rules': wanted.shown(firmware_only=True)}
    if inputs is not None:
        columns.update(digest.show_inputs(inputs))
        return verified, columns, launch.firmwares[inputs.firmware_sha256]
    images = list(launch.firmwares.values())
    return verified, columns, images[0] if len(images) == 1 else None


class Verify(base.Command):
    """Verify that a platform measured what you allow.

    The same TIK must have gone to a platform that was verified: see "session
    create". Secrets are given in files, never as arguments.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        add_arguments(parser)
        return parser

    def take_action(self, parsed_args):
        _, columns, _ = verify(parsed_args, files.Reader())
        return base.row(columns)
