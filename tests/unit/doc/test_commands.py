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

"""Every command that the documentation shows is one, and a test runs it.

What a command is says tests/documented.py. Each is parsed by the program's own
parser, and each has to be found in RUN, ALIKE or UNTESTED.
"""

import argparse
import ast
import configparser
import dataclasses
import functools
import importlib
from importlib import metadata
from importlib import util
import os
import re
import types

import pytest

from nova_sev_attest.cmd import manage
from nova_sev_attest.cmd.sev_attest import app as sev_attest
from tests import documented


@dataclasses.dataclass(frozen=True)
class By:
    """Who runs commands.

    :ivar who: a test, as pytest names it; or for ALIKE and UNTESTED why
        that has to do
    :ivar commands: regular expressions, each of whole commands
    :ivar page: only those in blocks of this page
    """

    who: str
    commands: tuple
    page: str | None = None

    def runs(self, command):
        where = None if command.inline else command.page
        return self.page in (None, where) and any(
            re.fullmatch(each, command.text) for each in self.commands)


_FUNCTIONAL = 'tests/functional'
_CLI = 'doc/source/cli/index.rst'
#: Commands that tests run as they stand on the page.
RUN = (
    By(f'{_FUNCTIONAL}/osc/test_documentation.py::test_the_life_of_a_policy',
       ('openstack attestation policy .*',), _CLI),
    By(f'{_FUNCTIONAL}/osc/test_documentation.py::test_a_launch_is_looked_at',
       ('openstack attestation launch (list|show|watch) .*',), _CLI),
    By(f'{_FUNCTIONAL}/osc/test_documentation.py::test_an_owner_decides',
       ('openstack attestation launch (approve|deny) .*',), _CLI),
    By(f'{_FUNCTIONAL}/osc/test_documentation.py::test_an_owners_own_eyes',
       ('openstack attestation verify .*',), _CLI),
    By(f'{_FUNCTIONAL}/osc/test_documentation.py::test_an_owner_keeps_keys',
       ('openstack attestation launch '
        '(certificates|session|evidence|secret) .*', 'sev-attest .*'), _CLI),
    By(f'{_FUNCTIONAL}/osc/test_documentation.py::test_the_readme',
       ('openstack attestation .*',), 'README.rst'),
    By(f'{_FUNCTIONAL}/sev_attest/test_documentation.py::test_the_page',
       ('sev-attest .*',), 'doc/source/sev_attest.rst'),
    By(f'{_FUNCTIONAL}/keyservice/test_documentation.py::'
       f'test_every_command_of_the_operator',
       ('nova-sev-attest-manage (?!amd-root).*',)),
    By(f'{_FUNCTIONAL}/packaging/test_extras.py::test_pip_installs',
       (r"pip install '?nova-sev-attest(\[[a-z,]+\])?'?",)),
    By(f'{_FUNCTIONAL}/packaging/conftest.py::built',
       ('tools/build.sh .*',)),
    By(f'{_FUNCTIONAL}/osc/test_documentation.py::test_the_life_of_a_policy',
       ('openstack attestation policy (set|unset) .*',),
       'doc/source/user/index.rst'),
    By('tests/lab/test_user_guide.py::test_it_goes_as_written', ('.*',),
       'doc/source/user/index.rst'),
    By('tests/lab/test_walkthrough.py::test_it_goes_as_written', ('.*',),
       'doc/source/owner/walkthrough.rst'),
    By('tests/lab/test_documentation.py::test_the_page_of_the_lab',
       ('source .lab/openrc .*', 'openstack server list',
        'tools/lab (status|stop|up barbican).*')),
    By('tests/lab/test_documentation.py::'
       'test_a_flavor_can_demand_a_host_that_attests',
       ('openstack flavor set .*',), 'doc/source/operator/compute.rst'),
    By('tests/lab/conftest.py::layout', ('tools/lab (up|down)( +#.*)?',)),
)
#: Commands whose work tests do by what lies beneath the command.
ALIKE = (
    By(f'{_FUNCTIONAL}/trust/test_manage.py::test_all',
       ('nova-sev-attest-manage amd-root fetch .*',)),
    By(f'{_FUNCTIONAL}/devstack/test_plugin.py::test_accounts_and_endpoint',
       ('openstack (user|role|service|endpoint) (create|add|show) .*',)),
    By('tests/lab/test_demo.py::test_the_demo_holds',
       ('tools/demo.sh .*',)),
    By('tests/unit/lab/test_lab.py::test_reset_keeps_what_was_downloaded',
       ('tools/lab reset.*',)),
    By(f'{_FUNCTIONAL}/osc/test_policies.py::test_list_show_delete',
       ('openstack attestation policy list',)),
    By('tests/lab/test_user_actions.py::'
       'test_each_action_has_the_outcome_that_is_promised',
       ('openstack (compute service set|server evacuate) .*',
        'openstack server reboot --hard web-1',
        'tools/lab stop nova-compute .*',
        'python -m tests.lab.user_actions')),
    By('tests/lab/test_crash_matrix.py::'
       'test_what_dies_in_a_launch_leaves_nothing_behind',
       ('python -m tests.lab.crash_matrix( --quick)?',)),
    By('tests/lab/test_disks.py::'
       'test_a_whole_debian_boots_from_its_encrypted_root',
       ('python -m devstack.lab.guest.debian .*',
        'apt-get install mmdebstrap')),
    By('tests/lab/test_emulator.py::test_guest_gets_its_secret',
       (r'python3 compute_root.py .*', 'cd nova-sev-attest/devstack/lab',
        'python3 -m nova_sev_attest.emulator .*', 'virsh .*')),
    By('tests/lab/conftest.py::project',
       ('openstack acl user add .*', 'openstack image set .*')),
    By('tests/lab/test_rpc.py::test_server_boots_attested',
       ('LAB_TRANSPORT=rpc tools/lab up',)),
    By('devstack/lab/cloud.py::make_flavors',
       ('openstack flavor create .*',)),
    By('tests/lab/conftest.py::boot', ('openstack server create .*',)),
    By('tests/openbao/test_castellan.py::test_people_write_to_their_project_'
       'only', (r'ID=\$\(uuidgen\)', r'printf .* bao kv put .*')),
    By('tests/unit/benchmarks/test_core.py::test_command',
       ('python -m benchmarks.core',)),
    By('tests/unit/benchmarks/test_start.py::test_every_figure_is_there',
       ('python -m benchmarks.start',)),
    By('tests/unit/benchmarks/test_boot.py::'
       'test_pairs_are_compared_by_their_medians',
       ('python -m benchmarks.boot',)),
)
#: Commands that are runs of tests themselves, or need a network or hours.
UNTESTED = (
    By('is a run of tests', ('tools/test.sh .*', 'tox -e .*',
                             '.*python -m pytest .*')),
    By('installs from a package index', ('tools/sbom.sh .*',)),
    By('takes hours at this size', ('python -m benchmarks.keyservice .*',)),
    By('says what not to do', ('pip (un)?install( -e| --target)?',)),
    By('is others\' work', ('pip install uwsgi',)),
)


