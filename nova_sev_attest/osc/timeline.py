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

"""Where the time of a launch went, from its events."""

import dataclasses
import datetime

#: Event -> what happened.
_STEPS = {
    'launch.awaiting_session': 'begun; waits for the owner\'s session',
    'launch.session_issued': 'session issued',
    'launch.evidence_received': 'evidence received',
    'launch.evidence_refused': 'other evidence refused',
    'launch.awaiting_release': 'waits for the owner\'s release',
    'launch.approved': 'approved',
    'launch.released': 'released',
    'launch.running': 'running',
    'launch.failed': 'failed on the host',
    'launch.denied': 'denied',
    'launch.expired': 'expired',
    'launch.superseded': 'superseded by a newer launch',
}
#: Event -> what goes on after it.
_PHASES = {
    'launch.awaiting_session': 'owner makes the session',
    'launch.session_issued': 'host starts the guest, paused',
    'launch.evidence_received': 'verification',
    'launch.awaiting_release': 'owner decides',
    'launch.approved': 'release',
    'launch.released': 'host injects and resumes',
}
#: Statuses of launches that are over.
CLOSED = frozenset(['running', 'failed', 'denied', 'expired', 'superseded'])


@dataclasses.dataclass(frozen=True)
class Step:
    """One event.

    :ivar at: datetime.datetime, UTC
    :ivar offset: seconds since the first
    :ivar words: what happened
    """

    at: datetime.datetime
    offset: float
    words: str
    actor: str | None = None


@dataclasses.dataclass(frozen=True)
class Phase:
    """What went on between two events.

    :ivar start: seconds since the first event
    :ivar seconds: how long
    :ivar over: whether it has ended
    """

    words: str
    start: float
    seconds: float
    over: bool = True

    def shown(self):
        return {'phase': self.words, 'start': round(self.start, 6),
                'seconds': round(self.seconds, 6), 'over': self.over}


class Timeline:
    """Steps and phases of one launch.

    :param events: as the REST API gives them, oldest first
    :param now: datetime.datetime, the end of what is not over yet; None
        where it is of no interest
    :raises ValueError: an event's time is none
    """

    def __init__(self, events, now=None):
        times = [datetime.datetime.fromisoformat(event['at'])
                 for event in events]
        self.steps = tuple(
            Step(at, (at - times[0]).total_seconds(), words_of(event),
                 event.get('actor'))
            for at, event in zip(times, events))
        self.phases = tuple(self._phases(events, now))
        self.seconds = max(
            [phase.start + phase.seconds for phase in self.phases] +
            [step.offset for step in self.steps], default=0.0)

    def _phases(self, events, now):
        marks = [(step, _PHASES[event['event']])
                 for step, event in zip(self.steps, events)
                 if event['event'] in _PHASES]
        closing = [step for step, event in zip(self.steps, events)
                   if event['event'].removeprefix('launch.') in CLOSED]
        ends = [step.offset for step, _ in marks[1:]]
        for at, (step, words) in enumerate(marks):
            over = at < len(ends) or bool(closing)
            if at < len(ends):
                end = ends[at]
            elif closing:
                end = closing[0].offset
            elif now is not None:
                end = (now - self.steps[0].at).total_seconds()
            else:
                continue
            yield Phase(words, step.offset, max(0.0, end - step.offset), over)

    def draw(self, width, block='#'):
        """The phases as bars under one another.

        :param width: columns that a line may have
        :param block: what a bar is made of
        :returns: list of lines, empty where there is nothing to draw
        """
        if not self.phases:
            return []
        label = max(len(phase.words) for phase in self.phases)
        room = max(10, width - label - 14)
        lines = []
        for phase in self.phases:
            start, length = self._place(phase, room)
            lines.append(f'{phase.words:<{label}} '
                         f'{" " * start + block * length:<{room}} '
                         f'{seconds(phase.seconds):>9}'
                         f'{"" if phase.over else " .."}'.rstrip())
        lines.append(f'{"in all":<{label}} {"":<{room}} '
                     f'{seconds(self.seconds):>9}')
        return lines

    def _place(self, phase, room):
        """First column and length of a bar, in room columns."""
        if not self.seconds:
            return 0, 1
        start = min(room - 1, int(phase.start / self.seconds * room))
        length = round(phase.seconds / self.seconds * room)
        return start, max(1, min(length, room - start))


def words_of(event):
    """What happened, in words."""
    name = event['event']
    words = _STEPS.get(name)
    return words or name.rpartition('.')[2].replace('_', ' ')


def seconds(value):
    """A time span for people."""
    if value >= 100:
        minutes, rest = divmod(round(value), 60)
        return f'{minutes} m {rest:02d} s'
    return f'{value:.3f} s'


def clock(moment):
    """A time of day for people, UTC."""
    return moment.strftime('%H:%M:%S.') + f'{moment.microsecond // 1000:03d}'
