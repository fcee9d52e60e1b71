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

import pytest

from nova_sev_attest.osc import timeline

START = datetime.datetime(2026, 1, 31, 15, 4, 5, 123000,
                          tzinfo=datetime.timezone.utc)


def events(*steps):
    return [{'event': f'launch.{name}', 'actor': None, 'details': {},
             'at': (START + datetime.timedelta(seconds=offset)).strftime(
                 '%Y-%m-%dT%H:%M:%S.%fZ')} for name, offset in steps]


OVER = events(('awaiting_session', 0), ('session_issued', 4),
              ('evidence_received', 6), ('awaiting_release', 6.5),
              ('approved', 8), ('released', 8), ('running', 10))


def test_phases_fill_the_time():
    found = timeline.Timeline(OVER)
    assert [(phase.start, phase.seconds) for phase in found.phases] == [
        (0, 4), (4, 2), (6, .5), (6.5, 1.5), (8, 0), (8, 2)]
    assert all(phase.over for phase in found.phases)
    assert found.seconds == 10
    assert [step.offset for step in found.steps] == [
        0, 4, 6, 6.5, 8, 8, 10]


def test_what_is_not_over_lasts_until_now():
    found = timeline.Timeline(
        OVER[:2], START + datetime.timedelta(seconds=9))
    assert [(phase.seconds, phase.over) for phase in found.phases] == [
        (4, True), (5, False)]
    assert found.draw(60)[1].endswith('5.000 s ..')
    # A clock here that is behind the service's.
    assert timeline.Timeline(OVER[:2], START).phases[-1].seconds == 0


def test_evidence_that_was_refused_ends_nothing():
    found = timeline.Timeline(events(
        ('session_issued', 0), ('evidence_received', 1),
        ('evidence_refused', 2), ('released', 3), ('failed', 4)))
    assert [phase.seconds for phase in found.phases] == [1, 2, 1]
    assert found.steps[2].words == 'other evidence refused'


def test_an_event_of_a_newer_service():
    found = timeline.Timeline(events(('session_issued', 0),
                                     ('moon_phase_checked', 1),
                                     ('denied', 2)))
    assert found.steps[1].words == 'moon phase checked'
    assert [phase.seconds for phase in found.phases] == [2]


def test_drawing():
    lines = timeline.Timeline(OVER).draw(80)
    assert all(len(line) <= 80 for line in lines)
    bars = [(line.index('#'), line.count('#')) for line in lines[:-1]]
    # One after the other, as long as they took, and none invisible.
    assert [at for at, _ in bars] == sorted(at for at, _ in bars)
    room = sum(length for _, length in bars) - 1
    assert bars[0][1] == pytest.approx(0.4 * room, abs=2)
    assert bars[4][1] == 1
    assert lines[-1].startswith('in all') and lines[-1].endswith('10.000 s')
    assert '\u2588' in timeline.Timeline(OVER).draw(80, '\u2588')[0]


@pytest.mark.parametrize('width', [1, 40, 300])
def test_drawing_at_any_width(width):
    assert len(timeline.Timeline(OVER).draw(width)) == 7


def test_nothing_to_draw():
    assert timeline.Timeline([]).draw(80) == []
    assert timeline.Timeline([]).seconds == 0
    at_once = timeline.Timeline(events(('session_issued', 0),
                                       ('denied', 0)))
    assert at_once.draw(80)[0].count('#') == 1


def test_times_for_people():
    assert timeline.seconds(0.0504) == '0.050 s'
    assert timeline.seconds(125.4) == '2 m 05 s'
    assert timeline.clock(START) == '15:04:05.123'
