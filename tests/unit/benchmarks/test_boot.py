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

import pytest

from benchmarks import boot

LOG = '''\
26/Nov "PUT /v1/launches/0f-1 HTTP/1.1" 201 40 ms
26/Nov "PUT /v1/launches/0f-1/evidence HTTP/1.1" 200 30 ms
26/Nov "PUT /v1/launches/0f-2 HTTP/1.1" 201 60 ms
26/Nov "GET /v1/launches/0f-2 HTTP/1.1" 200 5 ms
'''


def test_pairs_are_compared_by_their_medians():
    found = boot.compare([(1100, 1000), (1210, 1100), (990, 900)])
    assert found['attested_ms'] == 1100 and found['stock_ms'] == 1000
    assert found['ratio'] == 1.1
    assert found['extra_ms'] == 100


@pytest.mark.parametrize('extra', [0, 100])
def test_the_interval_holds_what_does_not_vary(extra):
    found = boot.compare([(1000 + extra, 1000)] * 30)
    assert found['extra_ms_interval'] == [extra, extra]
    ratio = (1000 + extra) / 1000
    assert found['ratio_interval'] == [ratio, ratio]


def test_one_outlier_moves_the_interval_little():
    pairs = [(1000 + 10 * (number % 3), 1000) for number in range(29)]
    found = boot.compare([*pairs, (60000, 1000)])
    assert 0 <= found['extra_ms_interval'][0] <= 10
    assert found['extra_ms_interval'][1] <= 20


def test_the_services_own_times_are_read_from_its_log():
    assert boot.service_times(LOG) == {'/': 50, '/evidence': 30}
