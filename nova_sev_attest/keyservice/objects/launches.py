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
not. Whatever closes a launch, or releases to it, destroys the sealed keys in
the same statement.

A transaction that changes a launch and its policy changes the launch first:
always in that order, lest two transactions wait for one another.
"""

import collections
import dataclasses
import datetime
import json

import sqlalchemy as sa
from sqlalchemy import orm

from nova_sev_attest.keyservice.db import clock
from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import paging
from nova_sev_attest.keyservice.objects import policies

AWAITING_SESSION = 'awaiting_session'
SESSION_ISSUED = 'session_issued'
AWAITING_RELEASE = 'awaiting_release'
RELEASED = 'released'
RUNNING = 'running'
FAILED = 'failed'
DENIED = 'denied'
EXPIRED = 'expired'
SUPERSEDED = 'superseded'

#: Statuses of launches that may still be released.
OPEN = (AWAITING_SESSION, SESSION_ISSUED, AWAITING_RELEASE)

_EXPIRED_DETAILS = {
    AWAITING_SESSION:
        'The owner made no session in time. Start the server again.',
    SESSION_ISSUED:
        'No evidence that verifies came in time; the launch\'s keys are '
        'destroyed. Start the server again.',
    AWAITING_RELEASE:
        'The owner did not decide in time; the launch\'s keys are destroyed. '
        'Start the server again.',
}
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
class Certificates:
    """What a platform showed.

    :ivar pdh: bytes, as cert_chain
    :ivar signed_cek: the CEK that AMD signed, where it is not the host's;
        bytes or None
    """

    pdh: bytes
    cert_chain: bytes
    signed_cek: bytes | None


@dataclasses.dataclass(frozen=True)
class Launch:
    """A launch as stored.

    One that was refused at its beginning has no platform, session or keys,
    and no policy when none was found.

    :ivar token_hash: SHA-256 of the launch token
    :ivar request_fingerprint: SHA-256 that names the request's content
    :ivar purpose: what it is for, policies.BOOT or policies.RESCUE
    :ivar verifier: as in its policy, and so is approval
    :ivar platform_cek: SHA-256 of the CEK certificate
    :ivar platform_chip: the chip's id in hexadecimal; None when the CEK is the
        one that the host showed
    :ivar sealed_keys: None once they are destroyed, and where the owner has
        the keys
    :ivar evidence_fingerprint: SHA-256 that names the evidence; None before
        it came
    :ivar release_fingerprint: SHA-256 that names what the owner uploaded for
        the release; None else
    :ivar release: Release, or None
    :ivar decided_by: id of the user who released, approved or denied it
    :ivar reason_owner: what the owner alone may see of the reason
    :ivar time_left: timedelta from when it was read to expires_at, by the
        database's clock
    """

    id: str
    server_id: str
    project_id: str
    host: str
    technology: str
    status: str
    token_hash: bytes
    request_fingerprint: bytes
    purpose: str = policies.BOOT
    created_at: datetime.datetime | None = None
    updated_at: datetime.datetime | None = None
    expires_at: datetime.datetime | None = None
    policy_id: str | None = None
    policy_revision: int | None = None
    verifier: str = policies.SERVICE
    approval: str = policies.AUTOMATIC
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
    release_fingerprint: bytes | None = None
    release: Release | None = dataclasses.field(default=None, repr=False)
    verdict: dict | None = None
    decided_by: str | None = None
    decided_at: datetime.datetime | None = None
    reason_code: str | None = None
    reason_detail: str | None = None
    reason_owner: dict | None = None
    time_left: datetime.timedelta | None = None

    @property
    def is_open(self):
        return self.status in OPEN

    @property
    def is_overdue(self):
        return self.is_open and self.time_left <= datetime.timedelta()

    @property
    def is_released(self):
        return self.status in (RELEASED, RUNNING)

    @property
    def waiting_for(self):
        """What the owner has to give: session, secret, approval or None."""
        if self.status == AWAITING_SESSION:
            return 'session'
        if self.status == AWAITING_RELEASE:
            return 'secret' if self.verifier == policies.OWNER else 'approval'
        return None

    @classmethod
    def _from_row(cls, row, now):
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
            # Launches from before there was a choice have none.
            'purpose': row.purpose or policies.BOOT,
            'verifier': row.verifier or policies.SERVICE,
            'approval': row.approval or policies.AUTOMATIC,
            'time_left': row.expires_at - now,
        }
        return cls(**made, **{
            field.name: getattr(row, field.name)
            for field in dataclasses.fields(cls) if field.name not in made})


# What is in no Launch: looked at seldom, and large.
_APART = ('platform_pdh', 'platform_cert_chain', 'platform_signed_cek',
          'evidence', 'claims')
_NOT_COLUMNS = frozenset((
    'platform_api', 'release', 'verdict', 'reason_owner', 'time_left'))


# Made once, as what makes a statement of so many columns takes longer than
# what runs it; and of the table, not the model, whose objects nobody needs.
# Each row comes with the time that it was read at.
_COLUMNS = models.Launch.__table__.columns
_SELECT = sa.select(
    *(column for column in _COLUMNS if column.name not in _APART),
    clock.now().label('read_at'))
_BY_ID = _SELECT.where(_COLUMNS.id == sa.bindparam('wanted'))
_OPEN_FOR = _SELECT.where(_COLUMNS.open_for == sa.bindparam('wanted'))


def _launches(session, query, **values):
    """The launches that a query made of _SELECT finds."""
    return [Launch._from_row(row, row.read_at)
            for row in session.execute(query, values)]


def _change(session, launch, /, *conditions, **values):
    """One UPDATE of a launch that nobody else changed in the meantime.

    :param launch: Launch; its status is the one that is started from
    :returns: whether it was changed
    """
    return bool(session.execute(
        sa.update(models.Launch)
        .where(models.Launch.id == launch.id,
               models.Launch.status == launch.status, *conditions)
        .values(updated_at=clock.now(), **values)
        .execution_options(synchronize_session=False)).rowcount)


def _in_time():
    return models.Launch.expires_at > clock.now()


def _close(session, launch, status, /, *conditions, **values):
    """Leave the statuses of OPEN; the keys go with them."""
    return _change(session, launch, *conditions, status=status, open_for=None,
                   sealed_keys=None, sealing_key_id=None, **values)


def find(session, launch_id):
    """The launch, or None."""
    found = _launches(session, _BY_ID, wanted=launch_id)
    return found[0] if found else None


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


def find_open(session, server_id):
    """The open launch of a server, or None."""
    found = _launches(session, _OPEN_FOR, wanted=server_id)
    return found[0] if found else None


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


def certificates(session, launch_id):
    """The Certificates of a launch's platform, or None."""
    row = session.execute(
        sa.select(models.Launch.platform_pdh,
                  models.Launch.platform_cert_chain,
                  models.Launch.platform_signed_cek)
        .where(models.Launch.id == launch_id)).one()
    return None if row[0] is None else Certificates(*row)


