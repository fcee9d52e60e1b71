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

"""openstack attestation firmware ..."""

import sys

from nova_sev_attest.osc import base
from nova_sev_attest.osc import columns
from nova_sev_attest.osc import names

_BAR = 40
_SHOWN = ('sha256', 'size', 'secret_area', 'hash_table', 'project_id',
          'created_at')


def _area(area):
    if not area:
        return columns.Shown(area, 'none')
    return columns.Shown(area, f'{area["size"]:#x} bytes at '
                               f'{area["base"]:#x}')


def _row(members):
    members = {name: members[name] for name in _SHOWN}
    shown, values = columns.row(members)
    return shown, tuple(
        _area(members[name]) if name in ('secret_area', 'hash_table')
        else value for name, value in zip(shown, values))


def bar(stream, name, size):
    """A function that draws how many of so many bytes have gone, or None.

    :param stream: where to; None is returned where it is no terminal
    """
    if not stream.isatty():
        return None

    def draw(done):
        filled = _BAR * done // size
        stream.write(f'\r{name} [{"=" * filled:<{_BAR}}] '
                     f'{100 * done // size:3d}%')
        if done >= size:
            stream.write('\n')
        stream.flush()

    return draw


def upload(command, path):
    """Read a firmware from a file and upload it unless it is known.

    :returns: (the launch core's Firmware, the firmware's members)
    :raises FirmwareUnusable: it has no room for a launch secret
    """
    import os

    from nova_sev_attest.client import exceptions
    from nova_sev_attest import files
    from nova_sev_attest.launch import errors
    from nova_sev_attest.launch import firmware

    data = files.Reader().read(path, firmware.MAX_SIZE, 'a firmware')
    try:
        image = firmware.Firmware.parse(data)
    except errors.FirmwareMalformed as exc:
        raise files.Unusable(f'{path}: {exc}') from exc
    image.require_secret_area()
    try:
        known = command.client.firmwares.get(image.sha256.hex())
    except exceptions.NotFound:
        known = command.client.firmwares.upload(data, bar(
            sys.stderr, base.clean(os.path.basename(path)), len(data)))
    return image, known


class Create(base.ShowOne):
    """Upload a firmware image, which policies may then name.

    The image is inspected first. One that has no room for a launch secret is
    refused, here and by the service.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'file', metavar='<file>',
            help='OVMF image, such as edk2\'s OvmfPkg/AmdSev; - is the '
                 'standard input')
        return parser

    def take_action(self, parsed_args):
        image, members = upload(self, parsed_args.file)
        if image.hash_table_area is None:
            self.warn('This firmware measures no kernel: policies with '
                      'kernels cannot use it.')
        return _row(members)


class List(base.Lister):
    """List the project's firmwares."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--long', action='store_true',
                            help='Show where secrets and hashes go')
        return parser

    def take_action(self, parsed_args):
        found = self.client.firmwares.each()
        if parsed_args.long:
            return ('SHA-256', 'Size', 'Secret Area', 'Hash Table',
                    'Created At'), (
                (each['sha256'], each['size'], _area(each['secret_area']),
                 _area(each['hash_table']), each['created_at'])
                for each in found)
        return ('SHA-256', 'Size', 'Measures Kernels', 'Created At'), (
            (each['sha256'], each['size'], each['hash_table'] is not None,
             each['created_at']) for each in found)


class Show(base.ShowOne):
    """Show a firmware."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'firmware', metavar='<firmware>',
            help='SHA-256 of the image, its first 6 or more digits, or the '
                 'file')
        return parser

    def take_action(self, parsed_args):
        return _row(self.client.firmwares.get(
            names.firmware(self.client, parsed_args.firmware)))


class Delete(base.Command):
    """Delete firmwares that no policy names."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'firmwares', metavar='<firmware>', nargs='+',
            help='SHA-256 of the image, its first 6 or more digits, or the '
                 'file (repeat to delete several)')
        return parser

    def take_action(self, parsed_args):
        base.each(self, parsed_args.firmwares, lambda word:
                  self.client.firmwares.delete(
                      names.firmware(self.client, word)))
