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

"""The API reference, made from the OpenAPI document.

Extensions that render OpenAPI know nothing of "default" answers, or of what
version 3.1 says beside a $ref, and leave out what a member of a body means.
"""

import pathlib

from sphinx.util import docutils
import yaml

_DOCUMENT = (pathlib.Path(__file__).parents[3]
             / 'nova_sev_attest/keyservice/openapi.yaml')
_METHODS = ('get', 'put', 'post', 'patch', 'delete')
_BOUNDS = {
    'minimum': 'at least {}', 'maximum': 'at most {}',
    'minLength': 'at least {} characters',
    'maxLength': 'at most {} characters',
    'minItems': 'at least {} items', 'maxItems': 'at most {} items',
    'pattern': 'matches {}'}


def _escape(text):
    for character in '\\*`|_<>':
        text = text.replace(character, '\\' + character)
    return ' '.join(text.split())


def _literal(text):
    # Blanks at its ends would end the literal.
    return f'``{text}``' if text.strip() == text else _escape(text)


def _label(name):
    return f'api-schema-{name.lower()}'


class Reference:
    """Lines of reStructuredText for a document.

    :param document: the OpenAPI document as a dict
    """

    def __init__(self, document):
        self._document = document
        self._lines = []

    def lines(self):
        tags = self._document['tags'] + [
            {'name': None, 'description': 'Answered without a token.'}]
        for tag in tags:
            self._section((tag['name'] or 'versions').capitalize(), '=')
            self._add(_escape(tag['description']), '')
            for path, item in self._document['paths'].items():
                for method in _METHODS:
                    operation = item.get(method)
                    if operation and (operation.get('tags')
                                      or [None])[0] == tag['name']:
                        self._operation(path, method, operation, item)
        self._section('Objects', '=')
        for name, schema in self._document['components']['schemas'].items():
            self._schema(name, schema)
        return self._lines

    def _add(self, *lines):
        self._lines.extend(lines)

    def _section(self, title, line):
        self._add('', title, line * len(title), '')

    def _resolved(self, item):
        """An item with its $ref followed; what stands beside it counts."""
        while '$ref' in item:
            target = self._document
            for part in item['$ref'].removeprefix('#/').split('/'):
                target = target[part]
            item = target | {key: value for key, value in item.items()
                             if key != '$ref'}
        return item

    def _operation(self, path, method, operation, item):
        self._section(operation['summary'], '-')
        self._add(f'``{method.upper()} {path}``', '')
        self._add(_escape(operation.get('description', '')), '')
        parameters = [self._resolved(found) for found in (
            *item.get('parameters', ()), *operation.get('parameters', ()))]
        self._table(('Parameter', 'In', 'Type', 'What it is'), [
            (_literal(found['name'])
             + (', required' if found.get('required') else ''),
             found['in'], self._type(found['schema']),
             _escape(found.get('description', '')))
            for found in parameters])
        body = operation.get('requestBody', {'content': {}})
        for media_type, content in body['content'].items():
            self._add(f'Request body, ``{media_type}``', '')
            self._members(content.get('schema', {}))
        self._table(('Answer', 'What it is', 'Body'), [
            self._answer(status, self._resolved(answer))
            for status, answer in sorted(operation['responses'].items())])

    def _answer(self, status, answer):
        return ('4xx, 5xx' if status == 'default' else status,
                _escape(answer['description']),
                ', '.join(map(self._answer_type,
                              answer.get('content', {}).values())))

    def _answer_type(self, content):
        schema = self._resolved(content.get('schema', {}))
        members = schema.get('properties')
        if '$ref' in content.get('schema', {}) or not members:
            return self._type(content.get('schema', {}))
        return ', '.join(f'{_literal(name)}: {self._type(member)}'
                         for name, member in members.items())

    def _schema(self, name, schema):
        self._add(f'.. _{_label(name)}:')
        self._section(name, '-')
        self._add(_escape(schema.get('description', '')), '')
        if self._resolved(schema).get('properties'):
            self._members(schema)
        else:
            self._add(self._type(schema), '')

    def _members(self, schema):
        self._table(('Member', 'Type', 'What it is'),
                    list(self._rows(schema, '')))

    def _rows(self, schema, prefix):
        schema = self._resolved(schema)
        for name, member in schema.get('properties', {}).items():
            path = f'{prefix}{name}'
            required = name in schema.get('required', ())
            text = _escape(self._resolved(member).get('description', ''))
            if '$ref' in member and 'required' in member:
                text += ' Needed: ' + ', '.join(
                    map(_literal, member['required'])) + '.'
            yield (_literal(path) + (', required' if required else ''),
                   self._type(member), text)
            for inner, suffix in self._inner(member):
                yield from self._rows(inner, f'{path}{suffix}.')

    def _inner(self, schema):
        """Objects within a member that have no name of their own."""
        for found in (schema, *schema.get('oneOf', ())):
            if 'properties' in found:
                yield found, ''
            if 'properties' in found.get('items', {}):
                yield found['items'], '[]'

    def _type(self, schema):
        if '$ref' in schema and '/properties/' not in schema['$ref']:
            name = schema['$ref'].rpartition('/')[2]
            return f':ref:`{name} <{_label(name)}>`'
        schema = self._resolved(schema)
        if 'oneOf' in schema:
            return ' or '.join(map(self._type, schema['oneOf']))
        if 'enum' in schema:
            return 'one of ' + ', '.join(
                _literal(str(value)) for value in schema['enum'])
        kinds = schema.get('type', 'anything')
        kinds = [kinds] if isinstance(kinds, str) else kinds
        words = ' or '.join(
            f'{kind} of {self._type(schema["items"])}'
            if kind == 'array' and 'items' in schema else kind
            for kind in kinds)
        bounds = [text.format(_literal(str(schema[name])))
                  for name, text in _BOUNDS.items() if name in schema]
        return f'{words} ({", ".join(bounds)})' if bounds else words

    def _table(self, head, rows):
        if not rows:
            return
        self._add('.. list-table::', '   :header-rows: 1', '')
        for row in (head, *rows):
            for index, cell in enumerate(row):
                self._add(f'   {"* -" if not index else "  -"} {cell}')
        self._add('')


class ApiReference(docutils.SphinxDirective):
    """Puts the reference where it stands."""

    def run(self):
        self.env.note_dependency(str(_DOCUMENT))
        lines = Reference(yaml.safe_load(_DOCUMENT.read_text())).lines()
        return self.parse_text_to_nodes(
            '\n'.join(lines), allow_section_headings=True)


def setup(app):
    app.add_directive('api-reference', ApiReference)
    return {'version': '1', 'parallel_read_safe': True}
