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

"""A launch as a picture: verdict, what was measured, where the time went.

Scalable vector graphics of one file, without script, style sheet or anything
to be loaded.
"""

from xml.etree import ElementTree

from nova_sev_attest.osc import base
from nova_sev_attest.osc import matches
from nova_sev_attest.osc import timeline as timelines

_NAMESPACE = 'http://www.w3.org/2000/svg'
_WIDTH, _MARGIN, _LINE = 960, 32, 26
_FONT = 'DejaVu Sans, Helvetica, Arial, sans-serif'
_MONO = 'DejaVu Sans Mono, Menlo, Consolas, monospace'

_INK, _FAINT, _PAPER, _RULE = '#1b2733', '#5c6b7a', '#ffffff', '#d7dde3'
_GOOD, _BAD, _OPEN, _BAR = '#1a7f4b', '#b3261e', '#8a6100', '#3f6fb5'
_COLOURS = {'running': _GOOD, 'released': _GOOD, 'failed': _BAD,
            'denied': _BAD, 'expired': _BAD, 'superseded': _FAINT}
# State of an input: mark, colour, words.
_MARKS = {
    matches.MATCHED: ('\u2713', _GOOD, 'measured, allowed'),
    matches.DIFFERS: ('\u2717', _BAD, 'not allowed'),
    matches.CLAIMED: ('?', _OPEN, 'the host\'s word only'),
}
# Who verifies: what is said where the key service knows nothing.
_UNKNOWN = {'owner': 'Its owner verifies; the key service holds no verdict.'}
_LABEL_X, _VALUE_X, _STATE_X = _MARGIN + 26, 190, 760
_BAR_X, _BAR_END = 290, 830


class _Page:
    """A picture that grows downwards."""

    def __init__(self):
        self.root = ElementTree.Element('svg', {
            'xmlns': _NAMESPACE, 'width': str(_WIDTH),
            'font-family': _FONT, 'font-size': '14', 'fill': _INK})
        self._paper = self.rectangle(0, 0, _WIDTH, 0, _PAPER)
        self.y = _MARGIN + 14

    def rectangle(self, x, y, width, height, fill, **more):
        return ElementTree.SubElement(self.root, 'rect', {
            'x': f'{x:g}', 'y': f'{y:g}', 'width': f'{width:g}',
            'height': f'{height:g}', 'fill': fill, **more})

    def text(self, x, words, room=None, **more):
        """One line of text at the current height.

        :param room: pixels that it may take; what is left out then is in
            the tooltip
        """
        words = base.clean(str(words)).replace('\n', ' ')
        size = float(more.get('font-size', 14))
        wide = 0.61 if more.get('font-family') == _MONO else 0.56
        fits = len(words) if room is None else int(room / (size * wide))
        shown = words if len(words) <= fits else words[:fits - 1] + '\u2026'
        element = ElementTree.SubElement(self.root, 'text', {
            'x': f'{x:g}', 'y': f'{self.y:g}', **more})
        element.text = shown
        if shown != words:
            ElementTree.SubElement(element, 'title').text = words
        return element

    def heading(self, words):
        self.y += 18
        self.rectangle(_MARGIN, self.y - 16, _WIDTH - 2 * _MARGIN, 1, _RULE)
        self.y += 12
        self.text(_MARGIN, words, **{'font-weight': 'bold',
                                     'font-size': '15'})
        self.y += _LINE

    def finish(self):
        height = f'{self.y + _MARGIN - 14:g}'
        self.root.set('height', height)
        self.root.set('viewBox', f'0 0 {_WIDTH} {height}')
        self._paper.set('height', height)
        ElementTree.indent(self.root)
        return (b'<?xml version="1.0" encoding="UTF-8"?>\n'
                + ElementTree.tostring(self.root, encoding='utf-8') + b'\n')


def draw(launch, timeline, policy=None):
    """Draw a launch.

    :param launch: its members, as its owner sees them
    :param timeline: Timeline
    :param policy: members of the revision of its policy, None where it is
        not at hand
    :returns: bytes of the file
    """
    page = _Page()
    ElementTree.SubElement(page.root, 'title').text = base.clean(
        f'Launch {launch["id"]}: {launch["status"]}')
    _head(page, launch, policy)
    _platform(page, launch.get('platform'))
    _measured(page, launch, policy)
    _time(page, timeline)
    return page.finish()


