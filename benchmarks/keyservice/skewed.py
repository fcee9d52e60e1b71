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

"""The key service on a node whose clock is wrong, for the benchmark only.

NOVA_SEV_ATTEST_BENCHMARK_SKEW is by how many seconds. Everything of the
service reads the clock by oslo.utils.
"""

import datetime
import os

from oslo_utils import timeutils

_SKEW = datetime.timedelta(
    seconds=float(os.environ['NOVA_SEV_ATTEST_BENCHMARK_SKEW']))
_utcnow = timeutils.utcnow


def _skewed(with_timezone=False):
    return _utcnow(with_timezone) + _SKEW


timeutils.utcnow = _skewed

from nova_sev_attest.keyservice.wsgi import application  # noqa: E402,F401
