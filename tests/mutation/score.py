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

The score is the share of mutants that a test killed, or that hung, of those
that any test reaches or should. Ends with 1 below the least score.
"""

import argparse
import collections
import json
import pathlib
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
    for name in alive:
        print(f'{name}{" (no test)" if tested[name] == _NO_TEST else ""}')
    modules = collections.Counter(_module(name) for name in tested)
    lost = collections.Counter(map(_module, alive))
    print()
    for module, count in sorted(modules.items()):
        print(f'{module:40} {count - lost[module]:5} of {count:5}')
    score = 100 * (1 - len(alive) / len(tested))
    print(f'{len(tested)} of {len(codes)} mutants tested, {len(alive)} '
          f'survived: {score:.1f} %')
    if score < options.least:
        sys.exit(1)


def _module(name):
    return name.rpartition('.')[0]


if __name__ == '__main__':
    main()
