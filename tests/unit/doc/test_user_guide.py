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

"""What doc/source/user/index.rst says of faults is said of them."""

import ast
import re

import pytest

from tests import documented

PAGE = documented.CHECKOUT / 'doc/source/user/index.rst'


def _said():
    """The constant parts of all texts in the package's code."""
    for path in (documented.CHECKOUT / 'nova_sev_attest').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _quoted():
    table = PAGE.read_text().partition('What a fault says, and what to do')[2]
    return re.findall(r'"([^"]+)"', ' '.join(
        line for line in re.findall(
            r'^   \* - ((?:.*\n)(?:     [^-\s].*\n)*)', table, re.MULTILINE)))


@pytest.mark.parametrize('words', _quoted())
def test_the_words_of_a_fault(words):
    assert any(words in text for text in _said())


def test_there_are_some():
    assert len(_quoted()) > 12