# What the shell puts in place, and something that any option takes.
_EXPANSION = re.compile(r'\$\(cat /proc/[^)]*\)|\$[A-Z][A-Z0-9_]*')
_VALUE = '5f0e2c1a00004000800000000000beef'


class _Parsed(Exception):
    """The program's parser took its arguments."""


@pytest.fixture
def parse_only(monkeypatch):
    """A function that runs a main() until its arguments are parsed."""
    original = argparse.ArgumentParser.parse_args

    def parse(self, args=None, namespace=None):
        original(self, args, namespace)
        raise _Parsed

    def run(module, words):
        monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse)
        monkeypatch.setattr('sys.argv', [module, *words])
        with pytest.raises(_Parsed):
            importlib.import_module(module).main()

    return run


def _cut(parser, words):
    """Words without "...", which stands for what a parser requires."""
    if '...' in words:
        for action in parser._actions:
            action.required = False
        for group in parser._mutually_exclusive_groups:
            group.required = False
    return [word for word in words if word != '...']


def _longest(names, words):
    """The name of a command that words begin with; '' where there is none."""
    return max((name for name in names
                if words[:len(name.split())] == name.split()),
               key=len, default='')


@functools.cache
def _openstack_commands():
    # Of several versions of an API, the last.
    groups = sorted(group for group in metadata.entry_points().groups
                    if group.startswith('openstack.'))
    return {entry.name.replace('_', ' '): entry for group in groups
            for entry in metadata.entry_points(group=group)}


