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

"""The fuzzer's targets under hypothesis, in little time."""

import tracemalloc

import hypothesis
from hypothesis import strategies
import pytest

from tests.fuzz import targets

NAMES = list(targets.TARGETS)
# What no parser needs to read an input of a few KiB, or to refuse it.
_MEMORY = 4 * 1024 * 1024
_INTERESTING = [b'\0', b'\xff', b'\x7f', b'\x80', b'\0\0', b'\xff\xff',
                b'\0\0\0\0', b'\xff\xff\xff\xff', b'\x12\0', b'"', b'}', b'-']


@strategies.composite
def damaged(draw, seeds):
    """A good input, changed in a few places, cut short or made longer."""
    data = bytearray(draw(strategies.sampled_from(seeds)))
    for _ in range(draw(strategies.integers(0, 3))):
        at = draw(strategies.integers(0, len(data)))
        value = draw(strategies.one_of(
            strategies.sampled_from(_INTERESTING),
            strategies.binary(min_size=1, max_size=8)))
        # Put in place of as many bytes, or between them.
        width = len(value) if draw(strategies.booleans()) else 0
        data[at:at + width] = value
    end = draw(strategies.one_of(
        strategies.none(), strategies.integers(0, len(data))))
    return bytes(data[:end])


@pytest.mark.parametrize('name', NAMES)
@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(data=strategies.data())
def test_damaged_inputs(name, data):
    target = targets.TARGETS[name]
    # Another exception than the target's refusals fails the test.
    assert target.run(data.draw(damaged(target.seeds()))) in (True, False)


@pytest.mark.parametrize('name', NAMES)
@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(data=strategies.binary(max_size=4096))
def test_arbitrary_inputs(name, data):
    assert targets.TARGETS[name].run(data) in (True, False)


@pytest.mark.parametrize('name', [
    name for name in NAMES if name != 'secret_packet'])
def test_a_good_input_is_accepted(name):
    # Else the fuzzer would never get behind the first check.
    target = targets.TARGETS[name]
    assert any(target.run(seed) for seed in target.seeds())


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('filling', [b'\0', b'\xff', b'['])
def test_memory_is_bounded(name, filling):
    target = targets.TARGETS[name]
    inputs = [filling * target.largest] + [
        (seed + filling * target.largest)[:target.largest]
        for seed in target.seeds()]
    for data in inputs:
        target.run(data)  # what it loads once does not count
        tracemalloc.start()
        try:
            target.run(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < _MEMORY


def test_a_fault_is_no_refusal(monkeypatch):
    # A driver sees what a parser should not have raised.
    def broken(data):
        raise IndexError('read past the end')

    monkeypatch.setattr(targets.certificates.SevCertificate, 'parse', broken)
    with pytest.raises(IndexError):
        targets.TARGETS['sev_certificate'].run(b'')


def test_the_platform_takes_what_sevctl_leaves_in_a_certificate():
    # The room of an RSA key, which virtee's library does not clear.
    session, = targets.TARGETS['session'].seeds()
    junk = b'\x5a' * 880
    assert targets.TARGETS['session'].run(
        session[:168] + junk + session[168 + len(junk):])
