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

"""The OpenAPI document, and validation of requests against it.

The document is the only place where the shape of a request is written down.
"""

import functools
import importlib.resources
import json
import re

import jsonschema
import openapi_schema_validator
import referencing
import referencing.jsonschema
import yaml

from nova_sev_attest.keyservice import errors

_URN = 'urn:nova-sev-attest:openapi'
_JSON = 'application/json'
_MAX_DETAIL = 400


@functools.cache
def load():
    """The whole document as a dict."""
    text = importlib.resources.files('nova_sev_attest.keyservice').joinpath(
        'openapi.yaml').read_text('utf-8')
    return yaml.safe_load(text)


@functools.cache
def _registry():
    resource = referencing.Resource(
        contents=load(),
        specification=referencing.jsonschema.DRAFT202012)
    return referencing.Registry().with_resource(_URN, resource)


@functools.cache
def _regex(pattern):
    # JSON Schema's $ is the end of the text, Python's also stands before a
    # last newline.
    return re.compile(re.sub(r'\$\Z', r'\\Z', pattern), re.ASCII)


def _pattern(validator, pattern, instance, schema):
    if isinstance(instance, str) and not _regex(pattern).search(instance):
        yield jsonschema.ValidationError(
            f'{instance!r} does not match {pattern!r}')


_Validator = jsonschema.validators.extend(
    openapi_schema_validator.OAS31Validator, {'pattern': _pattern})


def _validator(pointer):
    return _Validator(
        {'$ref': f'{_URN}#{pointer}'}, registry=_registry())


def _escape(part):
    return part.replace('~', '~0').replace('/', '~1')


def _resolve(item):
    """An object of the document with its $ref followed, and its pointer."""
    resolved = _registry().resolver(_URN).lookup(item['$ref'])
    return resolved.contents, item['$ref'].removeprefix('#')


def _describe(error):
    where = '.'.join(str(part) for part in error.absolute_path)
    text = error.message
    if len(text) > _MAX_DETAIL:
        text = text[:_MAX_DETAIL] + '...'
    return f'{where}: {text}' if where else text


def _check(validator, value, prefix):
    error = next(iter(sorted(validator.iter_errors(value),
                             key=lambda e: list(map(str, e.absolute_path)))),
                 None)
    if error is None:
        return
    # The reason inside an alternative says more than "none of them matched".
    while error.context:
        error = max(error.context,
                    key=lambda e: (len(e.absolute_path),
                                   e.validator != 'type'))
    raise errors.BadRequest('request_invalid', prefix + _describe(error))


class Operation:
    """What the document says of one operation.

    :param path: path template as in the document
    :param method: lower-case method
    """

    def __init__(self, path, method):
        item = load()['paths'][path]
        pointer = f'/paths/{_escape(path)}'
        self._body = None
        body = item[method].get('requestBody')
        if body and _JSON in body['content']:
            self._body = _validator(
                f'{pointer}/{method}/requestBody/content/'
                f'{_escape(_JSON)}/schema')
        self._parameters = {}
        for where, owner in ((pointer, item),
                             (f'{pointer}/{method}', item[method])):
            for index, found in enumerate(owner.get('parameters', [])):
                at = f'{where}/parameters/{index}'
                if '$ref' in found:
                    found, at = _resolve(found)
                self._parameters[found['in'], found['name']] = (
                    found, _validator(f'{at}/schema'))

    def _type(self, where, name):
        """The JSON type of a parameter, None when it says none."""
        schema = self._parameters[where, name][0]['schema']
        while '$ref' in schema:
            schema, _ = _resolve(schema)
        return schema.get('type')

    def check_body(self, value):
        """Check a request body.

        :raises BadRequest: with the first fault
        """
        _check(self._body, value, 'The request body is not as documented: ')

    def check_path(self, values):
        """Check path parameters, a dict of text.

        :returns: dict of the values, integers as int
        :raises NotFound: nothing can have such a name
        """
        result = {}
        for name, text in values.items():
            result[name] = _typed(self._type('path', name), text)
            if not self._parameters['path', name][1].is_valid(result[name]):
                raise errors.NotFound(
                    'not_found', f'There is no {name} such as that.')
        return result

    def check_header(self, name, value):
        """Check a header's value, None when it is not there.

        The value is left out of the error, for headers that are secret.
        """
        declared, validator = self._parameters['header', name]
        if value is None and declared.get('required'):
            raise errors.BadRequest('request_invalid',
                                    f'The header {name} is missing.')
        if value is not None and not validator.is_valid(value):
            raise errors.BadRequest(
                'request_invalid',
                f'The header {name} is not as documented: '
                f'{declared.get("description", "")}')

    def query(self, values):
        """Check a query.

        :param values: list of (name, text)
        :returns: dict of the values that are there: int, bool, text or, for
            a parameter that may come several times, a list
        :raises BadRequest: unknown, repeated or malformed parameter
        """
        result = {}
        for name, text in values:
            if ('query', name) not in self._parameters:
                raise errors.BadRequest(
                    'request_invalid',
                    f'Unknown query parameter: {name[:64]}.')
            wanted = self._type('query', name)
            if wanted == 'array':
                result.setdefault(name, []).append(text)
            elif name in result:
                raise errors.BadRequest(
                    'request_invalid', f'Query parameter {name} is given '
                    f'twice.')
            else:
                result[name] = _typed(wanted, text)
        for name, value in result.items():
            _check(self._parameters['query', name][1], value,
                   f'Query parameter {name}: ')
        return result


def _typed(wanted, text):
    """A parameter's text as of a JSON type; as it is where it is not."""
    if (wanted == 'integer' and text.isascii() and text.isdigit()
            and len(text) < 10):
        return int(text)
    if wanted == 'boolean':
        return {'true': True, 'false': False}.get(text, text)
    return text


def parse_json(data):
    """Parse a JSON body strictly.

    :raises BadRequest: not UTF-8, not JSON, a repeated member, NaN, half a
        surrogate pair
    """
    def unique(pairs):
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError('a member is given twice')
        return members

    def refuse(text):
        raise ValueError(f'{text} is not JSON')

    try:
        value = json.loads(data.decode('utf-8'), object_pairs_hook=unique,
                           parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode('utf-8')
        return value
    except (ValueError, RecursionError) as exc:
        # json's own message quotes no content.
        raise errors.BadRequest(
            'request_invalid',
            f'The request body is not JSON in UTF-8: {exc}') from None
