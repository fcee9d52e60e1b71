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

"""Launches, and the only places where their status changes.

Each change is one UPDATE that names the status it starts from, so that of
several requests at the same time one wins and the others see that they did
not. Whatever leaves the status session_issued destroys the sealed keys in the
same statement.
"""

import dataclasses
import datetime
import json

from oslo_utils import timeutils
import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import paging

SESSION_ISSUED = 'session_issued'
RELEASED = 'released'
RUNNING = 'running'
FAILED = 'failed'
DENIED = 'denied'
EXPIRED = 'expired'
SUPERSEDED = 'superseded'

_EXPIRED_DETAIL = ('No evidence that verifies came in time; the launch\'s '
                   'keys are destroyed. Start the server again.')
_SUPERSEDED_DETAIL = 'A newer launch of the same server took its place.'

_COLLECTION = paging.Collection(
    models.Launch,
    ('created_at', 'updated_at', 'expires_at', 'status', 'host',
     'server_id'),
    'created_at:desc')


@dataclasses.dataclass(frozen=True)
class Release:
    """A packet, encrypted to one guest: 52 bytes, data, guest address."""

    header: bytes
    data: bytes
    gpa: int


@dataclasses.dataclass(frozen=True)
class Launch:
    """A launch as stored.

    One that was refused at its beginning has no platform, session or keys,
    and no policy when none was found.

    :ivar token_hash: SHA-256 of the launch token
    :ivar request_fingerprint: SHA-256 that names the request's content
    :ivar platform_cek: SHA-256 of the CEK certificate
    :ivar platform_chip: the chip's id in hexadecimal; None when the CEK is the
        one that the host showed
    :ivar sealed_keys: None once they are destroyed
    :ivar evidence_fingerprint: SHA-256 that names the evidence; None before
        it came
    :ivar release: Release, or None
    :ivar reason_owner: what the owner alone may see of the reason
    """

    id: str
    server_id: str
    project_id: str
    host: str
    technology: str
    status: str
    created_at: datetime.datetime
    updated_at: datetime.datetime
    expires_at: datetime.datetime
    token_hash: bytes
    request_fingerprint: bytes
    policy_id: str | None = None
    policy_revision: int | None = None
    platform_root: str | None = None
    platform_emulated: bool | None = None
    platform_api: tuple[int, int] | None = None
    platform_cek: bytes | None = None
    platform_chip: str | None = None
    policy_word: int | None = None
    dh_cert: bytes | None = dataclasses.field(default=None, repr=False)
    session: bytes | None = dataclasses.field(default=None, repr=False)
    sealed_keys: bytes | None = dataclasses.field(default=None, repr=False)
    sealing_key_id: str | None = None
    evidence_fingerprint: bytes | None = None
    release: Release | None = dataclasses.field(default=None, repr=False)
    verdict: dict | None = None
    reason_code: str | None = None
    reason_detail: str | None = None
    reason_owner: dict | None = None

    @property
    def is_open(self):
        return self.status == SESSION_ISSUED

    @classmethod
    def _from_row(cls, row):
        release = None
        if row.release_header is not None:
            release = Release(row.release_header, row.release_data,
                              row.release_gpa)
        made = {
            'platform_api': None if row.platform_api_major is None else (
                row.platform_api_major, row.platform_api_minor),
            'release': release,
            'verdict': row.verdict and json.loads(row.verdict),
            'reason_owner': row.reason_owner and json.loads(
                row.reason_owner),
        }
        return cls(**made, **{
            field.name: getattr(row, field.name)
            for field in dataclasses.fields(cls) if field.name not in made})


def _change(session, *conditions, **values):
    """One UPDATE; returns how many launches it changed."""
    return session.execute(
        sa.update(models.Launch).where(*conditions)
        .values(updated_at=timeutils.utcnow(), **values)
        .execution_options(synchronize_session=False)).rowcount


def _close(session, status, *conditions, **values):
    """Leave session_issued; the keys go with it."""
    return _change(
        session, models.Launch.status == SESSION_ISSUED, *conditions,
        status=status, open_for=None, sealed_keys=None, sealing_key_id=None,
        **values)


def find(session, launch_id):
    """The launch, or None."""
    row = session.scalars(
        sa.select(models.Launch).where(models.Launch.id == launch_id)
        .execution_options(populate_existing=True)).one_or_none()
    return row and Launch._from_row(row)


def get(session, launch_id, project_id=None):
    """The launch.

    :param project_id: the project that it must belong to; None: any
    :raises NotFound: there is none, or it is another project's
    """
    launch = find(session, launch_id)
    if launch is None or project_id not in (None, launch.project_id):
        raise errors.NotFound('launch_not_found',
                              f'There is no launch {launch_id}.')
    return launch


def find_with_evidence(session, launch, fingerprint):
    """Another launch of the same project with the same evidence.

    :returns: its id, or None
    """
    return session.scalars(
        sa.select(models.Launch.id).where(
            models.Launch.project_id == launch.project_id,
            models.Launch.id != launch.id,
            models.Launch.evidence_fingerprint == fingerprint)
        .limit(1)).one_or_none()


