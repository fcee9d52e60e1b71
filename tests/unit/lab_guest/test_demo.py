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

import copy
import json

import pytest

from devstack.lab import demo
from devstack.lab import owner

_GOOD = {
    'attested': {
        'status': 'ACTIVE', 'marker_seen': True, 'instructions_run': True,
        'launch': 'running', 'payload_reads': 1},
    'tampered': {
        'status': 'ERROR', 'launch': 'denied', 'instructions_run': False,
        'fault': 'Build of instance x aborted: The initrd is not one that '
                 'the policy allows.',
        'console_empty': True, 'payload_reads': 0,
        'left_on_host': {'domain': [], 'process': [], 'file': []}},
}


def test_nothing_is_missing_when_all_held():
    assert demo.shortcomings(_GOOD) == []


@pytest.mark.parametrize('server, name, value, text', [
    ('attested', 'status', 'ERROR', 'not ACTIVE'),
    ('attested', 'marker_seen', False, 'did not print'),
    ('attested', 'instructions_run', None, 'see the attested'),
    ('attested', 'launch', 'released', 'no running launch'),
    ('attested', 'payload_reads', 0, 'not fetched'),
    ('tampered', 'status', 'ACTIVE', 'not in ERROR'),
    ('tampered', 'fault', 'No valid host was found.', 'initrd'),
    ('tampered', 'fault', 'the kernel is not one the policy allows',
     'initrd'),
    ('tampered', 'instructions_run', True, 'ran'),
    # The platform never saw it: that proves nothing.
    ('tampered', 'instructions_run', None, 'never measured'),
    ('tampered', 'console_empty', False, 'printed'),
    ('tampered', 'payload_reads', 1, 'fetched for the tampered'),
    ('tampered', 'launch', 'failed', 'not deny'),
    ('tampered', 'left_on_host',
     {'domain': [], 'process': [], 'file': ['ram']}, 'left something'),
])
def test_each_thing_that_did_not_hold_is_told(server, name, value, text):
    for forget in (False, True):
        result = copy.deepcopy(_GOOD)
        if forget:
            del result[server][name]
        else:
            result[server][name] = value
        missing = demo.shortcomings(result)
        assert len(missing) == 1
        assert text in missing[0]


def test_a_run_that_failed_ends_with_json_and_an_exit_code(
        monkeypatch, capsys):
    def fail(self, keep):
        raise owner.OwnerError('no mirror')

    monkeypatch.setattr(demo.Demo, 'whole', fail)
    assert demo.main([]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1]) == {
        'attested': {}, 'tampered': {}, 'seconds': {}}
    assert 'FAILED: OwnerError: no mirror' in printed.out
    assert 'Traceback' in printed.err


def test_a_good_run_ends_with_json_and_zero(monkeypatch, capsys):
    def succeed(self, keep):
        self.result.update(copy.deepcopy(_GOOD))

    monkeypatch.setattr(demo.Demo, 'whole', succeed)
    assert demo.main([]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last)['attested']['status'] == 'ACTIVE'
