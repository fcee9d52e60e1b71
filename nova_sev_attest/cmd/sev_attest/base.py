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

"""What every command of sev-attest has in common."""

import traceback
import types

from cliff import columns
from cliff import show

from nova_sev_attest import files
from nova_sev_attest.launch import errors

HOLDS, REFUSED, UNUSABLE = 0, 1, 2

_NOT_UNUSABLE = (errors.VerificationError, errors.FirmwareUnusable)


class Command(show.ShowOne):
    """A command that shows one result, and whose exit status is its verdict.

    ``self.status`` is what it exits with after showing a result; errors
    exit with theirs and show nothing on standard output.

    ``self.pending`` is what it writes, as files.write_new takes it, once
    nothing can be refused any more.
    """

    status = HOLDS
    pending = types.MappingProxyType({})

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.error = lambda message: parser.exit(
            UNUSABLE, f'{self.app.NAME}: {message}; see "{prog_name} '
                      f'--help"\n')
        return parser

    def _load_hooks(self):
        self._hooks = []  # no entry point adds to a verdict

    def get_epilog(self):
        return ''  # cliff's reads the metadata of every distribution

    def produce_output(self, parsed_args, column_names, data):
        # Raises for an unknown column before anything is written.
        self._generate_columns_and_selector(parsed_args, column_names)
        files.write_new(self.pending)
        return super().produce_output(parsed_args, column_names, data)

    def run(self, parsed_args):
        try:
            super().run(parsed_args)
            return self.status
        except BrokenPipeError:
            raise
        except Exception as exc:
            if self.app_args is not None and self.app_args.debug:
                traceback.print_exc(file=self.app.stderr)
            print(f'{self.app.NAME}: {_line(exc)}', file=self.app.stderr)
            return exit_status(exc)


def exit_status(exc):
    """What a command exits with after an error."""
    if isinstance(exc, _NOT_UNUSABLE):
        return REFUSED
    if getattr(exc, 'code', None) == 'anchor_refused':
        # A root that cannot be read is unusable; one that misses its pin or
        # does not verify is refused.
        if isinstance(exc.__cause__, (OSError, errors.FormatError)):
            return UNUSABLE
        return REFUSED
    return UNUSABLE


def _line(exc):
    if isinstance(exc, OSError) and exc.filename is not None:
        text = f'{exc.filename}: {exc.strerror}'
    elif isinstance(exc, (errors.LaunchError, files.Unusable, OSError,
                          ValueError)):
        text = str(exc)
    else:
        text = (f'unexpected {type(exc).__name__}: {exc}; please report it '
                f'with what --debug shows')
    return ' '.join(text.split())


class Shown(columns.FormattableColumn):
    """A value that JSON has as it is and people read in other words."""

    def __init__(self, value, words):
        super().__init__(value)
        self._words = words

    def human_readable(self):
        return self._words


def row(values):
    """A mapping as cliff's ShowOne takes it."""
    return tuple(values), tuple(values.values())
