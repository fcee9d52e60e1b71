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

"""Firmware images of a project."""

import collections
import dataclasses
import datetime
import threading
import uuid

from oslo_db import exception as db_exc
from oslo_utils import timeutils
import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import paging
from nova_sev_attest.launch import firmware as launch_firmware

PART_SIZE = 1024 * 1024

_COLLECTION = paging.Collection(
    models.Firmware, ('created_at', 'size', 'sha256'), 'created_at:asc')


@dataclasses.dataclass(frozen=True)
class Firmware:
    """What is known of an image, without its bytes.

    :ivar sha256: 64 hexadecimal digits
    :ivar secret_area: (base, size)
    :ivar hash_table: (base, size), or None
    """

    id: str
    project_id: str
    sha256: str
    size: int
    secret_area: tuple[int, int]
    hash_table: tuple[int, int] | None
    created_at: datetime.datetime

    @classmethod
    def _from_row(cls, row):
        return cls(
            id=row.id, project_id=row.project_id, sha256=row.sha256,
            size=row.size, secret_area=(row.secret_base, row.secret_size),
            hash_table=(None if row.hash_base is None
                        else (row.hash_base, row.hash_size)),
            created_at=row.created_at)


def _query(project_id, sha256):
    return sa.select(models.Firmware).where(
        models.Firmware.project_id == project_id,
        models.Firmware.sha256 == sha256)


def find(session, project_id, sha256):
    """The project's firmware of this SHA-256, or None."""
    row = session.scalars(_query(project_id, sha256)).one_or_none()
    return row and Firmware._from_row(row)


def get(session, project_id, sha256):
    """Like find(); raises NotFound."""
    firmware = find(session, project_id, sha256)
    if firmware is None:
        raise _not_found(sha256)
    return firmware


def _not_found(sha256):
    return errors.NotFound(
        'firmware_not_found',
        f'The project has no firmware with SHA-256 {sha256}.')


def create(session, project_id, parsed, data):
    """Store an image.

    :param parsed: the launch core's Firmware, with a usable secret area
    :param data: the image that it was parsed from
    :raises oslo_db.exception.DBDuplicateEntry: when it is there
    """
    hash_table = parsed.hash_table_area
    if hash_table is not None and not hash_table.size:
        hash_table = None
    row = models.Firmware(
        id=str(uuid.uuid4()), project_id=project_id,
        sha256=parsed.sha256.hex(), size=parsed.size,
        secret_base=parsed.secret_area.base,
        secret_size=parsed.secret_area.size,
        hash_base=hash_table and hash_table.base,
        hash_size=hash_table and hash_table.size,
        created_at=timeutils.utcnow())
    session.add(row)
    session.flush()
    for number, start in enumerate(range(0, parsed.size, PART_SIZE)):
        session.add(models.FirmwarePart(
            firmware_id=row.id, number=number,
            data=data[start:start + PART_SIZE]))
        session.flush()
    return Firmware._from_row(row)


def data(session, firmware):
    """The bytes of an image."""
    return b''.join(session.scalars(
        sa.select(models.FirmwarePart.data)
        .where(models.FirmwarePart.firmware_id == firmware.id)
        .order_by(models.FirmwarePart.number)))


class Parsed:
    """Images as the launch core knows them; the last few are kept.

    So that their megabytes leave the database once for each process, and not
    at each launch. Usable by any number of threads.

    :param size: how many are kept; one, which is without the image's bytes,
        takes a few KiB
    """

    def __init__(self, size=64):
        self._size = size
        self._lock = threading.Lock()
        self._kept = collections.OrderedDict()

    def load(self, session, project_id, sha256s):
        """Images of a project.

        :param sha256s: SHA-256 in hexadecimal of each
        :returns: {SHA-256: the launch core's Firmware} of those that the
            project has
        """
        rows = session.scalars(sa.select(models.Firmware).where(
            models.Firmware.project_id == project_id,
            models.Firmware.sha256.in_(sha256s))) if sha256s else ()
        found = {row.sha256: self._get(session, row) for row in rows}
        return {sha256: found[sha256] for sha256 in sha256s
                if sha256 in found}

    def _get(self, session, row):
        with self._lock:
            kept = self._kept.get(row.sha256)
            if kept is not None:
                self._kept.move_to_end(row.sha256)
                return kept
        kept = launch_firmware.Firmware.parse(data(session, row))
        with self._lock:
            self._kept[row.sha256] = kept
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return kept


def usage(session, project_id):
    """How many firmwares a project has, and their bytes in all."""
    return session.execute(
        sa.select(sa.func.count(),
                  sa.func.coalesce(sa.func.sum(models.Firmware.size), 0))
        .where(models.Firmware.project_id == project_id)).one()


def page(session, project_id, limit, sort=None, marker=None,
         created_at=None):
    """One page, marked by SHA-256.

    :returns: (list of Firmware, whether more follow)
    """
    query = paging.restrict(
        sa.select(models.Firmware).where(
            models.Firmware.project_id == project_id),
        models.Firmware.created_at, created_at)
    if marker is not None:
        wanted = marker
        marker = find(session, project_id, wanted)
        if marker is None:
            raise paging.unknown_marker(wanted)
    rows, more = _COLLECTION.select(session, query, limit, sort, marker)
    return [Firmware._from_row(row) for row in rows], more


def delete(session, firmware):
    """Delete an image.

    :raises NotFound: it is gone already
    :raises Conflict: a policy names it
    """
    try:
        deleted = session.execute(
            sa.delete(models.Firmware).where(
                models.Firmware.id == firmware.id)
            .execution_options(synchronize_session=False)).rowcount
    except db_exc.DBReferenceError as exc:
        raise errors.Conflict(
            'firmware_in_use',
            'A policy names this firmware; change or delete the policy '
            'first.') from exc
    if not deleted:
        raise _not_found(firmware.sha256)
