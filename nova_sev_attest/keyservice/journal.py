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

A transaction that decides something is run by Journal.writer(), and says
what it decided by Entry.record(). Whatever is told of it is told after the
commit; a transaction that is rolled back, or that is run anew after a
deadlock, is told of once or not at all.
"""

import contextlib
import dataclasses
import datetime

from oslo_context import context as oslo_context
from oslo_log import log as logging
from oslo_utils import timeutils

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Event:
    """One thing that was decided.

    :ivar name: 'launch.released', 'policy.created', ...: resource and what
        happened to it
    :ivar subject: id of the resource
    :ivar actor: id of the user, name of the host, or 'sweeper'; None when
        not known
    :ivar details: {name: JSON value}; no secret, token, session or packet
    :ivar request_id: of the request that it was decided in, or None
    """

    name: str
    project_id: str
    subject: str
    actor: str | None
    details: dict
    at: datetime.datetime
    request_id: str | None


class Entry:
    """What one transaction decides.

    :ivar session: the SQLAlchemy session of the transaction
    """

    def __init__(self, session):
        self.session = session
        self.events = []

    def record(self, event, project_id, *, subject, actor=None, **details):
        """Say what this transaction decides.

        :param event: name of the event
        :param project_id: the project whose record it belongs to
        :param subject: id of the launch, policy, ... as text
        :param actor: who made it; None: the user of the current request
        :param details: JSON values that are not None; never a secret, token,
            session or packet
        """
        request = oslo_context.get_current()
        if actor is None and request is not None:
            actor = request.user_id
        self.events.append(Event(
            name=event, project_id=project_id, subject=subject, actor=actor,
            details={name: value for name, value in details.items()
                     if value is not None},
            at=timeutils.utcnow(),
            request_id=request and request.request_id))

    def record_launch(self, event, launch, *, actor=None, **details):
        """Like record(), of a launch, with what names it.

        :param launch: the Launch as it was before the event, so that its
            times tell how long the step took
        """
        self.record(
            event, launch.project_id, subject=launch.id, actor=actor,
            **{'server_id': launch.server_id, 'host': launch.host,
               'technology': launch.technology,
               'policy_id': launch.policy_id,
               'policy_revision': launch.policy_revision,
               'created_at': launch.created_at.isoformat()} | details)


class Journal:
    """Runs the transactions that decide something.

    :param database: Database
    """

    def __init__(self, database):
        self._db = database

    @contextlib.contextmanager
    def writer(self):
        """Context manager that gives the Entry of one transaction.

        In the place of Database.writer(); like it, it may be run anew by
        db.api.retried.
        """
        with self._db.writer() as session:
            entry = Entry(session)
            yield entry
        for event in entry.events:
            _log(event)


def _log(event):
    LOG.info('%(event)s %(subject)s of project %(project)s',
             {'event': event.name, 'subject': event.subject,
              'project': event.project_id},
             resource={'type': event.name.partition('.')[0],
                       'id': event.subject},
             event=event.name, subject=event.subject,
             project_id=event.project_id, actor=event.actor,
             request_id=event.request_id, details=event.details)
