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

"""The operator's guide explains every error that the service answers with."""

import ast
import pathlib
import re

from nova_sev_attest.keyservice import errors
from nova_sev_attest.trust import platform_policy

_ROOT = pathlib.Path(__file__).parents[3]
_PAGE = _ROOT / 'doc/source/operator/troubleshooting.rst'
_CLASSES = {name for name, value in vars(errors).items()
            if isinstance(value, type)
            and issubclass(value, errors.ServiceError)}
# Made from a name and "_not_allowed": see expectations.difference().
_DIFFERENCES = {f'{name}_not_allowed' for name in (
    'firmware', 'kernel', 'initrd', 'command_line', 'vcpus', 'cpu_model',
    'launch_profile')}
_CODE = re.compile(r'attestation\.([a-z0-9_]+)')


def words(path):
    """The words that a module makes errors with, or names the codes of."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and node.args:
            function, word = node.func, node.args[0]
            name = getattr(function, 'attr', getattr(function, 'id', None))
            if name in _CLASSES | {'cls'} and isinstance(
                    word, ast.Constant) and isinstance(word.value, str):
                yield word.value
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = _CODE.fullmatch(node.value)
            if found:
                yield found[1]


def test_every_error_is_explained():
    answered = _DIFFERENCES | {platform_policy.PlatformNotAllowed.code} | {
        word for path in (_ROOT / 'nova_sev_attest/keyservice').rglob('*.py')
        for word in words(path)}
    assert len(answered) > 50
    terms = re.findall(r'^``.*``$', _PAGE.read_text(), re.MULTILINE)
    explained = set(re.findall(r'``([a-z0-9_]+)``', '\n'.join(terms)))
    assert answered - explained == set()
