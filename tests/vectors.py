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

"""Where the tests find published test vectors.

The vectors are other projects' data and are not part of this repository.
They are looked for in the folder that the environment variable
``NOVA_SEV_ATTEST_VECTORS`` names, else next to the checkout. Without them,
tests that need them are skipped, but fail where ``CI`` is set: there their
absence is a fault of the set-up.
"""

import json
import os
import pathlib

import pytest

_REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
_INDEX = 'EXPECTED.json'


def directory():
    """The folder of the vectors, as a pathlib.Path; skips without it."""
    configured = os.environ.get('NOVA_SEV_ATTEST_VECTORS')
    path = (pathlib.Path(configured) if configured
            else _REPOSITORY.parent / 'shared' / 'vectors')
    if not (path / _INDEX).is_file():
        reason = (f'no test vectors in {path}; set NOVA_SEV_ATTEST_VECTORS '
                  f'to the folder that has them')
        if os.environ.get('CI'):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def read(name):
    """The bytes of a vector, by its path below the folder."""
    return (directory() / name).read_bytes()


def expected(name=_INDEX):
    """The parsed JSON file of expected values."""
    return json.loads(read(name))
