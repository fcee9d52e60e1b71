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

"""A store is held to time, size and number of calls, whatever it does."""

import logging
import threading
import types

from oslo_context import context as oslo_context
import pytest

from nova_sev_attest.keyservice.stores import base
from nova_sev_attest.keyservice.stores import reader

FIRST = '00000000-0000-4000-8000-000000000001'
SECOND = '00000000-0000-4000-8000-000000000002'


class Store(base.SecretStore):
    """Does as it is told, and keeps what it was asked."""

    def __init__(self, do=lambda secret_id: b'secret'):
        self.do = do
        self.asked = []

    def check_readable(self, secret_id, context):
        self.asked.append((secret_id, context))
        self.do(secret_id)

    def fetch(self, secret_id, project_id):
        self.asked.append((secret_id, project_id))
        return self.do(secret_id)


def make(store, deadline=5.0, max_size=16, max_calls=2):
    return reader.SecretReader(store, types.SimpleNamespace(
        deadline=deadline, max_secret_size=max_size, max_calls=max_calls))


@pytest.fixture
def gate():
    """An event that lets stores that hang go on; set at the end."""
    event = threading.Event()
    yield event
    event.set()


def test_each_secret_once_with_its_project():
    store = Store(lambda secret_id: secret_id.encode()[-1:])
    assert make(store).fetch([SECOND, FIRST, SECOND], 'p') == {
        FIRST: b'1', SECOND: b'2'}
    assert store.asked == [(FIRST, 'p'), (SECOND, 'p')]


def test_check_hands_the_caller_on():
    store, caller = Store(), object()
    make(store).check_readable([FIRST], caller)
    assert store.asked == [(FIRST, caller)]


def test_nothing_to_read_asks_nothing():
    store = Store()
    assert make(store).fetch([], 'p') == {}
    make(store).check_readable([], None)
    assert store.asked == []


@pytest.mark.parametrize('error', [
    base.StoreUnavailable, base.SecretUnavailable, base.SecretEmpty,
    base.SecretTooLarge])
def test_typed_errors_say_for_which_secret(error):
    def do(secret_id):
        if secret_id == SECOND:
            raise error('why')
        return b'x'

    for call in (lambda: make(Store(do)).fetch([FIRST, SECOND], 'p'),
                 lambda: make(Store(do)).check_readable([FIRST, SECOND],
                                                        None)):
        with pytest.raises(error, match='why') as caught:
            call()
        assert caught.value.secret_id == SECOND


def test_other_errors_keep_their_text(caplog):
    caplog.set_level(logging.DEBUG)

    def do(secret_id):
        raise ValueError('plain to see')

    with pytest.raises(base.StoreUnavailable, match='ValueError') as caught:
        make(Store(do)).fetch([FIRST], 'p')
    assert 'plain' not in str(caught.value) + caplog.text
    assert caught.value.__cause__ is None


@pytest.mark.parametrize('given, error', [
    (b'', base.SecretEmpty), (b'x' * 17, base.SecretTooLarge),
    ('text', base.StoreUnavailable), (None, base.StoreUnavailable)])
def test_what_a_store_gives_is_looked_at(given, error):
    with pytest.raises(error) as caught:
        make(Store(lambda secret_id: given)).fetch([FIRST], 'p')
    assert caught.value.secret_id == FIRST
    assert make(Store(lambda secret_id: b'x' * 16)).fetch([FIRST], 'p')


def test_a_store_that_hangs_is_given_up(gate):
    store = Store(lambda secret_id: gate.wait(30) and b'late')
    with pytest.raises(base.StoreUnavailable, match='longer than 0.05 s'):
        make(store, deadline=0.05).fetch([FIRST, SECOND], 'p')


def test_after_the_deadline_no_further_secret_is_read(gate):
    ended = threading.Event()

    def do(secret_id):
        gate.wait(30)
        ended.set()
        return b'late'

    store = Store(do)
    with pytest.raises(base.StoreUnavailable):
        make(store, deadline=0.05).fetch([FIRST, SECOND], 'p')
    gate.set()
    assert ended.wait(10)
    for thread in threading.enumerate():
        if thread.name == 'secret-store':
            thread.join(10)
    assert [secret_id for secret_id, _project in store.asked] == [FIRST]


def test_calls_left_behind_count(gate):
    store = Store(lambda secret_id: gate.wait(30) and b'late')
    bounded = make(store, deadline=0.05, max_calls=2)
    for _ in range(2):
        with pytest.raises(base.StoreUnavailable, match='longer'):
            bounded.fetch([FIRST], 'p')
    with pytest.raises(base.StoreUnavailable, match='max_calls'):
        bounded.fetch([FIRST], 'p')
    assert len(store.asked) == 2
    gate.set()
    for thread in threading.enumerate():
        if thread.name == 'secret-store':
            thread.join(10)
    store.do = lambda secret_id: b'again'
    assert bounded.fetch([FIRST], 'p') == {FIRST: b'again'}


def test_the_request_is_known_in_the_stores_thread():
    seen = []
    context = oslo_context.RequestContext(overwrite=True)
    make(Store(lambda secret_id: seen.append(
        oslo_context.get_current().request_id) or b'x')).fetch([FIRST], 'p')
    assert seen == [context.request_id]
