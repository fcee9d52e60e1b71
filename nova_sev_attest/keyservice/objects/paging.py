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

"""Pages of collections, by creation time and id."""

import sqlalchemy as sa

from nova_sev_attest.keyservice import errors


def after(model, marker, descending=False):
    """Condition for the rows that follow a marker.

    :param marker: anything with the created_at and id of a row
    """
    created = sa.literal(marker.created_at, model.created_at.type)
    # Not one comparison of pairs: MariaDB would read the whole collection
    # for it, where this begins at the marker's place in the index.
    if descending:
        return sa.and_(model.created_at <= created, sa.or_(
            model.created_at < created, model.id < marker.id))
    return sa.and_(model.created_at >= created, sa.or_(
        model.created_at > created, model.id > marker.id))


def take(session, query, limit):
    """Run a query for one page.

    :returns: (rows, whether more follow)
    """
    rows = list(session.scalars(query.limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def unknown_marker(marker):
    return errors.BadRequest(
        'marker_not_found', f'The marker {marker} names no item of this '
        f'collection; begin again without one.')
