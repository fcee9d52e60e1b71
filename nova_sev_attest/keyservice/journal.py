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

"""The journal: what was decided, kept and told in one go with the decision.

A transaction that decides something is run by Journal.writer() and says by
Entry.record() what it decides. The records are chained to their project's
audit at the end of that same transaction; after the commit, and only then,
notifications, metrics and the log hear of them. A transaction that is rolled
back leaves nothing anywhere, and none of what is told afterwards can fail or
delay the request.
"""

import contextlib

from oslo_context import context as oslo_context
from oslo_log import log as logging

from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.keyservice.audit import keys as audit_keys
from nova_sev_attest.keyservice import events
from nova_sev_attest.keyservice.objects import audit

LOG = logging.getLogger(__name__)

_MAX_KNOWN = 100000


class Entry:
    """What one transaction decides.

    :ivar session: the SQLAlchemy session of the transaction
    :ivar events: list of Event
    """

    def __init__(self, session):
        self.session = session
        self.events = []

    def record(self, event, project_id, *, subject, actor=None, **details):
        """Say what this transaction decides.

        :param event: one of events.EVENTS
        :param project_id: the project to whose audit it belongs
        :param subject: id of the launch, policy, ... as text
        :param actor: who made it; None: the user of the current request
        :param details: as events.EVENTS allows them; those that are None
            are left out
        :raises ValueError: the event or a detail is unheard of
        """
        self._record(event, project_id, subject, actor, details)

    def record_launch(self, event, launch, *, actor=None, **details):
        """Like record(), of a launch, with what every event of one has.

        :param launch: the Launch as it was before the event, so that its
            times tell how long the step took
        """
        common = {
            'server_id': launch.server_id, 'host': launch.host,
            'technology': launch.technology,
            'purpose': launch.purpose,
            'policy_id': launch.policy_id,
            'policy_revision': launch.policy_revision,
            'verifier': getattr(launch, 'verifier', None),
            'approval': getattr(launch, 'approval', None),
        }
        self._record(event, launch.project_id, launch.id, actor,
                     common | details, began=launch.created_at,
                     previous=launch.updated_at)

    def _record(self, event, project_id, subject, actor, details, **times):
        request = oslo_context.get_current()
        if actor is None and request is not None:
            actor = request.user_id
        self.events.append(events.Event(
            name=event, project_id=project_id, subject=subject, actor=actor,
            request_id=request and request.request_id,
            details={name: value for name, value in details.items()
                     if value is not None}, **times))


class Journal:
    """Runs the transactions that decide something.

    :param database: Database
    :param keys: AuditKeys
    :param listeners: functions of (Event, Record, head as a Point or None
        where another record of the same transaction has it) that are called
        after the commit
    """

    def __init__(self, database, keys, listeners=()):
        self._db = database
        self._keys = keys
        self._listeners = (_log, *listeners)
        self._known = set()

    @contextlib.contextmanager
    def writer(self):
        """Context manager that gives the Entry of one transaction.

        In the place of Database.writer(); like it, it may be run anew by
        db.api.retried.
        """
        with self._db.writer() as session:
            entry = Entry(session)
            yield entry
            told = self._chain(session, entry.events)
        self._known.update(record.project_id for _, record, _ in told)
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        for listener in self._listeners:
            for event, record, head in told:
                try:
                    listener(event, record, head)
                except Exception:
                    # What is decided stays decided.
                    LOG.exception('%(event)s of %(subject)s cannot be told',
                                  {'event': event.name,
                                   'subject': event.subject})

    def _chain(self, session, found):
        """Add events to the chains of their projects.

        :returns: list of (Event, Record, the new head or None)
        """
        told = []
        # Always in the same order, lest two transactions wait for one
        # another.
        for project_id in sorted({event.project_id for event in found}):
            own = [event for event in found
                   if event.project_id == project_id]
            records, head = audit.append(
                session, project_id, [
                    {'event': event.name, 'subject': event.subject,
                     'actor': event.actor, 'request_id': event.request_id,
                     'details': chain.canonical(event.details)}
                    for event in own],
                self.sign, known=project_id in self._known)
            heads = [None] * (len(own) - 1) + [head]
            told += zip(own, records, heads)
        return told

    def sign(self, point):
        """A Point with a signature, if there is a key that can make one.

        A head that is not signed is better than a launch that cannot go on:
        the next signature vouches for all that is before it.
        """
        try:
            return self._keys.sign(point)
        except audit_keys.AuditKeyError as exc:
            LOG.error('An audit head is not signed: %s', exc)
            return point


def _log(event, record, head):
    resource = event.name.partition('.')[0]
    LOG.info('%(event)s: %(resource)s %(subject)s of project %(project)s, '
             'audit record %(sequence)d; %(head)s',
             {'event': event.name, 'resource': resource,
              'subject': event.subject, 'project': event.project_id,
              'sequence': record.sequence, 'head': head or 'head follows'},
             **{'event': event.name, 'subject': event.subject,
                'project': event.project_id, 'actor': event.actor,
                'details': event.details, 'sequence': record.sequence,
                'head': head and str(head)})
