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

import datetime

import hypothesis
from hypothesis import strategies
import pytest

from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice import limits

SERVER = '0a1b2c3d-0000-4000-8000-00000000000f'
OTHER = '0a1b2c3d-0000-4000-8000-00000000000e'
NOW = datetime.datetime(2026, 1, 31, 12)

TIMES = strategies.datetimes(datetime.datetime(1970, 1, 1),
                             datetime.datetime(9999, 12, 31))


def text(moment):
    return moment.isoformat() + 'Z'


def check(restriction, server_id=SERVER, aggregates=(), now=NOW,
          release_count=0):
    limits.check(restriction, server_id=server_id, aggregates=aggregates,
                 now=now, release_count=release_count)


def denial(word, restriction, **launch):
    """The denial of a launch, which tells the limit to the owner alone."""
    with pytest.raises(errors.Denied) as caught:
        check(restriction, **launch)
    denied = caught.value
    assert denied.word == word
    assert denied.detail.endswith('.') and len(denied.detail) < 80
    assert denied.owner['diagnosis'].endswith('.')
    assert set(denied.owner) == {'allowed', 'diagnosis'}
    (name, value), = denied.owner['allowed']['limits'].items()
    assert value == restriction[name]
    for expected in value if isinstance(value, list) else [value]:
        assert str(expected) not in denied.detail
    return denied


@pytest.mark.parametrize('restriction', [None, {}])
def test_no_limits(restriction):
    check(restriction, aggregates=['a'], release_count=1 << 40)
    assert not limits.need_aggregates(restriction)
    assert limits.max_releases(restriction) is None


def test_server():
    check({'servers': [OTHER, SERVER]})
    denied = denial('server_not_allowed', {'servers': [OTHER]})
    assert SERVER in denied.owner['diagnosis']


@pytest.mark.parametrize('allowed, aggregates', [
    (['a'], ['a']), (['a', 'b'], ['c', 'b']), (['a'], {'a', 'b'})])
def test_aggregate(allowed, aggregates):
    assert limits.need_aggregates({'host_aggregates': allowed})
    check({'host_aggregates': allowed}, aggregates=aggregates)


@pytest.mark.parametrize('aggregates', [[], ['B'], ['a', 'bb']])
def test_other_aggregate(aggregates):
    denied = denial('aggregate_not_allowed', {'host_aggregates': ['b']},
                    aggregates=aggregates)
    for name in aggregates or ['none']:
        assert name in denied.owner['diagnosis']


@hypothesis.given(TIMES, TIMES, TIMES)
def test_window(one, two, now):
    """Within is from not_before on, and before not_after."""
    hypothesis.assume(one != two)
    start, end = sorted((one, two))
    restriction = limits.normalize(
        {'not_before': text(start), 'not_after': text(end)})
    if now < start:
        denial('too_early', restriction, now=now)
    elif now >= end:
        denial('too_late', restriction, now=now)
    else:
        check(restriction, now=now)


@hypothesis.given(TIMES)
def test_edges_of_the_window(moment):
    step = datetime.timedelta(microseconds=1)
    opens = limits.normalize({'not_before': text(moment)})
    closes = limits.normalize({'not_after': text(moment)})
    check(opens, now=moment)
    check(closes, now=moment - step)
    denial('too_early', opens, now=moment - step)
    denial('too_late', closes, now=moment)


@hypothesis.given(strategies.integers(1, 2 ** 31 - 1),
                  strategies.integers(0, 2 ** 32))
def test_count(most, count):
    restriction = {'max_releases': most}
    assert limits.max_releases(restriction) == most
    if count < most:
        check(restriction, release_count=count)
    else:
        denied = denial('releases_used_up', restriction, release_count=count)
        assert str(count) in denied.owner['diagnosis']


@hypothesis.given(strategies.integers(1, 30))
def test_as_many_releases_as_allowed(most):
    restriction, done = {'max_releases': most}, 0
    with pytest.raises(errors.Denied):
        for _ in range(most + 1):
            check(restriction, release_count=done)
            done += 1
    assert done == most


@hypothesis.given(strategies.sets(strategies.sampled_from(
    ['servers', 'host_aggregates', 'not_before', 'not_after',
     'max_releases'])), strategies.booleans(), strategies.booleans(),
    strategies.integers(-1, 1), strategies.booleans())
def test_all_that_are_there_count(names, server, aggregate, when, used_up):
    """Each limit counts where it is there, whatever the others are."""
    everything = {
        'servers': [SERVER], 'host_aggregates': ['a'],
        'not_before': '2026-01-31T00:00:00Z',
        'not_after': '2026-02-01T00:00:00Z', 'max_releases': 3}
    faults = {'servers': not server, 'host_aggregates': not aggregate,
              'not_before': when < 0, 'not_after': when > 0,
              'max_releases': used_up}
    launch = {'server_id': SERVER if server else OTHER,
              'aggregates': ['a'] if aggregate else ['b'],
              'now': NOW + when * datetime.timedelta(days=1),
              'release_count': 3 if used_up else 2}
    restriction = {name: everything[name] for name in names}
    if any(faults[name] for name in names):
        with pytest.raises(errors.Denied) as caught:
            check(restriction, **launch)
        (name, _), = caught.value.owner['allowed']['limits'].items()
        assert faults[name] and name in names
    else:
        check(restriction, **launch)


@pytest.mark.parametrize('restriction, stored', [
    (None, None), ({}, None), ({'servers': [SERVER]}, {'servers': [SERVER]}),
    ({'max_releases': 3.0}, {'max_releases': 3}),
    ({'not_before': '2026-01-31T00:00:00.1Z'},
     {'not_before': '2026-01-31T00:00:00.100000Z'})])
def test_normal_form(restriction, stored):
    assert limits.normalize(restriction) == stored
    assert limits.normalize(stored) == stored


@hypothesis.given(TIMES, TIMES)
def test_a_window_without_a_moment(start, end):
    hypothesis.assume(start >= end)
    with pytest.raises(errors.BadRequest) as caught:
        limits.normalize({'not_before': text(start), 'not_after': text(end)})
    assert caught.value.word == 'time_invalid'


@pytest.mark.parametrize('moment', [
    '2026-02-29T00:00:00Z', '2026-13-01T00:00:00Z', '2026-01-01T25:00:00Z',
    '0000-01-01T00:00:00Z', '2026-01-01T00:00:60Z'])
def test_no_such_time(moment):
    with pytest.raises(errors.BadRequest) as caught:
        limits.normalize({'not_before': moment})
    assert caught.value.word == 'time_invalid'
