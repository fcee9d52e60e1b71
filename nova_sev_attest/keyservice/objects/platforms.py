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

"""Platforms, as the launches that were begun on them saw them."""

import dataclasses
import datetime
import uuid

import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import paging

VERIFIED = 'verified'
REFUSED = 'refused'

#: How exact the times of a platform are; a busy host's rows are not written
#: for every launch.
PRECISION = datetime.timedelta(minutes=1)

_NAMESPACE = uuid.UUID('6f1b5d0e-3a5c-5d6a-9d52-5f7d3f0d2a11')
_COLLECTION = paging.Collection(
    models.Platform, ('first_seen_at', 'last_seen_at', 'host'),
    'last_seen_at:desc', unique='platform_id')


@dataclasses.dataclass(frozen=True)
class Sighting:
    """What one launch saw of its platform.

    :ivar root: name of the root that its certificates lead to; None, as the
        next ones, when they verified to none
    :ivar api: (major, minor)
    :ivar cek: SHA-256 of the CEK certificate
    :ivar chip: the chip's id in hexadecimal, None when AMD did not say it
    :ivar build: of the firmware, None before evidence told it
    :ivar attested: whether the platform proved to have its keys
    :ivar reason_code: why it was refused; None: it was not
    """

    host: str
    project_id: str
    root: str | None = None
    emulated: bool | None = None
    api: tuple[int, int] | None = None
    cek: bytes | None = None
    chip: str | None = None
    build: int | None = None
    attested: bool = False
    reason_code: str | None = None
    reason_detail: str | None = None

    @property
    def platform_id(self):
        cek = self.cek.hex() if self.cek else ''
        return str(uuid.uuid5(_NAMESPACE, f'{cek}\n{self.host}'))

    def row_id(self, project_id):
        """Primary key of what a project, or for None all, saw of it."""
        return str(uuid.uuid5(_NAMESPACE, '\n'.join(
            (self.platform_id, 'all' if project_id is None
             else f'project {project_id}'))))


def record(session, sighting, now):
    """Keep what a launch saw, for its project and for the operator.

    :param sighting: Sighting
    :param now: naive UTC datetime
    :raises oslo_db.exception.DBDuplicateEntry: another launch saw the
        platform for the first time at this moment
    """
    values = _values(sighting, now)
    for project_id in (None, sighting.project_id):
        row_id = sighting.row_id(project_id)
        # Written before anything is read: on SQLite, transactions that read
        # first cannot wait for each other.
        if not session.execute(
                sa.update(models.Platform)
                .where(models.Platform.id == row_id).values(**values)
                .execution_options(synchronize_session=False)).rowcount:
            session.execute(sa.insert(models.Platform).values(
                id=row_id, platform_id=sighting.platform_id,
                project_id=project_id, host=sighting.host,
                first_seen_at=now, **values))


def is_news(session, sighting, now):
    """Whether record() would change more than a time within PRECISION."""
    row = session.get(models.Platform,
                      sighting.row_id(sighting.project_id))
    if row is None:
        return True
    times = [row.last_seen_at]
    if sighting.attested:
        times.append(row.last_attested_at)
    return (any(time is None or now - time >= PRECISION for time in times)
            or row.last_verdict != _verdict(sighting)
            or row.last_reason_detail != sighting.reason_detail
            or (row.api_major, row.api_minor) != (sighting.api
                                                  or (None, None))
            or sighting.build not in (None, row.build))


def is_new_or_changed(session, sighting):
    """Whether a platform verified for the first time, or is another now.

    Another: what its certificates say of it is not what they said.
    """
    if _verdict(sighting) == REFUSED:
        return False
    row = session.get(models.Platform,
                      sighting.row_id(sighting.project_id))
    return (row is None or row.last_verified_at is None
            or (row.root, row.chip, row.api_major, row.api_minor) != (
                sighting.root, sighting.chip, *sighting.api))


def _verdict(sighting):
    return VERIFIED if sighting.reason_code is None else REFUSED


def _values(sighting, now):
    major, minor = sighting.api or (None, None)
    values = {
        'root': sighting.root, 'emulated': sighting.emulated,
        'api_major': major, 'api_minor': minor, 'cek': sighting.cek,
        'chip': sighting.chip, 'last_seen_at': now,
        'last_verdict': _verdict(sighting),
        'last_reason_code': sighting.reason_code,
        'last_reason_detail': sighting.reason_detail,
    }
    if sighting.build is not None:
        values['build'] = sighting.build
    if sighting.reason_code is None:
        values['last_verified_at'] = now
    if sighting.attested:
        values['last_attested_at'] = now
    return values


def _query(project_id):
    column = models.Platform.project_id
    return sa.select(models.Platform).where(
        column.is_(None) if project_id is None else column == project_id)


def get(session, platform_id, project_id=None):
    """What a project saw of a platform.

    :param project_id: None: what all projects saw
    :returns: row of models.Platform
    :raises NotFound: nothing
    """
    row = _find(session, platform_id, project_id)
    if row is None:
        raise errors.NotFound('platform_not_found',
                              f'There is no platform {platform_id}.')
    return row


def _find(session, platform_id, project_id):
    return session.scalars(_query(project_id).where(
        models.Platform.platform_id == platform_id)).one_or_none()


def page(session, limit, project_id=None, sort=None, marker=None,
         last_seen_at=None, **equal):
    """One page of what a project saw.

    :param project_id: None: what all projects saw
    :param equal: values that columns must have, by their names
    :returns: (rows of models.Platform, whether more follow)
    """
    query = paging.restrict(_query(project_id),
                            models.Platform.last_seen_at, last_seen_at)
    for name, value in equal.items():
        query = query.where(getattr(models.Platform, name) == value)
    if marker is not None:
        wanted = marker
        marker = _find(session, wanted, project_id)
        if marker is None:
            raise paging.unknown_marker(wanted)
    return _COLLECTION.select(session, query, limit, sort, marker)