def _parse(command, parse_only):
    """Have a command parsed by its program; fails where it is refused."""
    # Options in brackets may be left out.
    words = documented.Command(
        command.page, _EXPANSION.sub(_VALUE, command.text)).words
    words = [word.strip('[]') for word in words]
    program, words = words[0], words[1:]
    if program in ('openstack', 'sev-attest'):
        names = (_openstack_commands() if program == 'openstack' else {
            name: sev_attest._Lazy(name, place)
            for name, (place, _) in sev_attest._COMMANDS.items()})
        name = _longest(names, words)
        arguments = words[len(name.split()):]
        if command.inline and (arguments in ([], ['...'])):
            # Only named, and it may be several.
            named = ' '.join(words).removesuffix('...').strip()
            assert any(each.startswith(named) for each in names), named
            return
        assert name, f'there is no command {" ".join(words)}'
        made = names[name].load()(types.SimpleNamespace(
            client_manager=None, NAME='openstack'), None)
        parser = made.get_parser(name)
        parser.parse_args(_cut(parser, arguments))
    elif program == 'nova-sev-attest-manage':
        if command.inline and len(words) == 2:
            # Only named.
            assert words[1] in manage._COMMANDS[words[0]][1]
            return
        manage._parser().parse_args([
            'milan' if word == 'GENERATION' else word
            for word in words if word != '...'])
    elif words[:2] == ['-m', 'pytest']:
        assert all((documented.CHECKOUT / word).exists()
                   for word in words if '/' in word)
    elif program.startswith('python') and words[0] == '-m':
        module = words[1]
        found = util.find_spec(module)
        assert found is not None, module
        if found.submodule_search_locations:
            module += '.__main__'
        if words[2:] != ['daemon']:
            parse_only(module, words[2:])
    elif program.startswith('python'):
        parse_only('devstack.lab.' + words[0].removesuffix('.py'), words[1:])
    elif program == 'tools/lab':
        parse_only('devstack.lab.__main__', words)
    elif program == 'tools/demo.sh':
        parse_only('devstack.lab.demo', words)
    elif program.startswith('tools/'):
        path = documented.CHECKOUT / program
        assert os.access(path, os.X_OK), program
        for word in words:
            if word.startswith('-'):
                assert word in path.read_text()
    elif program == 'tox':
        tox = configparser.ConfigParser(interpolation=None)
        tox.read(documented.CHECKOUT / 'tox.ini')
        assert words[0] == '-e' and f'testenv:{words[1]}' in tox
    elif program == 'pip':
        setup = configparser.ConfigParser(interpolation=None)
        setup.read(documented.CHECKOUT / 'setup.cfg')
        for word in words:
            named = re.fullmatch(r'nova-sev-attest\[(.*)', word)
            for extra in named[1].split(',') if named else ():
                assert extra in setup['extras']
    else:
        assert program in _FOREIGN, f'what is {program}?'


# Programs of others, and words of the shell, which the tests named run.
_FOREIGN = ('ID=$(uuidgen)', 'apt-get', 'cd', 'printf', 'rm', 'source',
            'until', 'virsh', 'virt-qemu-sev-validate')


def test_there_are_some():
    assert len(documented.commands()) > 100
    assert len({command.page for command in documented.commands()}) > 15


@pytest.mark.parametrize(
    'command', sorted(set(documented.commands()), key=lambda command: (
        command.page, command.text)),
    ids=lambda command: f'{command.page}: {command.text}')
def test_it_is_a_command(command, parse_only):
    _parse(command, parse_only)


def _found(command):
    """The first of RUN, ALIKE and UNTESTED that has a command, or None."""
    return next((by for by in (*RUN, *ALIKE, *UNTESTED)
                 if by.runs(command)), None)


def _is_named(command, commands):
    """Whether it only names what another command does."""
    name = command.text.removesuffix('...').strip()
    return command.inline and any(
        other.text.startswith(name) for other in commands)


def test_a_test_runs_it():
    """Where this fails: have a test run what is new, and name it above."""
    run = [command for command in documented.commands() if _found(command)]
    assert [f'{command.page}: {command.text}'
            for command in documented.commands()
            if not _found(command) and not _is_named(command, run)] == []


@pytest.mark.parametrize('by', (*RUN, *ALIKE), ids=lambda by: by.who)
def test_who_runs_it_is_there(by):
    path, _, name = by.who.partition('::')
    tree = ast.parse((documented.CHECKOUT / path).read_text())
    assert name in {node.name for node in ast.walk(tree)
                    if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize('by', (*RUN, *ALIKE, *UNTESTED),
                         ids=lambda by: by.who)
def test_what_it_runs_is_there(by):
    assert any(by.runs(command) for command in documented.commands())


@pytest.mark.parametrize('path', sorted(
    (documented.CHECKOUT / 'nova_sev_attest/osc').glob('*.py')),
    ids=lambda path: path.name)
def test_what_the_client_advises_is_a_command(path):
    """In its messages and its help, where commands are quoted."""
    texts = [node.value for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Constant)
             and isinstance(node.value, str)]
    for words in re.findall(r'"openstack ([a-z -]+)', '\n'.join(texts)):
        assert _longest(_openstack_commands(), words.split()), words


def test_tools_that_are_named_are_there():
    text = '\n'.join(path.read_text() for path in documented.pages())
    for name in re.findall(r'\btools/[a-z.-]+\b', text):
        assert (documented.CHECKOUT / name).is_file(), name
