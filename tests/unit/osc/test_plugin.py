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

import argparse
from importlib import metadata
import subprocess
import sys

import pytest

from nova_sev_attest.osc import plugin

COMMANDS = metadata.entry_points(group='openstack.attestation.v1')


def test_version_option(monkeypatch):
    monkeypatch.delenv('OS_ATTESTATION_API_VERSION', raising=False)
    parser = plugin.build_option_parser(argparse.ArgumentParser())
    assert parser.parse_args([]).os_attestation_api_version == '1'
    assert parser.parse_args(['--os-attestation-api-version', '1.0']) \
        .os_attestation_api_version == '1.0'


def test_commands_are_found():
    extension, = (each for each in metadata.entry_points(
        group='openstack.cli.extension') if each.name == 'attestation')
    assert extension.load() is plugin
    assert len(COMMANDS) == 22


@pytest.mark.parametrize('entry', COMMANDS, ids=lambda each: each.name)
def test_help(entry):
    command = entry.load()(None, None)
    parser = command.get_parser(entry.name)
    assert parser.format_help()
    assert command.get_description()
    # Of our own options, each says what it is for.
    assert all(action.help for action in parser._actions)


def test_starting_openstack_imports_nothing_heavy():
    """Not even where all commands are loaded, as for --help."""
    code = ('import sys\n'
            'import openstackclient.shell\n'
            'before = set(sys.modules)\n'
            + ''.join(f'import {each.module}\n' for each in COMMANDS) +
            'import nova_sev_attest.osc.plugin\n'
            'print(*sorted(set(sys.modules) - before))\n')
    done = subprocess.run([sys.executable, '-c', code], check=True,
                          capture_output=True, text=True)
    assert {name for name in done.stdout.split() if not name.startswith(
        'nova_sev_attest.osc')} == set()
