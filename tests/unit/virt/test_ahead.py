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

import contextlib
import threading
from unittest import mock

import pytest

from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.virt import ahead
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import events
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import steps
from tests.unit.virt import fakes
from tests.unit.virt import test_steps

_SECONDS = 30
GONE = exceptions.AttestationFault(instance_uuid='u', reason='no disk')
DENIED = client_exceptions.AttestationDenied(
    403, 'attestation.policy_missing', 'no policy')


class World(test_steps.World):
    """A launch that a thread opens, slowly where a test wants it so."""

    def __init__(self, folder):
        super().__init__(folder)
        self.launch.domain = self.launch.start = None
        self.launch.events = mock.Mock(spec=events.ActionEvents)
        self.launch.events.event.side_effect = (
            lambda name, to_show: contextlib.nullcontext())
        self.may_answer = threading.Event()
        self.asked = threading.Event()
        self.transport._wait = self._answer
        self.clock = 0.0

    def _answer(self, operation, waiting):
        if operation == 'create':
            self.asked.set()
            assert self.may_answer.wait(_SECONDS)

    def open(self):
        opened = ahead.OpenedAhead(self.launch, mock.Mock(),
                                   clock=lambda: self.clock)
        assert self.asked.wait(_SECONDS)
        return opened

    def outcomes(self):
        return [entry[2:] for entry in self.log if entry[0] == 'outcome']

    def take_over(self, opened):
        """What the driver does with it."""
        opened.wait()
        launch = opened.launch
        launch.domain = domain_xml.parse(fakes.DOMAIN)
        launch.start = self.start
        launch.run(opened, *(kind() for kind in test_steps.ALL[1:]))


@pytest.fixture
def world(tmp_path):
    world = World(str(tmp_path))
    yield world
    world.may_answer.set()


def test_a_boot_takes_over(world):
    opened = world.open()
    world.may_answer.set()
    world.take_over(opened)
    assert world.names() == [
        'create', 'permit', 'start', 'no permit', 'evidence',
        'setLaunchSecurityState', 'setMetadata', 'resume', 'outcome']
    assert world.outcomes() == [('running', None)]


def test_disks_take_none_of_its_time(world):
    opened = world.open()
    world.may_answer.set()
    opened.wait()
    world.now = 1000.0
    assert world.launch.deadline.has_passed()
    opened.execute(world.launch)
    assert world.launch.deadline.remaining() > _SECONDS


def test_what_failed_meanwhile_fails_the_boot_once(world):
    world.transport.failures['create'] = DENIED
    world.may_answer.set()
    opened = ahead.OpenedAhead(world.launch, mock.Mock())
    with pytest.raises(client_exceptions.AttestationDenied) as raised:
        world.take_over(opened)
    assert raised.value is DENIED
    assert world.names() == ['create'] and not world.launch.begun
    assert world.launch.records.left() == []


def test_a_failure_later_closes_the_launch(world):
    world.transport.failures['evidence'] = DENIED
    opened = world.open()
    world.may_answer.set()
    with pytest.raises(client_exceptions.AttestationDenied):
        world.take_over(opened)
    assert not world.launch.begun
    assert world.launch.records.left() == []
    # Undoing ends with what was begun by the thread.
    world.launch.revert(GONE)
    assert world.names().count('create') == 1


def test_given_up_once_open(world):
    opened = world.open()
    world.may_answer.set()
    opened.wait()
    assert len(world.launch.records.left()) == 1
    opened.give_up(GONE)
    assert world.outcomes() == [('failed', str(GONE))]
    assert world.launch.records.left() == []
    world.launch.events.close.assert_called_once_with(0)


def test_given_up_while_it_is_being_opened(world):
    opened = world.open()
    opened.give_up(GONE)
    assert world.outcomes() == []
    world.may_answer.set()
    opened.wait()
    assert world.outcomes() == [('failed', str(GONE))]
    assert world.launch.records.left() == []
    world.launch.events.close.assert_called_once_with(0)


def test_nothing_to_close_where_it_could_not_be_opened(world):
    world.transport.failures['create'] = DENIED
    opened = ahead.OpenedAhead(world.launch, mock.Mock())
    opened.wait()
    opened.give_up(GONE)
    assert world.outcomes() == []


def test_usable_while_fresh_and_for_its_technology(world):
    opened = world.open()
    world.may_answer.set()
    assert opened.is_usable('amd-sev') and not opened.is_usable('amd-sev-es')
    world.clock = ahead.FRESH_SECONDS
    assert opened.is_usable('amd-sev')
    world.clock += 0.1
    assert not opened.is_usable('amd-sev')


def test_the_clock_starts_with_the_session(world):
    # Its owner may have taken long to make it.
    opened = world.open()
    world.clock = 100.0
    world.may_answer.set()
    assert opened.is_usable('amd-sev')


def test_no_threads(world, monkeypatch):
    def start(thread):
        raise RuntimeError('can\'t start new thread')

    monkeypatch.setattr(threading.Thread, 'start', start)
    with pytest.raises(RuntimeError):
        ahead.OpenedAhead(world.launch, mock.Mock())
    assert world.names() == [] and isinstance(world.launch, steps.Launch)
