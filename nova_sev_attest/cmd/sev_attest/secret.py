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

"""sev-attest secret pack."""

import argparse
import re
import uuid

from nova_sev_attest.cmd.sev_attest import base
from nova_sev_attest.cmd.sev_attest import measurement
from nova_sev_attest import files
from nova_sev_attest.launch import secret

_SECRET = re.compile(r'([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})'
                     r'[:=](.+)', re.DOTALL)


def _secret(text):
    found = _SECRET.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f'{text!r}: expected GUID:FILE, such as '
            f'{secret.LUKS_PASSPHRASE_GUID}:passphrase.bin')
    return uuid.UUID(found[1]), found[2]


class Pack(base.Command):
    """Encrypt secrets to one launch, once its measurement was verified.

    Shows libvirt's sev-secret-header, sev-secret and sev-secret-set-address,
    the first two in base64, and writes them to files when asked to. A launch
    gets its secrets once: do not pack others under the same keys.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        measurement.add_arguments(parser)
        group = parser.add_argument_group('the secrets')
        group.add_argument('--tek', metavar='FILE', required=True,
                           help="the launch's TEK, 16 bytes")
        group.add_argument('--secret', metavar='GUID:FILE', action='append',
                           required=True, type=_secret, dest='secrets',
                           help='the file has the secret as the guest reads '
                                'it; a final end of line is part of it')
        group.add_argument('--header', metavar='FILE',
                           help='write the header here, in base64')
        group.add_argument('--payload', metavar='FILE',
                           help='write the encrypted secrets here, in base64')
        return parser

    def take_action(self, parsed_args):
        if (parsed_args.header is None) != (parsed_args.payload is None):
            raise files.Unusable('--header and --payload go together')
        reader = files.Reader()
        verified, columns, image = measurement.verify(parsed_args, reader)
        if image is None:
            raise files.Unusable(
                'with --digest, give the one --firmware that was launched: '
                'it says where secrets go')
        secrets = {}
        for guid, path in parsed_args.secrets:
            if guid in secrets:
                raise files.Unusable(f'secret {guid} is given twice')
            secrets[guid] = reader.read(path, secret.MAX_SIZE, 'a secret')
        released = verified.release(secrets, image.require_secret_area())
        header = files.encode(released.packet.header)
        payload = files.encode(released.packet.data)
        if parsed_args.header is not None:
            self.pending = {parsed_args.header: (header, files.PUBLIC),
                            parsed_args.payload: (payload, files.PUBLIC)}
        return base.row({**columns, 'secret_area': f'{released.gpa:#x}',
                         'secret_header': header.decode(),
                         'secret': payload.decode()})
