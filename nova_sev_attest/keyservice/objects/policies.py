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

"""Attestation policies of a project."""

import dataclasses
import datetime
import hashlib
import json
import uuid

from oslo_db import exception as db_exc
from oslo_utils import timeutils
import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import paging

_COLLECTION = paging.Collection(
    models.Policy, ('created_at', 'updated_at', 'name'), 'created_at:asc')
_REVISIONS = paging.Collection(
    models.PolicyRevision, ('revision',), 'revision:desc', unique='revision')

#: Who verifies, and who approves.
SERVICE = 'service'
OWNER = 'owner'
AUTOMATIC = 'automatic'

#: What a launch is for.
BOOT = 'boot'
RESCUE = 'rescue'


@dataclasses.dataclass(frozen=True)
class Rescue:
    """What a policy says of rescues, besides what it says of every launch.

    :ivar kernels: as in Content, and so are initrds and command_lines; None:
        what a boot may have
    :ivar secrets: as in Content; none of a boot's
    """

    kernels: list[str] | None = None
    initrds: list[str] | None = None
    command_lines: list[str] | None = None
    secrets: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Content:
    """What an owner says in one revision of a policy.

    :ivar firmwares: SHA-256, as are kernels and initrds: 64 hex digits each
    :ivar cpu_models: QEMU's names; with cpu_signatures, CPUID leaf 1 EAX of
        others, and launch_profiles what SEV-ES measures besides vcpus
    :ivar min_api_version: 'major.minor' or None; min_build: of that version
    :ivar allowed_chips: SHA-256 of CEK certificates, and allowed_owners of
        OCA certificates; None allows any
    :ivar secrets: {GUID: UUID in the secret store}, both canonical text
    :ivar verifier: who verifies the evidence, SERVICE or OWNER
    :ivar approval: AUTOMATIC, or OWNER who approves each release
    :ivar limits: what else restricts releases, for keyservice/limits.py; None
        for nothing
    :ivar rescue: Rescue; None: a rescue may have what a boot may, and gets no
        secret
    """

    name: str
    technologies: list[str]
    trusted_roots: list[str]
    firmwares: list[str]
    kernels: list[str]
    initrds: list[str]
    command_lines: list[str]
    vcpus: list[int] | None
    firmware_boot: bool
    min_api_version: str | None
    secrets: dict[str, str]
    is_default: bool
    # Revisions from before SEV-ES have none.
    cpu_models: list[str] = dataclasses.field(default_factory=list)
    cpu_signatures: list[int] = dataclasses.field(default_factory=list)
    launch_profiles: list[str] = dataclasses.field(default_factory=list)
    # Nor do those from before chips could be told apart.
    min_build: int | None = None
    allowed_chips: list[str] | None = None
    allowed_owners: list[str] | None = None
    # Nor those from before owners could verify, approve and limit.
    verifier: str = SERVICE
    approval: str = AUTOMATIC
    limits: dict | None = None
    # Nor those from before rescues were told from boots.
    rescue: Rescue | None = None

    @property
    def min_api(self):
        """(major, minor), (0, 0) when any will do."""
        if self.min_api_version is None:
            return 0, 0
        major, minor = self.min_api_version.split('.')
        return int(major), int(minor)

    def of(self, purpose):
        """What it says of launches of one purpose, a Content.

        Whatever is not a boot gets none of a boot's secrets.
        """
        if purpose == BOOT:
            return self
        part = dataclasses.asdict(self.rescue or Rescue())
        return dataclasses.replace(self, **{
            name: value for name, value in part.items() if value is not None})

    def secret_ids(self):
        """UUIDs in the secret store of all that it names, a set."""
        return {secret_id for purpose in (BOOT, RESCUE)
                for secret_id in self.of(purpose).secrets.values()}

    def members(self):
        """Its members as the API has them, a dict."""
        found = dataclasses.asdict(self)
        for part in (found, found['rescue']):
            if part is not None:
                part['secrets'] = [
                    {'guid': guid, 'secret_ref': secret_id}
                    for guid, secret_id in part['secrets'].items()]
        return found

    def _body(self):
        """What is stored of it, a dict."""
        body = dataclasses.asdict(self)
        if body['rescue'] is None:
            # So that a release that knows no rescues reads it. One that has
            # a part for them it cannot read, and must not.
            del body['rescue']
        return body

    @classmethod
    def _from_body(cls, body):
        rescue = body.get('rescue')
        return cls(**(body | {'rescue': rescue and Rescue(**rescue)}))


