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

"""sev-attest: the guest owner's offline tool.

Everything heavy is imported by the command that needs it, so that ``--help``
answers at once.
"""

import argparse
import importlib
import logging
import sys

from cliff import app
from cliff import commandmanager

NAME = 'sev-attest'
_PACKAGE = 'nova_sev_attest.cmd.sev_attest'

#: Command -> where it is, and what --help says of it.
_COMMANDS = {
    'digest compute': ('digest:Compute', 'compute a launch digest'),
    'firmware inspect': ('firmware:Inspect',
                         'tell whether firmware can be used, and why not'),
    'launch explain': ('launch:Explain',
                       'say what differs when a measurement does not match'),
    'measurement verify': ('measurement:Verify',
                           'verify a launch measurement'),
    'platform verify': ('platform:Verify',
                        "verify a platform's certificates up to its root"),
    'secret pack': ('secret:Pack',
                    'encrypt secrets to a launch whose measurement holds'),
    'session create': ('session:Create',
                       'make a launch session for a platform that holds'),
}


class _Lazy:
    """A command that is imported when it is called."""

    def __init__(self, name, place):
        self.name = name
        self.value = f'{_PACKAGE}.{place}'

    def load(self):
        module, _, attribute = self.value.partition(':')
        return getattr(importlib.import_module(module), attribute)


class _Commands(commandmanager.CommandManager):

    def _load_commands(self):
        for name, (place, _) in _COMMANDS.items():
            self.commands[name] = _Lazy(name, place)


class _Help(argparse.Action):
    # cliff's own loads every command and reads the metadata of every
    # installed distribution first.
    def __call__(self, parser, namespace, values, option_string=None):
        parser.print_help()
        print('\nCommands:')
        for name, (_, text) in _COMMANDS.items():
            print(f'  {name:<20}{text}')
        print(f'\n"{NAME} COMMAND --help" tells the options of a command.\n'
              'Exit status: 0 it holds, 1 refused, 2 unusable input.')
        parser.exit()


def _version():
    from importlib import metadata
    try:
        return metadata.version('nova-sev-attest')
    except metadata.PackageNotFoundError:
        return 'not installed'


class _Version(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        print(NAME, _version())
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Takes what stands before the command, and --debug anywhere."""

    def parse_known_args(self, args=None, namespace=None):
        first = next((at for at, word in enumerate(args)
                      if not word.startswith('-')), len(args))
        rest = [word for word in args[first:] if word != '--debug']
        leading = args[:first]
        if len(rest) < len(args) - first:
            leading = [*leading, '--debug']
        namespace, unknown = super().parse_known_args(leading, namespace)
        if unknown:
            self.error(f'unknown option {unknown[0]}')
        return namespace, rest

    def error(self, message):
        self.exit(2, f'{NAME}: {message}; see "{NAME} --help"\n')


class SevAttest(app.App):
    """The application."""

    NAME = NAME

    def __init__(self, **streams):
        super().__init__(
            description=(
                'Attest the launch of AMD SEV and SEV-ES guests on a machine '
                'that you trust. Uses files only; the network is used by '
                '--fetch-cek alone.'),
            version=None, command_manager=_Commands(), **streams)

    def build_option_parser(self, description, version, argparse_kwargs=None):
        parser = _Parser(
            prog=NAME, description=description, add_help=False,
            allow_abbrev=False, usage=f'{NAME} [options] COMMAND ...')
        parser.add_argument('-h', '--help', action=_Help, nargs=0,
                            help='show this and exit')
        parser.add_argument('--version', action=_Version, nargs=0,
                            help='show the version and exit')
        parser.add_argument('--debug', action='store_true',
                            help='show where an error came from')
        parser.set_defaults(verbose_level=self.DEFAULT_VERBOSE_LEVEL,
                            log_file=None)
        return parser

    def configure_logging(self):
        # An error is one line; what led to it is logged for --debug.
        logging.getLogger('nova_sev_attest').addHandler(
            logging.StreamHandler(self.stderr) if self.options.debug
            else logging.NullHandler())

    def interact(self):
        # Without a command cliff would start a shell, and its return value
        # would be lost.
        self.parser.error('a command is needed')

    def run_subcommand(self, argv):
        # cliff's answers 1 to what it does not know, which means "refused"
        # here.
        try:
            self.command_manager.find_command(argv)
        except ValueError:
            print(f'{NAME}: there is no command "{" ".join(argv)}"; see '
                  f'"{NAME} --help"', file=self.stderr)
            return 2
        return super().run_subcommand(argv)


def main(argv=None):
    """Run a command.

    :returns: exit status: 0 it holds, 1 refused, 2 unusable input.
    """
    return SevAttest().run(sys.argv[1:] if argv is None else argv)


if __name__ == '__main__':
    sys.exit(main())
