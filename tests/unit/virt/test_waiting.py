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

import types

from nova import exception
import pytest

from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import waiting


def configuration(builds, most):
    return types.SimpleNamespace(
        max_concurrent_builds=builds,
        sev_attest=types.SimpleNamespace(max_waiting=most))


@pytest.mark.parametrize('builds, most, limit', [
    (10, 4, 4), (10, 10, 9), (3, 4, 2), (1, 4, 0), (0, 4, 4), (10, 0, 0)])
def test_one_build_slot_is_always_left(builds, most, limit):
    assert waiting.limit_of(configuration(builds, most)) == limit


def test_places():
    waits = waiting.OwnerWaits(2)
    waits.begin('a')
    waits.begin('b')
    # A second request of the same launch needs no second place.
    waits.begin('a')
    with pytest.raises(exceptions.AttestationRefused,
                       match='2 launches already wait') as caught:
        waits.begin('c')
    assert isinstance(caught.value, exception.BuildAbortException)
    waits.end('a')
    waits.begin('c')
    waits.end('nobody')


def test_nobody_is_waited_for_while_nova_compute_starts():
    ordinary = waiting.OwnerWaits(2)
    startup = waiting.Startup()
    assert startup.owner_waits(ordinary) is ordinary
    startup.begin()
    waits = startup.owner_waits(ordinary)
    with pytest.raises(exceptions.AttestationRefused,
                       match='just starting') as caught:
        waits.begin('a')
    assert isinstance(caught.value, exception.BuildAbortException)
    waits.end('a')
    startup.end()
    assert startup.owner_waits(ordinary) is ordinary


def test_service_that_is_away_is_waited_for_once_while_starting():
    startup = waiting.Startup()
    away = client_exceptions.ServiceUnavailable('no answer')
    startup.failed(away)
    assert startup.launch_timeout(60) == 60
    startup.begin()
    startup.failed(client_exceptions.AttestationDenied(403, 'c', 'd'))
    assert startup.launch_timeout(60) == 60
    startup.failed(away)
    assert startup.launch_timeout(60) == 6
    startup.end()
    assert startup.launch_timeout(60) == 60
    startup.begin()
    assert startup.launch_timeout(60) == 60
