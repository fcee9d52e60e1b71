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

import threading
from unittest import mock

from nova.compute import utils as compute_utils
from nova import context
from nova import exception
import pytest

from nova_sev_attest.virt import events
from tests.unit.virt import fakes


class Reporter:
    """compute_utils.EventReporter, without a conductor."""

    log = []
    failure = None
    gate = None

    def __init__(self, context, name, host, uuid, graceful_exit):
        assert graceful_exit
        self.name, self.host, self.uuid = name, host, uuid

    def __enter__(self):
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        self.log.append(('start', self.name, self.host, self.uuid))

    def __exit__(self, kind, value, traceback):
        self.log.append(('finish', self.name, value))


@pytest.fixture
def reporter():
    with mock.patch.object(compute_utils, 'EventReporter', Reporter), \
            mock.patch.multiple(Reporter, log=[], failure=None, gate=None):
        yield Reporter


def make():
    return events.ActionEvents(context.get_admin_context(), 'host',
                               fakes.make_instance())


def test_in_order(reporter):
    written = make()
    with written.event('one', str):
        pass
    with written.event('two', str):
        pass
    written.close(10)
    assert reporter.log == [
        ('start', 'one', 'host', fakes.UUID), ('finish', 'one', None),
        ('start', 'two', 'host', fakes.UUID), ('finish', 'two', None)]


@pytest.mark.parametrize('failure', [ValueError('x'), GeneratorExit()])
def test_failure_is_shown_in_its_own_words(reporter, failure):
    shown = exception.NovaException('for the user')
    written = make()
    with pytest.raises(type(failure)):
        with written.event('one', lambda given: shown):
            raise failure
    written.close(10)
    assert reporter.log[-1] == ('finish', 'one', shown)


def test_a_boot_that_nobody_requested_has_none(reporter):
    Reporter.failure = exception.InstanceActionNotFound(
        request_id='r', instance_uuid='u')
    written = make()
    for name in ('one', 'two'):
        with written.event(name, str):
            pass
    written.close(10)
    assert reporter.log == []


def test_a_conductor_that_fails_holds_nothing_up(reporter):
    Reporter.failure = RuntimeError('no conductor')
    written = make()
    with written.event('one', str):
        pass
    written.close(10)
    assert reporter.log == []


def test_a_conductor_that_hangs_holds_nothing_up(reporter):
    Reporter.gate = threading.Event()
    written = make()
    with written.event('one', str):
        pass
    written.close(0.01)
    assert reporter.log == []
    Reporter.gate.set()


def test_close_without_events():
    make().close(0)
