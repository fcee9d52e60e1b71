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

import os
import time

import pytest

from devstack.lab import supervise


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(writer)


def test_an_error_ends_a_registration(pipe):
    reader, writer = pipe
    poller = supervise.Poller(options=None)
    # A number that was a client's socket and is a service's input now.
    poller.register_readable(writer)
    os.close(reader)
    assert poller.poll(1) == ([], [])
    assert writer not in poller.readables
    started = time.monotonic()
    assert poller.poll(0.2) == ([], [])
    assert time.monotonic() - started > 0.1, 'it must wait, not spin'


def test_what_can_be_read_is_told(pipe):
    reader, writer = pipe
    poller = supervise.Poller(options=None)
    poller.register_readable(reader)
    os.write(writer, b'x')
    assert poller.poll(1) == ([reader], [])
    os.close(reader)
