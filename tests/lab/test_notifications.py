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

"""What the key service tells of a launch, as RabbitMQ brings it."""

import json
import queue
import time

from oslo_config import cfg
import oslo_messaging
import pytest

from devstack.lab import credentials
from devstack.lab import owner as lab_owner
from nova_sev_attest import messaging

_SECONDS = 60
PRIORITIES = ('info', 'warn', 'error')


class Listener:
    """A consumer of notifications, such as a cloud's audit would be."""

    def __init__(self, layout):
        self._heard = queue.Queue()
        self._known = []
        conf = cfg.ConfigOpts()
        conf([], project='test')
        messaging.register_opts(conf)
        self._transport = oslo_messaging.get_notification_transport(
            conf, url=credentials.messaging_url(layout))
        self._listener = oslo_messaging.get_notification_listener(
            self._transport, [oslo_messaging.Target(topic='notifications')],
            [self], executor='threading', pool=lab_owner.unique('test'))

    def __enter__(self):
        self._listener.start()
        return self

    def __exit__(self, *exception):
        self._listener.stop()
        self._listener.wait()
        self._transport.cleanup()

    def _hear(self, priority):
        def method(context, publisher, event_type, payload, metadata):
            self._heard.put((priority, publisher, event_type, payload))
        return method

    def __getattr__(self, name):
        if name in PRIORITIES:
            return self._hear(name)
        raise AttributeError(name)

    def wait_for(self, event_type, subject):
        """All that was heard of a subject, once this event was."""
        deadline = time.monotonic() + _SECONDS
        while True:
            about = [one for one in self._known
                     if one[3]['subject'] == subject]
            if event_type in [one[2] for one in about]:
                return about
            try:
                self._known.append(self._heard.get(
                    timeout=max(deadline - time.monotonic(), 0.01)))
            except queue.Empty:
                raise AssertionError(
                    f'{event_type} was not among {about}') from None

    @property
    def heard(self):
        return list(self._known)


@pytest.fixture
def listener(layout):
    with Listener(layout) as found:
        yield found


def test_a_launch_is_told_of_as_it_goes(owner, guest, make_policy, boot,
                                        listener):
    server = boot(make_policy())
    assert owner.wait(server, 'ACTIVE').status == 'ACTIVE'
    launch, = owner.launches(server)
    about = listener.wait_for('attestation.launch.running', launch['id'])
    assert [event_type for _, _, event_type, _ in about] == [
        f'attestation.launch.{step}'
        for step in ('session_issued', 'evidence_received', 'released',
                     'running')]
    assert {priority for priority, *_ in about} == {'info'}
    assert all(publisher.startswith('nova-sev-attest.')
               for _, publisher, *_ in about)
    payloads = [payload for *_, payload in about]
    assert {payload['details']['server_id'] for payload in payloads} == {
        server}
    sequences = [payload['sequence'] for payload in payloads]
    assert sequences == sorted(set(sequences))
    # Of the guest's passphrase, nothing.
    said = json.dumps(listener.heard)
    assert guest.passphrase.decode() not in said


def test_a_denial_is_an_error(owner, make_policy, boot, tampered,
                              assert_refused, listener):
    server = boot(make_policy(), tampered)
    assert_refused(server, 'initrd.*policy')
    launch, = owner.launches(server)
    about = listener.wait_for('attestation.launch.denied', launch['id'])
    priority, _, _, payload = about[-1]
    assert priority == 'error'
    assert payload['details']['reason_code'] == (
        'attestation.initrd_not_allowed')