@dataclasses.dataclass(frozen=True)
class Policy:
    """One revision of a policy.

    :ivar content_sha256: over the content as it is stored, as JSON with
        sorted keys and no spaces; 64 hexadecimal digits
    :ivar updated_at: when this revision was made
    :ivar revoked_at: of the policy: since when it releases nothing, or None
    :ivar release_count: of the policy: launches that were released under any
        of its revisions
    """

    id: str
    revision: int
    project_id: str
    content: Content
    content_sha256: str
    created_at: datetime.datetime
    updated_at: datetime.datetime
    revoked_at: datetime.datetime | None
    release_count: int


def _query(project_id, policy_id):
    return sa.select(models.Policy).where(
        models.Policy.project_id == project_id,
        models.Policy.id == policy_id)


def _row(session, project_id, policy_id):
    row = session.scalars(_query(project_id, policy_id)).one_or_none()
    if row is None:
        raise _not_found(policy_id)
    return row


def _find(session, *conditions, revision=None):
    """The policy that conditions single out, or None.

    :raises NotFound: it has no such revision
    """
    number = models.Policy.revision if revision is None else revision
    found = session.execute(
        sa.select(models.Policy, models.PolicyRevision)
        .outerjoin(models.PolicyRevision, sa.and_(
            models.PolicyRevision.policy_id == models.Policy.id,
            models.PolicyRevision.revision == number))
        .where(*conditions)).one_or_none()
    if found is None:
        return None
    row, stored = found
    if stored is None:
        raise _no_revision(row, revision)
    return _of_revision(row, stored)


def _not_found(policy_id):
    return errors.NotFound('policy_not_found',
                           f'The project has no policy {policy_id}.')


def _changed():
    return errors.PreconditionFailed(
        'policy_changed',
        'The policy was changed in the meantime; read it again.')


def _of_revision(row, stored):
    body = json.loads(stored.body)
    text = json.dumps(body, sort_keys=True, separators=(',', ':'))
    return Policy(
        id=row.id, revision=stored.revision, project_id=row.project_id,
        content=Content._from_body(body),
        content_sha256=hashlib.sha256(text.encode()).hexdigest(),
        created_at=row.created_at, updated_at=stored.created_at,
        revoked_at=row.revoked_at, release_count=row.release_count)


def _no_revision(row, number):
    return errors.NotFound(
        'policy_revision_not_found',
        f'Policy {row.id} has no revision {number}; its current one is '
        f'{row.revision}.')


def _load(session, row):
    return _of_revision(row, session.scalars(
        sa.select(models.PolicyRevision).where(
            models.PolicyRevision.policy_id == row.id,
            models.PolicyRevision.revision == row.revision)).one())


def get(session, project_id, policy_id, revision=None):
    """A policy at a revision, the current one by default.

    :raises NotFound: the project has no such policy, or it no such revision
    """
    found = _find(session, models.Policy.project_id == project_id,
                  models.Policy.id == policy_id, revision=revision)
    if found is None:
        raise _not_found(policy_id)
    return found


def get_locked(session, project_id, policy_id):
    """Like get(); no other transaction changes it until this one ends."""
    row = session.scalars(_query(project_id, policy_id)
                          .with_for_update()).one_or_none()
    if row is None:
        raise _not_found(policy_id)
    return _load(session, row)


def page_of_revisions(session, project_id, policy_id, limit, sort=None,
                      marker=None):
    """One page of the revisions of a policy.

    :param marker: number of a revision
    :returns: (list of Policy, whether more follow)
    :raises NotFound: the project has no such policy
    """
    row = _row(session, project_id, policy_id)
    query = sa.select(models.PolicyRevision).where(
        models.PolicyRevision.policy_id == policy_id)
    if marker is not None:
        wanted = marker
        marker = session.get(models.PolicyRevision, (policy_id, wanted))
        if marker is None:
            raise paging.unknown_marker(wanted)
    stored, more = _REVISIONS.select(session, query, limit, sort, marker)
    return [_of_revision(row, one) for one in stored], more


def find_by_name(session, project_id, name):
    """The project's policy of this name, or None."""
    return _find(session, models.Policy.project_id == project_id,
                 models.Policy.name == name)


