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

"""Pages of collections: filters, order and markers."""

import datetime
import operator
import re

import sqlalchemy as sa

from nova_sev_attest.keyservice import errors

_TIME = re.compile(r'(?:(gt|gte|lt|lte):)?(.+)Z')
_COMPARE = {'gt': operator.gt, 'gte': operator.ge,
            'lt': operator.lt, 'lte': operator.le, None: operator.eq}


def parse_times(values):
    """Times of a query, each with an operator before it or none.

    :param values: list of texts as the API document has them, such as
        'gte:2026-01-31T00:00:00Z'
    :returns: list of (function of two operands, naive UTC datetime)
    :raises BadRequest: no such moment, such as February 30
    """
    found = []
    for value in values:
        name, text = _TIME.fullmatch(value).groups()
        try:
            moment = datetime.datetime.fromisoformat(text)
        except ValueError as exc:
            raise errors.BadRequest(
                'time_invalid', f'{text}Z is no time: {exc}.') from None
        found.append((_COMPARE[name], moment))
    return found


class Collection:
    """How the rows of one model are listed.

    Rows that are equal in the keys of the wanted order follow each other by a
    unique one, so that no row is skipped or shown twice at the border of two
    pages.

    :param model: class of db/models.py
    :param keys: names of the columns that a request may sort by; none may be
        NULL
    :param default: order of a request that wants none, as in the API:
        'created_at:desc'
    :param unique: name of a column that tells apart all rows listed
    """

    def __init__(self, model, keys, default, unique='id'):
        self._model = model
        self._keys = frozenset(keys)
        self._default = default
        self._unique = unique

    def order(self, sort=None):
        """Parse an order as the API has it.

        :param sort: 'key' or 'key:asc' or 'key:desc', several with commas;
            a key that comes again counts nothing
        :returns: list of (column, whether descending), a unique one among
            them
        """
        found = {}
        for part in (sort or self._default).split(','):
            name, _, direction = part.partition(':')
            if name not in self._keys:
                raise ValueError(f'{name} is no key of {self._model}')
            found.setdefault(name, direction == 'desc')
        found.setdefault(self._unique, found[name])
        return [(getattr(self._model, name), descending)
                for name, descending in found.items()]

    def select(self, session, query, limit, sort=None, marker=None):
        """Run a query for one page.

        :param query: SELECT of the model with its filters
        :param marker: row of the model that the page follows, or None
        :returns: (rows, whether more follow)
        """
        order = self.order(sort)
        if marker is not None:
            query = query.where(_follows(order, marker))
        query = query.order_by(*(
            column.desc() if descending else column
            for column, descending in order)).limit(limit + 1)
        rows = list(session.scalars(query))
        return rows[:limit], len(rows) > limit


def _follows(order, marker):
    """Condition for the rows that follow a row in an order.

    The first key's own bound is redundant; MariaDB uses an index for it, and
    none for a comparison of tuples.
    """
    column, descending = order[0]
    value = _literal(column, marker)
    bound = column <= value if descending else column >= value
    alternatives, equal = [], []
    for column, descending in order:
        value = _literal(column, marker)
        alternatives.append(sa.and_(
            *equal, column < value if descending else column > value))
        equal.append(column == value)
    return sa.and_(bound, sa.or_(*alternatives))


def _literal(column, marker):
    return sa.literal(getattr(marker, column.key), column.type)


def restrict(query, column, values):
    """Add the filters of a time to a query.

    :param values: list of texts for parse_times(), or None
    """
    for compare, moment in parse_times(values or ()):
        query = query.where(compare(column, sa.literal(moment, column.type)))
    return query


def unknown_marker(marker):
    return errors.BadRequest(
        'marker_not_found', f'The marker {marker} names no item of this '
        f'collection; begin again without one.')
