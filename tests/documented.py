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

"""The commands that the documentation shows.

Of README.rst, CONTRIBUTING.rst, SECURITY.rst and the pages of doc/source:

* A literal block without a language, or in ``bash``, is commands, one a line.
  One in ``console`` has commands after the prompts ``$`` and ``#``.
* An inline literal of several words is a command if the first of them is the
  first word of a command in a block, or one of PROGRAMS.
* ``$(...)`` in a command is a command of its own.

A line goes on in the next one after a backslash and after a pipe.
"""

import dataclasses
import functools
import pathlib
import re
import shlex

from docutils import core
from docutils import nodes
from docutils.parsers.rst import roles

CHECKOUT = pathlib.Path(__file__).parents[1]
#: What is a command wherever it stands.
PROGRAMS = frozenset([
    'nova-sev-attest-manage', 'openstack', 'pip', 'python', 'python3',
    'sev-attest', 'tox'])
# Directives of Sphinx and of extensions, none of which has commands in it.
_OTHERS = frozenset([
    'api-reference', 'autoclass', 'autoprogram-cliff', 'glossary', 'include',
    'literalinclude', 'show-options', 'show-policy', 'toctree'])
_PROMPT = re.compile(r'[$#] ')


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of a page.

    :ivar page: its path below the checkout
    :ivar text: the command in one line
    :ivar inline: whether it stands in the text, where it may be but named
    """

    page: str
    text: str
    inline: bool = False

    @property
    def words(self):
        """Its words, without what the shell takes of them."""
        words = shlex.split(_without_environment(self.text), comments=True)
        return [word for word in words
                if word != '&' and not word.startswith('>')]

    @property
    def program(self):
        return _without_environment(self.text).split()[0]


def _without_environment(text):
    return re.sub(r'^([A-Z_]+=[\w.]+ +)+', '', text)


def _other(name, rawtext, text, lineno, inliner, options=None, content=None):
    return [nodes.inline(rawtext, text)], []


def _read(path):
    """A page as docutils has it; fails where part of it was not read."""
    for role in ('doc', 'ref', 'term'):
        roles.register_local_role(role, _other)
    tree = core.publish_doctree(
        path.read_text(), source_path=str(path), settings_overrides={
            'report_level': 5, 'halt_level': 5,
            'file_insertion_enabled': False, 'smart_quotes': False})
    for message in list(tree.findall(nodes.system_message)):
        said = message.astext()
        directive = re.search(r'"([a-z-]+)"', said)
        if message['level'] >= 2 and (
                directive is None or directive[1] not in _OTHERS):
            raise AssertionError(f'{path}: {said}')
        message.parent.remove(message)
    return tree


def pages():
    return [CHECKOUT / name for name in (
        'README.rst', 'CONTRIBUTING.rst', 'SECURITY.rst')] + sorted(
            (CHECKOUT / 'doc/source').rglob('*.rst'))


def _lines(block):
    """The commands of a literal block, each in one line."""
    console = 'console' in block['classes']
    if not console and set(block['classes']) - {'code', 'bash'}:
        return []
    lines = []
    open_line = False
    for line in block.astext().splitlines():
        starts = _PROMPT.match(line) if console else not open_line
        if starts and line.strip():
            lines.append(line[2:] if console else line.strip())
        elif line.strip():
            lines[-1] += ' ' + line.strip()
        open_line = line.endswith(('\\', '|'))
    return [re.sub(r'\\ +', '', line) for line in lines]


def steps(page, prefix):
    """The blocks of a page that have names, which are steps of one way.

    :param page: its path below the checkout
    :param prefix: what the names begin with, and a hyphen
    :returns: {name without the prefix: the commands as they stand}, in the
        order of the page
    """
    return {name.removeprefix(f'{prefix}-'): block.astext() + '\n'
            for block in _read(CHECKOUT / page).findall(nodes.literal_block)
            for name in block['names'] if name.startswith(f'{prefix}-')}


def _inner(text):
    return re.findall(r'\$\(((?:openstack|sev-attest) [^()]*)\)', text)


@functools.cache
def commands():
    """Every command, in the order of the pages; a tuple of Command."""
    blocks, literals = [], []
    for path in pages():
        page = str(path.relative_to(CHECKOUT))
        tree = _read(path)
        for block in tree.findall(nodes.literal_block):
            for line in _lines(block):
                blocks += [Command(page, text)
                           for text in (line, *_inner(line))]
        literals += [(page, ' '.join(literal.astext().split()))
                     for literal in tree.findall(nodes.literal)]
    programs = PROGRAMS | {command.program for command in blocks}
    return (*blocks, *(Command(page, text, inline=True)
                       for page, text in literals
                       if ' ' in text
                       and _without_environment(text).split()[0] in programs))


def of(*programs, page=None):
    """Commands of blocks, by their first words.

    :param page: of this page only, below the checkout
    """
    return [command for command in commands()
            if not command.inline and command.text.startswith(programs)
            and page in (None, command.page)]
