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

"""sev-attest firmware inspect."""

from nova_sev_attest.cmd.sev_attest import base
from nova_sev_attest import files


def _area(area):
    if area is None:
        return None
    return base.Shown({'base': area.base, 'size': area.size},
                      f'{area.size:#x} bytes at {area.base:#x}')


class Inspect(base.Command):
    """Show what firmware declares and whether a launch can be attested.

    Refuses (exit status 1, the reason among the columns) firmware that has
    no room for a launch secret.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('file', metavar='FILE',
                            help='OVMF image; - is the standard input')
        return parser

    def take_action(self, parsed_args):
        from nova_sev_attest.launch import errors

        image = files.Reader().firmware(parsed_args.file)
        problems = {}
        for what, require in (('secret', image.require_secret_area),
                              ('kernel', image.require_hash_table)):
            try:
                require()
            except errors.FirmwareUnusable as exc:
                problems[what] = str(exc)
        if 'secret' in problems:
            self.status = base.REFUSED
        return base.row({
            'sha256': image.sha256.hex(),
            'size': image.size,
            'secret_area': _area(image.secret_area),
            'hash_table': _area(image.hash_table_area),
            'reset_eip': (None if image.reset_eip is None else base.Shown(
                image.reset_eip, f'{image.reset_eip:#x}')),
            'other_entries': base.Shown(
                [{'guid': str(entry.guid), 'size': entry.size}
                 for entry in image.other_entries],
                '\n'.join(f'{entry.guid}: {entry.size} bytes'
                          for entry in image.other_entries)),
            'usable': 'secret' not in problems,
            'usable_with_kernel': not problems,
            'several_sev_es_vcpus': image.reset_eip is not None,
            'reason': '; '.join(dict.fromkeys(problems.values())) or None})