def find_by_id(session, project_id, policy_id, revision=None):
    """Like get(), None where that raises NotFound."""
    try:
        return get(session, project_id, policy_id, revision)
    except errors.NotFound:
        return None


def find_default(session, project_id):
    """The project's default policy, or None."""
    return _find(session, models.Policy.default_of == project_id)


def page(session, project_id, limit, sort=None, marker=None, name=None,
         is_default=None, revoked=None, created_at=None):
    """One page.

    :returns: (list of Policy, whether more follow)
    """
    query = paging.restrict(
        sa.select(models.Policy).where(
            models.Policy.project_id == project_id),
        models.Policy.created_at, created_at)
    if name is not None:
        query = query.where(models.Policy.name == name)
    for column, wanted in ((models.Policy.default_of, is_default),
                           (models.Policy.revoked_at, revoked)):
        if wanted is not None:
            query = query.where(column.is_not(None) if wanted
                                else column.is_(None))
    if marker is not None:
        wanted = marker
        marker = session.scalars(
            _query(project_id, wanted)).one_or_none()
        if marker is None:
            raise paging.unknown_marker(wanted)
    rows, more = _COLLECTION.select(session, query, limit, sort, marker)
    found = {policy.id: policy for policy in _current(
        session, models.Policy.id.in_([row.id for row in rows]))}
    # One may have been deleted since.
    return [found[row.id] for row in rows if row.id in found], more


def _current(session, *conditions):
    """Current revisions of policies, with one query."""
    return [_of_revision(row, stored) for row, stored in session.execute(
        sa.select(models.Policy, models.PolicyRevision)
        .join(models.PolicyRevision, sa.and_(
            models.PolicyRevision.policy_id == models.Policy.id,
            models.PolicyRevision.revision == models.Policy.revision))
        .where(*conditions).order_by(models.Policy.name))]


def count(session, project_id):
    """How many policies a project has."""
    return session.scalar(
        sa.select(sa.func.count()).select_from(models.Policy)
        .where(models.Policy.project_id == project_id))


def create(session, project_id, content):
    """Store the first revision of a new policy.

    :raises Conflict: the name is taken, or there is another default
    :raises BadRequest: it names a firmware that the project has not
    """
    now = timeutils.utcnow()
    row = models.Policy(
        id=str(uuid.uuid4()), project_id=project_id, revision=1,
        name=content.name, default_of=_default_of(project_id, content),
        created_at=now, updated_at=now)
    session.add(row)
    try:
        session.flush()
    except db_exc.DBDuplicateEntry as exc:
        raise _taken(exc, content) from exc
    _store_revision(session, row.id, 1, project_id, content, now)
    return _load(session, row)


def update(session, policy, content):
    """Store the next revision.

    :param policy: the revision that the change was made from
    :raises PreconditionFailed: it is not the current one any more
    :raises Conflict, BadRequest: as in create()
    """
    now = timeutils.utcnow()
    try:
        changed = session.execute(
            sa.update(models.Policy)
            .where(models.Policy.id == policy.id,
                   models.Policy.project_id == policy.project_id,
                   models.Policy.revision == policy.revision)
            .values(revision=policy.revision + 1, name=content.name,
                    default_of=_default_of(policy.project_id, content),
                    updated_at=now)
            .execution_options(synchronize_session=False)).rowcount
    except db_exc.DBDuplicateEntry as exc:
        raise _taken(exc, content) from exc
    if changed != 1:
        raise _changed()
    for table in (models.PolicyFirmware, models.PolicySecret,
                  models.PolicyRescueSecret):
        session.execute(sa.delete(table).where(
            table.policy_id == policy.id))
    _store_revision(session, policy.id, policy.revision + 1,
                    policy.project_id, content, now)
    session.expire_all()
    return get(session, policy.project_id, policy.id)


def delete(session, policy):
    """Delete a policy with all its revisions.

    :param policy: the revision that is to be the last
    :raises PreconditionFailed: it is not the current one any more
    """
    if not session.execute(
            sa.delete(models.Policy).where(
                models.Policy.id == policy.id,
                models.Policy.revision == policy.revision)
            .execution_options(synchronize_session=False)).rowcount:
        raise _changed()


def revoke(session, policy):
    """Let nothing be released under a policy from now on.

    :param policy: Policy, any revision
    :returns: whether this call did it; it may have been revoked before
    """
    return _revoke(session, policy, models.Policy.revoked_at.is_(None),
                   revoked_at=timeutils.utcnow())


