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

"""Notifications of what was decided, over oslo.messaging.

Off unless [oslo_messaging_notifications] driver names a driver. A request
leaves its events in a queue and goes on; a thread of the process sends them,
and waits for RabbitMQ as long as it takes. What does not fit the queue is
dropped, counted and logged: the audit has it, and the number of the next
notification's record tells that one is missing.

Each has the priority of PRIORITIES, info where it is not named there, the
event type ``attestation.`` and the event's name, and this payload:

===============  =============================================================
``version``      of the payload, ``1.0``; members may be added in a minor
                 version
``project_id``   the project to whose audit the event belongs
``subject``      id of the launch, policy, ...
``actor``        id of the user, name of the host, ...; null when not known
``request_id``   of the request that it was decided in, or null
``at``           when, UTC: ``2026-11-24T03:43:00.000000Z``
``sequence``     number of the project's audit record
``hash``         that record's hash in hexadecimal
``head``         the signed head of the project's audit (audit/chain.py);
                 null where another record of the same transaction has it
``details``      object: what events.EVENTS allows for the event
===============  =============================================================
"""

import atexit
import os
import queue
import socket
import threading
import time

from oslo_log import log as logging
import oslo_messaging

from nova_sev_attest import messaging

LOG = logging.getLogger(__name__)

PUBLISHER = 'nova-sev-attest'
EVENT_TYPE_PREFIX = 'attestation.'
VERSION = '1.0'

#: Event -> method of oslo_messaging.Notifier, where it is not info.
PRIORITIES = {
    'audit.purged': 'warn',
    'launch.denied': 'error',
    'launch.evidence_refused': 'error',
    'launch.expired': 'warn',
    'launch.failed': 'warn',
    'launch.superseded': 'warn',
    'policy.revoked': 'warn',
}

# Of saying in the log that notifications are dropped.
_LOG_SECONDS = 60.0


def payload(event, record, head):
    """The payload of an event's notification.

    :param event: Event
    :param record: its Record
    :param head: Point, or None
    """
    return {
        'version': VERSION, 'project_id': event.project_id,
        'subject': event.subject, 'actor': event.actor,
        'request_id': event.request_id, 'at': record.at,
        'sequence': record.sequence, 'hash': record.hash.hex(),
        'head': head and str(head), 'details': event.details,
    }


def load(conf, dropped=None):
    """The Notifications that the configuration asks for, or None.

    :param conf: ConfigOpts
    :param dropped: function that is called when one is dropped
    :raises oslo_messaging.MessagingException: the transport cannot be used
    """
    messaging.register_opts(conf)
    if not conf.oslo_messaging_notifications.driver:
        return None
    transport = oslo_messaging.get_notification_transport(conf)
    notifier = oslo_messaging.Notifier(
        transport, publisher_id=f'{PUBLISHER}.{socket.gethostname()}')
    return Notifications(notifier, conf.notifications, dropped)


class Notifications:
    """A listener of the Journal.

    :param notifier: oslo_messaging.Notifier
    :param options: the group [notifications]
    """

    def __init__(self, notifier, options, dropped=None):
        self._notifier = notifier
        self._queue = queue.Queue(options.queue_size)
        self._stop_seconds = options.stop_timeout
        self._count_dropped = dropped or (lambda: None)
        self._lock = threading.Lock()
        self._thread = None
        # Not before there is something to send: a server may fork first.
        self._pid = None
        self._dropped = 0
        self._log_at = 0.0

    def __call__(self, event, record, head):
        """Leave an event in the queue."""
        if self._pid != os.getpid():
            self._start()
        try:
            self._queue.put_nowait(
                (event.name, event.project_id, event.request_id,
                 payload(event, record, head)))
        except queue.Full:
            self._drop(event.name)

    def _start(self):
        with self._lock:
            if self._pid == os.getpid():
                return
            # A daemon, so that RabbitMQ away does not keep the process.
            self._thread = threading.Thread(
                target=self._run, name='notifications', daemon=True)
            self._thread.start()
            self._pid = os.getpid()
            atexit.register(self.stop)

    def _run(self):
        while (found := self._queue.get()) is not None:
            name, project_id, request_id, content = found
            send = getattr(self._notifier, PRIORITIES.get(name, 'info'))
            try:
                send({'request_id': request_id, 'project_id': project_id},
                     EVENT_TYPE_PREFIX + name, content)
            except Exception:
                LOG.exception('A notification of %s cannot be sent', name)
                self._count_dropped()

    def _drop(self, name):
        self._count_dropped()
        with self._lock:
            self._dropped += 1
            count, now = self._dropped, time.monotonic()
            if now < self._log_at:
                return
            self._log_at, self._dropped = now + _LOG_SECONDS, 0
        LOG.error('%(count)d notifications were dropped, the last of '
                  '%(event)s: the queue of %(size)d is full, so that the '
                  'message bus is down or too slow.',
                  {'count': count, 'event': name,
                   'size': self._queue.maxsize})

    def stop(self):
        """Send what waits, within [notifications] stop_timeout."""
        if self._pid != os.getpid():
            return
        atexit.unregister(self.stop)
        give_up_at = time.monotonic() + self._stop_seconds
        try:
            self._queue.put(None, timeout=self._stop_seconds)
        except queue.Full:
            LOG.error('The message bus takes no notifications.')
        self._thread.join(max(0.0, give_up_at - time.monotonic()))
        left = self._queue.qsize()
        if left:
            LOG.error('About %d notifications were not sent.', left)