def _head(page, launch, policy):
    page.text(_MARGIN, f'Launch {launch["id"]}',
              **{'font-size': '20', 'font-weight': 'bold'})
    colour = _COLOURS.get(launch['status'], _OPEN)
    words = base.clean(launch['status']).replace('_', ' ')
    width = 26 + 8.6 * len(words)
    page.rectangle(_WIDTH - _MARGIN - width, page.y - 19, width, 26, colour,
                   rx='13')
    page.text(_WIDTH - _MARGIN - width / 2, words, fill=_PAPER, **{
        'text-anchor': 'middle', 'font-weight': 'bold'})
    page.y += _LINE
    name = launch.get('policy_id') or 'none'
    if policy is not None:
        name = f'{policy["name"]}, revision {policy["revision"]}'
    for label, value in (
            ('server', launch['server_id']), ('host', launch['host']),
            ('technology', launch['technology']),
            ('purpose', launch.get('purpose') or 'boot'), ('policy', name)):
        _fact(page, label, value)
    reason = launch.get('reason')
    if reason:
        _fact(page, 'reason', f'{reason["code"]}: {reason["detail"]}', _BAD)
        if reason.get('diagnosis'):
            _fact(page, 'diagnosis', reason['diagnosis'])


def _fact(page, label, value, colour=_INK):
    page.text(_MARGIN, label, fill=_FAINT)
    for line in _wrapped(value, 92):
        page.text(140, line, fill=colour)
        page.y += 22


def _wrapped(value, width):
    import textwrap

    return textwrap.wrap(base.clean(str(value)), width)[:8] or ['']


def _platform(page, platform):
    page.heading('Platform')
    if not platform:
        page.text(_MARGIN, 'Its certificates did not verify.', fill=_BAD)
        page.y += _LINE
        return
    if platform['emulated']:
        page.text(_MARGIN, 'EMULATED: protects nothing from its host',
                  fill=_BAD, **{'font-weight': 'bold'})
        page.y += 22
    for label, value in (('root', platform['root']),
                         ('API', platform['api_version']),
                         ('CEK', platform['cek_fingerprint']),
                         ('chip', platform['chip_id'] or
                          'not told: the CEK is the host\'s own copy')):
        _fact(page, label, value)


def _measured(page, launch, policy):
    page.heading('What was measured')
    found = matches.inputs(launch, policy)
    if not found:
        page.text(_MARGIN, _UNKNOWN.get(launch.get('verifier'),
                                        'Nothing is known yet.'),
                  fill=_FAINT)
        page.y += _LINE
    for each in found:
        mark, colour, words = _MARKS[each.state]
        page.text(_MARGIN, mark, fill=colour, **{'font-weight': 'bold'})
        page.text(_LABEL_X, each.words)
        page.text(_VALUE_X, 'none told' if each.value is None
                  else each.value, room=_STATE_X - _VALUE_X - 12,
                  **{'font-family': _MONO, 'font-size': '13'})
        page.text(_STATE_X, words, fill=colour)
        page.y += _LINE
        if each.allowed:
            allowed = ', '.join(map(str, each.allowed))
            page.text(_VALUE_X, f'allowed: {allowed}',
                      room=_WIDTH - _MARGIN - _VALUE_X, fill=_FAINT,
                      **{'font-family': _MONO, 'font-size': '12'})
            page.y += 22
    verdict = launch.get('verdict')
    if verdict and verdict.get('launch_digest'):
        page.text(_LABEL_X, 'digest', fill=_FAINT)
        page.text(_VALUE_X, verdict['launch_digest'], fill=_FAINT,
                  **{'font-family': _MONO, 'font-size': '12'})
        page.y += _LINE
        page.text(_LABEL_X, 'The key service vouches for the HMAC over it.',
                  fill=_FAINT, **{'font-size': '12'})
        page.y += 20


def _time(page, timeline):
    page.heading(f'Where the time went: '
                 f'{timelines.seconds(timeline.seconds)}')
    scale = (_BAR_END - _BAR_X) / (timeline.seconds or 1)
    for phase in timeline.phases:
        page.text(_MARGIN, phase.words, room=_BAR_X - _MARGIN - 8)
        page.rectangle(_BAR_X + phase.start * scale, page.y - 13,
                       max(2, phase.seconds * scale), 16,
                       _BAR if phase.over else _OPEN, rx='2')
        page.text(_WIDTH - _MARGIN, timelines.seconds(phase.seconds),
                  **{'text-anchor': 'end'})
        page.y += _LINE
    page.y += 6
    for step in timeline.steps:
        page.text(_MARGIN, timelines.clock(step.at), fill=_FAINT,
                  **{'font-family': _MONO, 'font-size': '13'})
        page.text(160, f'+{timelines.seconds(step.offset)}', fill=_FAINT,
                  **{'font-family': _MONO, 'font-size': '13'})
        page.text(_BAR_X, step.words)
        page.y += 22