def evidence(session, launch_id):
    """What a host sent.

    :returns: (evidence, claims), each as in the request; None before it came
    """
    row = session.execute(
        sa.select(models.Launch.evidence, models.Launch.claims)
        .where(models.Launch.id == launch_id)).one()
    return None if row[0] is None else tuple(map(json.loads, row))


def page(session, limit, visible_to=None, sort=None, marker=None,
         created_at=None, **equal):
    """One page.

    :param visible_to: project that all of them must belong to; None: any
    :param equal: values that columns must have, by their names
    :returns: (list of Launch, whether more follow)
    """
    query = paging.restrict(
        sa.select(models.Launch).options(*(
            orm.defer(getattr(models.Launch, name)) for name in _APART)),
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
    now = clock.read(session)
    rows, more = _COLLECTION.select(session, query, limit, sort, marker)
    return [Launch._from_row(row, now) for row in rows], more


def create(session, launch, shown, seconds):
    """Store a new open launch.

    :param launch: Launch in one of the statuses of OPEN
    :param shown: Certificates
    :param seconds: how long it has for its first step
    :returns: the Launch with its times
    :raises oslo_db.exception.DBDuplicateEntry: the id is there already, or
        the server has an open launch
    """
    major, minor = launch.platform_api
    return _add(session, launch, seconds, open_for=launch.server_id,
                platform_api_major=major, platform_api_minor=minor,
                session_nonce=launch.session and launch.session[:16],
                platform_pdh=shown.pdh, platform_cert_chain=shown.cert_chain,
                platform_signed_cek=shown.signed_cek)


def record_refused(session, launch):
    """Store a launch that never began; no other launch is touched.

    :param launch: Launch in the status denied
    :returns: the Launch with its times
    :raises oslo_db.exception.DBDuplicateEntry: the id is there already
    """
    return _add(session, launch, 0,
                reason_owner=_optional(launch.reason_owner))


def _add(session, launch, seconds, **columns):
    now = clock.read(session)
    time_left = datetime.timedelta(seconds=seconds)
    launch = dataclasses.replace(
        launch, created_at=now, updated_at=now, expires_at=now + time_left,
        time_left=time_left)
    for field in dataclasses.fields(launch):
        if field.name not in _NOT_COLUMNS:
            columns[field.name] = getattr(launch, field.name)
    session.add(models.Launch(**columns))
    session.flush()
    return launch


def supersede(session, launch):
    """Close a server's open launch, for a newer one of the same server."""
    return _close(session, launch, SUPERSEDED,
                  reason_code='attestation.superseded',
                  reason_detail=_SUPERSEDED_DETAIL)


def set_session(session, launch, made, seconds):
    """Give a launch that waits for it its owner's session.

    :param made: the launch core's OwnerSession
    :param seconds: how long the host has for the evidence
    :returns: whether this call did it
    :raises oslo_db.exception.DBDuplicateEntry: another launch has a session
        with this nonce
    """
    return launch.status == AWAITING_SESSION and _change(
        session, launch, _in_time(), status=SESSION_ISSUED,
        dh_cert=made.godh_certificate, session=made.session,
        session_nonce=made.nonce, expires_at=_from_now(session, seconds))


def bind_evidence(session, launch, fingerprint, evidence, claims):
    """Let the first evidence that comes be the only one.

    :param evidence: of the request, as claims
    :returns: whether this call did it; the launch may have evidence already
    """
    return launch.status == SESSION_ISSUED and _change(
        session, launch, models.Launch.evidence_fingerprint.is_(None),
        _in_time(), evidence_fingerprint=fingerprint,
        evidence=_json(evidence), claims=_json(claims))


def await_release(session, launch, seconds, verdict=None):
    """Let a launch whose evidence came wait for its owner.

    :param seconds: how long the owner has
    :param verdict: dict, None where the owner verifies
    :returns: whether this call did it
    """
    return launch.status == SESSION_ISSUED and _change(
        session, launch, models.Launch.evidence_fingerprint.is_not(None),
        _in_time(), status=AWAITING_RELEASE,
        expires_at=_from_now(session, seconds),
        verdict=_optional(verdict))


def release(session, launch, packet, **values):
    """Keep the ciphertext and destroy the keys.

    :param launch: Launch whose evidence came
    :param packet: Release, None when the guest gets no secret
    :param values: of verdict, release_fingerprint, decided_by
    :returns: whether this call did it; otherwise the launch's status was
        another one or its time was over
    """
    if 'verdict' in values:
        values['verdict'] = _json(values['verdict'])
    return _close(
        session, launch, RELEASED, _in_time(),
        models.Launch.evidence_fingerprint.is_not(None),
        release_header=packet and packet.header,
        release_data=packet and packet.data,
        release_gpa=packet and packet.gpa, **_decision(values))


def deny(session, launch, code, detail, owner=None, **values):
    """Close an open launch for good; returns whether this call did it.

    :param owner: what the owner alone may see of the reason, a dict
    :param values: decided_by
    """
    return launch.is_open and _close(
        session, launch, DENIED, reason_code=code, reason_detail=detail,
        reason_owner=_optional(owner), **_decision(values))


def _decision(values):
    if 'decided_by' in values:
        values['decided_at'] = clock.now()
    return values


def close_all_of_policy(session, policy_id, code, detail):
    """Deny the open launches under any revision of a policy.

    :param session: of a transaction that has changed the policy, which so is
        locked
    :returns: list of Launch, as they were before
    """
    found = _launches(session, _SELECT.where(
        _COLUMNS.policy_id == policy_id, _COLUMNS.status.in_(OPEN))
        .order_by(_COLUMNS.id).with_for_update())
    return [launch for launch in found
            if deny(session, launch, code, detail)]


def overdue(session, limit):
    """Open launches that have outlived their time, the oldest first."""
    return _launches(session, _SELECT.where(
        _COLUMNS.status.in_(OPEN), _COLUMNS.expires_at <= clock.now())
        .order_by(_COLUMNS.expires_at).limit(limit))


def expire(session, launch):
    """Close a launch whose time is over; returns whether this call did it."""
    return launch.is_open and _close(
        session, launch, EXPIRED, models.Launch.expires_at <= clock.now(),
        reason_code='attestation.launch_expired',
        reason_detail=_EXPIRED_DETAILS[launch.status])


def fail(session, launch, detail):
    """The host gave up on an open or released launch."""
    return (launch.is_open or launch.status == RELEASED) and _close(
        session, launch, FAILED, reason_code='attestation.host_failed',
        reason_detail=detail)


def run(session, launch):
    """The guest runs: from released to running."""
    return launch.status == RELEASED and _change(session, launch,
                                                 status=RUNNING)


def _from_now(session, seconds):
    return clock.read(session) + datetime.timedelta(seconds=seconds)


def _json(value):
    return json.dumps(value, sort_keys=True)


def _optional(value):
    return _json(value) if value else None


def sealing_keys_in_use(session):
    """Ids of the sealing keys that launches still need, as a set."""
    return set(session.scalars(
        sa.select(models.Launch.sealing_key_id).distinct().where(
            models.Launch.sealing_key_id.is_not(None))))


def purge(session, before, limit):
    """Delete the records of launches that are over.

    :param before: datetime; those that changed last before it
    :param limit: so many at most
    :returns: {project id: how many}
    """
    found = session.execute(
        sa.select(models.Launch.id, models.Launch.project_id).where(
            models.Launch.status.not_in(OPEN),
            models.Launch.updated_at < before)
        .limit(limit).with_for_update()).all()
    session.execute(
        sa.delete(models.Launch).where(
            models.Launch.id.in_([row.id for row in found]))
        .execution_options(synchronize_session=False))
    return collections.Counter(row.project_id for row in found)
