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

"""What mutmut's last run says: the score, and every mutant that survived.

    python -m tests.mutation.score [--least PERCENT]

The score is the share of mutants that a test killed, or that hung. Mutants
that change nothing but the wording of an error are counted apart: tests hold
errors to their type and to what they must tell, not to every word. Ends with 1
when the others' score is below the least.
"""

import argparse
import ast
import collections
import json
import pathlib
import re
import sys

_FOLDER = pathlib.Path('mutants')
# Exit codes of a mutant's tests, as mutmut keeps them.
_SURVIVED, _NO_TEST = 0, 33
_SKIPPED = 34


def results(folder):
    """{mutant's name: exit code, or None when it was not tested}."""
    found = {}
    for path in sorted(folder.rglob('*.meta')):
        found |= json.loads(path.read_text())['exit_code_by_key']
    return found


class _Mask(ast.NodeTransformer):
    """Takes a function's name and the texts of what it raises away."""

    def __init__(self):
        self._raising = False

    def visit_FunctionDef(self, node):
        node.name = '_'
        return self.generic_visit(node)

    def visit_Raise(self, node):
        self._raising = True
        self.generic_visit(node)
        self._raising = False
        return node

    def visit_Constant(self, node):
        # Of a text, none is left; mutmut also puts None in its place.
        if self._raising and isinstance(node.value, (str, type(None))):
            return ast.Constant('')
        return node


def wordings(folder):
    """Names of the mutants that change the wording of an error only."""
    found = set()
    for meta in sorted(folder.rglob('*.meta')):
        path = meta.with_suffix('')
        module = '.'.join(path.relative_to(folder).with_suffix('').parts)
        functions = {
            node.name: ast.dump(_Mask().visit(node))
            for node in list(ast.walk(ast.parse(path.read_text('utf-8'))))
            if isinstance(node, ast.FunctionDef) and
            '__mutmut_' in node.name}
        found |= {f'{module}.{name}' for name, body in functions.items()
                  if body == functions.get(
                      re.sub(r'mutmut_[0-9]+$', 'mutmut_orig', name))}
    return found


def _score(tested, alive):
    return 100 * (1 - len(alive) / len(tested)) if tested else 100.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--least', type=float, default=95)
    options = parser.parse_args()
    codes = results(_FOLDER)
    tested = {name: code for name, code in codes.items()
              if code is not None and code != _SKIPPED}
    if not tested:
        sys.exit('no mutant was tested: run mutmut first')
    alive = sorted(name for name, code in tested.items()
                   if code in (_SURVIVED, _NO_TEST))
    texts = wordings(_FOLDER)
    for name in alive:
        print(name, *(['(no test)'] if tested[name] == _NO_TEST else []),
              *(['(wording)'] if name in texts else []))
    modules = collections.Counter(map(_module, set(tested) - texts))
    lost = collections.Counter(map(_module, set(alive) - texts))
    print()
    for module, count in sorted(modules.items()):
        print(f'{module:40} {count - lost[module]:5} of {count:5}')
    score = _score(set(tested) - texts, set(alive) - texts)
    print(f'{len(tested)} of {len(codes)} mutants tested, {len(alive)} '
          f'survived: {_score(tested, alive):.1f} %')
    print(f'without the {len(texts & set(tested))} that change the wording of '
          f'an error: {len(set(alive) - texts)} survived: {score:.1f} %')
    if score < options.least:
        sys.exit(1)


def _module(name):
    return name.rpartition('.')[0]


if __name__ == '__main__':
    main()
