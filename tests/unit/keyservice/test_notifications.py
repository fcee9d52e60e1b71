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

import logging
import threading
import time

import oslo_messaging
import pytest

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.keyservice import events
from nova_sev_attest.keyservice import notifications

RECORD = chain.Record(
    'p', 3, '2026-11-24T03:43:00.000000Z', 'launch.denied', 'l', 'host-1',
    'req-1', '{}').chained(bytes(32))
HEAD = chain.Point.of(RECORD)


def event(name='launch.denied', **details):
    return events.Event(name, 'p', 'l', 'host-1', 'req-1', details)


def configured(**options):
    conf = conf_keyservice.load(config_files=[])
    for name, value in options.items():
        conf.set_override(name, value, group='notifications')
    return conf


class Notifier:
    """In place of oslo.messaging's: keeps, waits, fails."""

    def __init__(self):
        self.sent = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.failure = None

    def _send(self, priority):
        def send(context, event_type, payload):
            assert self.go_on.wait(20)
            if self.failure is not None:
                raise self.failure
            self.sent.append((priority, context, event_type, payload))
        return send

    def __getattr__(self, name):
        return self._send(name)


@pytest.fixture
def notifier():
    found = Notifier()
    yield found
    found.go_on.set()


def made(notifier, dropped=None, **options):
    return notifications.Notifications(
        notifier, configured(**options).notifications, dropped)


def test_payload():
    assert notifications.payload(event(reason_code='c'), RECORD, HEAD) == {
        'version': '1.0', 'project_id': 'p', 'subject': 'l',
        'actor': 'host-1', 'request_id': 'req-1', 'at': RECORD.at,
        'sequence': 3, 'hash': RECORD.hash.hex(), 'head': str(HEAD),
        'details': {'reason_code': 'c'}}
    assert notifications.payload(event(), RECORD, None)['head'] is None


def test_sends_in_order_with_their_priorities(notifier):
    sender = made(notifier)
    for name in ('launch.session_issued', 'launch.denied', 'launch.expired'):
        sender(event(name), RECORD, HEAD)
    sender.stop()
    assert [(priority, event_type)
            for priority, _context, event_type, _payload in notifier.sent] == [
        ('info', 'attestation.launch.session_issued'),
        ('error', 'attestation.launch.denied'),
        ('warn', 'attestation.launch.expired')]
    assert notifier.sent[0][1] == {'request_id': 'req-1', 'project_id': 'p'}


def test_priorities_are_of_events():
    assert set(notifications.PRIORITIES) <= set(events.EVENTS)
    assert set(notifications.PRIORITIES.values()) <= set(
        dir(oslo_messaging.Notifier))


def test_nobody_waits_for_a_bus_that_is_down(notifier, caplog):
    dropped = []
    sender = made(notifier, lambda: dropped.append(1), queue_size=3,
                  stop_timeout=0.1)
    notifier.go_on.clear()
    sender(event(), RECORD, HEAD)
    # Until the thread has taken it.
    for _ in range(1000):
        if not sender._queue.qsize():
            break
        time.sleep(0.01)
    began = time.monotonic()
    for _ in range(8):
        sender(event(), RECORD, HEAD)
    assert time.monotonic() - began < 5
    assert len(dropped) == 5
    # Not a line for each.
    logged = [record for record in caplog.records
              if record.levelno == logging.ERROR]
    assert len(logged) == 1
    assert 'the queue of 3 is full' in caplog.text
    sender.stop()
    assert 'notifications were not sent' in caplog.text
    notifier.go_on.set()


def test_what_waits_is_sent_at_the_end(notifier):
    sender = made(notifier, stop_timeout=20)
    notifier.go_on.clear()
    for _ in range(50):
        sender(event(), RECORD, HEAD)
    threading.Timer(0.2, notifier.go_on.set).start()
    sender.stop()
    assert len(notifier.sent) == 50


def test_a_failure_stops_neither_the_caller_nor_the_next(notifier, caplog):
    dropped = []
    sender = made(notifier, lambda: dropped.append(1))
    notifier.failure = RuntimeError('no such exchange')
    sender(event(), RECORD, HEAD)
    while not dropped:
        time.sleep(0.01)
    notifier.failure = None
    sender(event(), RECORD, HEAD)
    sender.stop()
    assert len(notifier.sent) == 1 and len(dropped) == 1
    assert 'launch.denied cannot be sent' in caplog.text


def test_no_thread_before_the_first(notifier):
    before = threading.active_count()
    sender = made(notifier)
    assert threading.active_count() == before
    sender.stop()
    sender(event(), RECORD, HEAD)
    sender.stop()
    assert len(notifier.sent) == 1


def test_off_by_default():
    assert notifications.load(configured()) is None


def test_a_transport_that_cannot_be_used():
    conf = configured()
    notifications.load(conf)
    conf.set_override('driver', ['messagingv2'],
                      group='oslo_messaging_notifications')
    conf.set_override('transport_url', 'unheard-of://',
                      group='oslo_messaging_notifications')
    with pytest.raises(oslo_messaging.MessagingException):
        notifications.load(conf)


class _Endpoint:
    def __init__(self):
        self.got = []
        self.came = threading.Event()

    def _take(self, context, publisher_id, event_type, payload, metadata):
        self.got.append((publisher_id, event_type, payload))
        self.came.set()

    error = _take


def test_over_oslo_messaging():
    """As a consumer of the cloud's notifications gets it."""
    conf = configured()
    notifications.load(conf)
    group = 'oslo_messaging_notifications'
    conf.set_override('driver', ['messagingv2'], group=group)
    conf.set_override('transport_url', 'fake:/', group=group)
    endpoint = _Endpoint()
    listener = oslo_messaging.get_notification_listener(
        oslo_messaging.get_notification_transport(conf),
        [oslo_messaging.Target(topic='notifications')], [endpoint],
        executor='threading')
    listener.start()
    try:
        sender = notifications.load(conf)
        sender(event(reason_code='c'), RECORD, HEAD)
        assert endpoint.came.wait(20)
        sender.stop()
    finally:
        listener.stop()
        listener.wait()
    (publisher, event_type, payload), = endpoint.got
    assert publisher.startswith('nova-sev-attest.')
    assert event_type == 'attestation.launch.denied'
    assert payload == notifications.payload(event(reason_code='c'), RECORD,
                                            HEAD)
