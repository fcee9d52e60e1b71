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

"""The page that Sphinx makes of the API document leaves nothing out."""

import pathlib
import subprocess
import sys

import pytest

from nova_sev_attest.keyservice.schemas import document

_SOURCE = pathlib.Path(__file__).parents[3] / 'doc/source'
_CONF = f'''
import sys
sys.path.insert(0, {str(_SOURCE / "_ext")!r})
extensions = ['api_reference']
smartquotes = False
'''


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """Its text, its lines joined; made with warnings as errors."""
    folder = tmp_path_factory.mktemp('doc')
    (folder / 'conf.py').write_text(_CONF)
    (folder / 'index.rst').write_text('API\n===\n\n.. api-reference::\n')
    subprocess.run(
        [sys.executable, '-m', 'sphinx', '-q', '-W', '-b', 'pseudoxml',
         folder, folder / 'out'], check=True, timeout=120)
    return ' '.join((folder / 'out/index.pseudoxml').read_text().split())


def test_every_operation(page):
    count = 0
    for path, item in document.load()['paths'].items():
        for method in item.keys() - {'parameters'}:
            operation = item[method]
            assert f'<literal> {method.upper()} {path} <' in page
            for text in (operation['summary'],
                         operation.get('description', '')):
                assert ' '.join(text.split()) in page
            count += 1
    assert count > 20


def test_every_parameter_and_object(page):
    components = document.load()['components']
    for parameter in components['parameters'].values():
        assert f'<literal> {parameter["name"]} ' in page
    for name, schema in components['schemas'].items():
        assert f'api-schema-{name.lower()}"' in page
        for member in schema.get('properties', ()):
            assert f'<literal> {member} ' in page


def test_every_description(page):
    """Members say what they mean."""
    def descriptions(value):
        if isinstance(value, dict):
            text = value.get('description')
            if isinstance(text, str):
                yield text
            for inner in value.values():
                yield from descriptions(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from descriptions(inner)

    contents = document.load()
    found = [text for part in ('paths', 'components')
             for text in descriptions(contents[part])
             if text not in {header['description'] for header
                             in contents['components']['headers'].values()}]
    assert len(found) > 100
    assert [text for text in found
            if ' '.join(text.split()) not in page] == []