def page(session, limit, visible_to=None, sort=None, marker=None,
         created_at=None, **equal):
    """One page.

    :param visible_to: project that all of them must belong to; None: any
    :param equal: values that columns must have, by their names
    :returns: (list of Launch, whether more follow)
    """
    query = paging.restrict(sa.select(models.Launch),
                            models.Launch.created_at, created_at)
    if visible_to is not None:
        query = query.where(models.Launch.project_id == visible_to)
    for name, value in equal.items():
        query = query.where(getattr(models.Launch, name) == value)
    if marker is not None:
        wanted = marker
        marker = find(session, wanted)
        if marker is None or visible_to not in (None, marker.project_id):
            raise paging.unknown_marker(wanted)
    rows, more = _COLLECTION.select(session, query, limit, sort, marker)
    return [Launch._from_row(row) for row in rows], more


def create(session, launch):
    """Store a new launch; closes the server's open one.

    :param launch: Launch in the status session_issued
    :raises oslo_db.exception.DBDuplicateEntry: the id is there already, or
        another launch of the server came at the same moment
    """
    _close(session, SUPERSEDED,
           models.Launch.open_for == launch.server_id,
           models.Launch.id != launch.id,
           reason_code='attestation.superseded',
           reason_detail=_SUPERSEDED_DETAIL)
    major, minor = launch.platform_api
    _add(session, launch, open_for=launch.server_id,
         platform_api_major=major, platform_api_minor=minor)


def record_refused(session, launch):
    """Store a launch that never began; no other launch is touched.

    :param launch: Launch in the status denied
    :raises oslo_db.exception.DBDuplicateEntry: the id is there already
    """
    _add(session, launch)


def _add(session, launch, **columns):
    for field in dataclasses.fields(launch):
        if field.name not in ('platform_api', 'release', 'verdict',
                              'reason_owner'):
            columns[field.name] = getattr(launch, field.name)
    session.add(models.Launch(**columns))
    session.flush()


def bind_evidence(session, launch_id, fingerprint):
    """Let the first evidence that comes be the only one.

    :returns: whether this evidence is the launch's, now or already
    """
    if _change(session, models.Launch.id == launch_id,
               models.Launch.status == SESSION_ISSUED,
               models.Launch.evidence_fingerprint.is_(None),
               evidence_fingerprint=fingerprint):
        return True
    launch = get(session, launch_id)
    return launch.evidence_fingerprint == fingerprint


def release(session, launch_id, fingerprint, packet, verdict):
    """Keep the ciphertext and destroy the keys.

    :param packet: Release, None when the guest gets no secret
    :returns: whether this call did it; otherwise the launch had left
        session_issued or its time was over
    """
    return bool(_close(
        session, RELEASED, models.Launch.id == launch_id,
        models.Launch.evidence_fingerprint == fingerprint,
        models.Launch.expires_at > timeutils.utcnow(),
        release_header=packet and packet.header,
        release_data=packet and packet.data,
        release_gpa=packet and packet.gpa,
        verdict=json.dumps(verdict, sort_keys=True)))


def deny(session, launch_id, code, detail, owner=None):
    """Close an open launch for good; returns whether this call did it."""
    return bool(_close(
        session, DENIED, models.Launch.id == launch_id, reason_code=code,
        reason_detail=detail,
        reason_owner=json.dumps(owner, sort_keys=True) if owner else None))


def count_overdue(session):
    """How many open launches have outlived their time."""
    return session.scalar(
        sa.select(sa.func.count()).select_from(models.Launch).where(
            models.Launch.status == SESSION_ISSUED,
            models.Launch.expires_at <= timeutils.utcnow()))


def expire(session):
    """Close all launches whose time is over; returns how many."""
    return _close(
        session, EXPIRED, models.Launch.expires_at <= timeutils.utcnow(),
        reason_code='attestation.launch_expired',
        reason_detail=_EXPIRED_DETAIL)


def fail(session, launch_id, detail):
    """The host gave up: from session_issued or released to failed."""
    reason = {'reason_code': 'attestation.host_failed',
              'reason_detail': detail}
    return bool(
        _close(session, FAILED, models.Launch.id == launch_id, **reason)
        or _change(session, models.Launch.id == launch_id,
                   models.Launch.status == RELEASED, status=FAILED,
                   **reason))


def run(session, launch_id):
    """The guest runs: from released to running."""
    return bool(_change(session, models.Launch.id == launch_id,
                        models.Launch.status == RELEASED, status=RUNNING))


def close_all_of_policy(session, policy_id, code, detail):
    """Deny the open launches under any revision of a policy.

    :param session: of a transaction that has changed the policy, which so is
        locked
    :returns: list of Launch, as they were before
    """
    found = [Launch._from_row(row) for row in session.scalars(
        sa.select(models.Launch)
        .where(models.Launch.policy_id == policy_id,
               models.Launch.status == SESSION_ISSUED)
        .order_by(models.Launch.id).with_for_update())]
    _close(session, DENIED, models.Launch.policy_id == policy_id,
           reason_code=code, reason_detail=detail)
    return found


def sealing_keys_in_use(session):
    """Ids of the sealing keys that launches still need, as a set."""
    return set(session.scalars(
        sa.select(models.Launch.sealing_key_id).distinct().where(
            models.Launch.sealing_key_id.is_not(None))))


def purge(session, before):
    """Delete the records of launches that are over.

    :param before: datetime; those that changed last before it
    :returns: how many
    """
    return session.execute(
        sa.delete(models.Launch).where(
            models.Launch.status != SESSION_ISSUED,
            models.Launch.updated_at < before)
        .execution_options(synchronize_session=False)).rowcount
