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

import subprocess
import sys

import pytest

from nova_sev_attest.cmd.sev_attest import app

COMMANDS = ('digest compute', 'firmware inspect', 'launch explain',
            'measurement verify', 'platform verify', 'secret pack',
            'session create')


@pytest.mark.parametrize('option', ['--help', '-h'])
def test_help_names_every_command(sev_attest, option):
    found = sev_attest(option)
    assert found.status == 0
    for name in COMMANDS:
        assert f'\n  {name} ' in found.out
    assert '1 refused, 2 unusable' in found.out


def test_help_imports_nothing_heavy():
    code = (
        'import sys\n'
        'from nova_sev_attest.cmd.sev_attest import app\n'
        'try:\n'
        '    app.main(["--help"])\n'
        'except SystemExit:\n'
        '    pass\n'
        'print([name for name in ("cryptography", "oslo_config",\n'
        '      "nova_sev_attest.launch.machine", "requests", "cmd2")\n'
        '      if name in sys.modules])')
    found = subprocess.run([sys.executable, '-c', code], check=True,
                           capture_output=True, text=True)
    assert found.stdout.endswith('\n[]\n')


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_its_help_and_formats(sev_attest, name):
    found = sev_attest(*name.split(), '--help')
    assert found.status == 0
    assert f'usage: sev-attest {name} ' in found.out
    for form in ('json', 'table', 'value'):
        assert form in found.out
    assert sev_attest('help', *name.split()).out == found.out


def test_version(sev_attest):
    found = sev_attest('--version')
    assert found.status == 0
    assert found.out.startswith('sev-attest ')


@pytest.mark.parametrize(('argv', 'message'), [
    ((), 'a command is needed'),
    (('--debug',), 'a command is needed'),
    (('--bogus',), 'unknown option --bogus'),
    (('frobnicate', 'it'), 'no command "frobnicate it"'),
    (('digest', 'compute'), 'required: --mode, --firmware'),
    (('digest', 'compute', '--mode', 'snp'), 'invalid choice'),
    (('firmware', 'inspect', '/nonexistent/file'),
     '/nonexistent/file: No such file or directory'),
])
def test_unusable(sev_attest, argv, message):
    found = sev_attest(*argv)
    assert found.status == 2
    assert found.out == ''
    assert message in found.error


def test_debug_shows_the_trace(sev_attest):
    for argv in (('--debug', 'firmware', 'inspect', '/dev/null'),
                 ('firmware', 'inspect', '/dev/null', '--debug')):
        found = sev_attest(*argv)
        assert found.status == 2
        assert 'Traceback' in found.err
        assert found.err.endswith('of at most 67108864\n')


def test_mistake_of_ours_is_no_refusal(sev_attest, monkeypatch):
    monkeypatch.setattr('nova_sev_attest.files.Reader',
                        lambda: 1 / 0)
    found = sev_attest('firmware', 'inspect', 'x')
    assert found.status == 2
    assert 'unexpected ZeroDivisionError' in found.error


def test_commands_are_what_is_loaded():
    assert sorted(app._COMMANDS) == list(COMMANDS)
