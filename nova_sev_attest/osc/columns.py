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

"""How values are shown: in words to people, as they are to programs."""

from cliff import columns

from nova_sev_attest.osc import base


class Lines(columns.FormattableColumn):
    """A list, an item a line."""

    def human_readable(self):
        if self._value is None:
            return ''
        return '\n'.join(base.clean(_words(item)) for item in self._value)


class Facts(columns.FormattableColumn):
    """A mapping, a member a line."""

    def human_readable(self):
        if self._value is None:
            return ''
        return '\n'.join(f'{base.clean(name)}: {base.clean(_words(value))}'
                         for name, value in self._value.items())


class Shown(columns.FormattableColumn):
    """A value that people read in other words."""

    def __init__(self, value, words):
        super().__init__(value)
        self._words = words

    def human_readable(self):
        return base.clean(self._words)


def _words(value):
    if isinstance(value, dict):
        return ', '.join(f'{name}={_words(each)}'
                         for name, each in value.items())
    if isinstance(value, list):
        return ', '.join(map(_words, value))
    return '' if value is None else str(value)


def column(value):
    """A JSON value as cliff takes it."""
    if isinstance(value, list):
        return Lines(value)
    if isinstance(value, dict):
        return Facts(value)
    return base.clean(value) if isinstance(value, str) else value


def row(members, names=None):
    """An object as cliff's ShowOne takes it: (names, values).

    :param names: which members, in which order; those that it lacks are
        left out. None: all of them but links
    """
    if names is None:
        names = [name for name in members if name != 'links']
    names = [name for name in names if name in members]
    return tuple(names), tuple(column(members[name]) for name in names)


def table(items, shown, titles):
    """Objects as cliff's Lister takes them: (titles, rows).

    :param shown: names of members
    :param titles: what is written above them
    """
    return titles, (tuple(column(item.get(name)) for name in shown)
                    for item in items)