def restore(session, policy):
    """Take a revocation back.

    :param policy: the revision that is to be in force again
    :returns: whether this call did it; the policy may not be revoked, or
        have another revision by now
    """
    return _revoke(session, policy, models.Policy.revoked_at.is_not(None),
                   models.Policy.revision == policy.revision,
                   revoked_at=None)


def _revoke(session, policy, *conditions, **values):
    changed = session.execute(
        sa.update(models.Policy)
        .where(models.Policy.id == policy.id,
               models.Policy.project_id == policy.project_id, *conditions)
        .values(**values)
        .execution_options(synchronize_session=False)).rowcount
    session.expire_all()
    return bool(changed)


def count_release(session, policy_id, at_most=None):
    """Count one release under a policy, in the transaction that releases.

    The policy's row stays locked until then, so that no release slips past a
    revocation or past the count that others make at the same time.

    :param at_most: releases that the policy's limits allow, None: any
    :returns: whether it may be; False: the policy is revoked or deleted, or
        its releases are used up
    """
    conditions = [models.Policy.id == policy_id,
                  models.Policy.revoked_at.is_(None)]
    if at_most is not None:
        conditions.append(models.Policy.release_count < at_most)
    return bool(session.execute(
        sa.update(models.Policy).where(*conditions)
        .values(release_count=models.Policy.release_count + 1)
        .execution_options(synchronize_session=False)).rowcount)


def hold(session, policy_id):
    """Keep a policy as it is until the transaction ends.

    :returns: whether it is in force: not revoked, not deleted
    """
    return session.scalars(
        sa.select(models.Policy.id)
        .where(models.Policy.id == policy_id,
               models.Policy.revoked_at.is_(None))
        .with_for_update(read=True)).one_or_none() is not None


def sharing_secrets(session, project_id, found):
    """Which other policies of a project name the secrets of some of them.

    :param found: list of Policy, current revisions
    :returns: {id of one of them: list of (Policy, sorted list of the UUIDs of
        secrets)}, by name
    """
    tables = models.PolicySecret, models.PolicyRescueSecret
    ids = [policy.id for policy in found]
    named = sa.union(*(sa.select(table.secret_id).where(
        table.policy_id.in_(ids)) for table in tables))
    naming = [
        (policy, policy.content.secret_ids()) for policy in _current(
            session, models.Policy.project_id == project_id,
            models.Policy.id.in_(sa.union(*(
                sa.select(table.policy_id).where(table.secret_id.in_(named))
                for table in tables))))]
    result = {}
    for policy in found:
        own = policy.content.secret_ids()
        result[policy.id] = [
            (other, sorted(own & theirs)) for other, theirs in naming
            if other.id != policy.id and own & theirs]
    return result


def _default_of(project_id, content):
    return project_id if content.is_default else None


def _taken(exc, content):
    if any('default_of' in column for column in exc.columns):
        return errors.Conflict(
            'default_exists',
            'Another policy of the project is its default; set its '
            'is_default to false first.')
    return errors.Conflict(
        'policy_name_taken',
        f'The project has a policy named {content.name!r}.')


def _store_revision(session, policy_id, revision, project_id, content, now):
    session.add(models.PolicyRevision(
        policy_id=policy_id, revision=revision, created_at=now,
        body=json.dumps(content._body(), sort_keys=True)))
    # Locked against a delete that runs at the same time.
    found = dict(session.execute(
        sa.select(models.Firmware.sha256, models.Firmware.id)
        .where(models.Firmware.project_id == project_id,
               models.Firmware.sha256.in_(content.firmwares))
        .with_for_update(read=True)).all())
    missing = [sha256 for sha256 in content.firmwares if sha256 not in found]
    if missing:
        raise errors.BadRequest(
            'firmware_unknown',
            f'The project has no firmware with SHA-256 {missing[0]}; upload '
            f'it by PUT /v1/firmwares/{missing[0]} first.')
    session.add_all(
        models.PolicyFirmware(policy_id=policy_id, firmware_id=found[sha256])
        for sha256 in content.firmwares)
    for table, purpose in ((models.PolicySecret, BOOT),
                           (models.PolicyRescueSecret, RESCUE)):
        session.add_all(
            table(policy_id=policy_id, guid=guid, secret_id=secret_id)
            for guid, secret_id in content.of(purpose).secrets.items())
    session.flush()
