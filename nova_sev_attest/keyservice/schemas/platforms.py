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

"""Answers of /v1/platforms."""

from nova_sev_attest.keyservice.schemas import common
from nova_sev_attest.keyservice.schemas import document

LIST = document.Operation('/v1/platforms', 'get')
SHOW = document.Operation('/v1/platforms/{platform_id}', 'get')


def _time(value):
    return value and common.time(value)


def view(platform, base):
    """A platform as the API shows it.

    :param platform: row of models.Platform
    """
    reason = None
    if platform.last_reason_code is not None:
        reason = {'code': platform.last_reason_code,
                  'detail': platform.last_reason_detail}
    return {
        'id': platform.platform_id,
        'host': platform.host,
        'root': platform.root,
        'emulated': platform.emulated,
        'api_version': (None if platform.api_major is None else
                        f'{platform.api_major}.{platform.api_minor}'),
        'build': platform.build,
        'cek_fingerprint': platform.cek and platform.cek.hex(),
        'chip_id': platform.chip,
        'first_seen_at': common.time(platform.first_seen_at),
        'last_seen_at': common.time(platform.last_seen_at),
        'last_verified_at': _time(platform.last_verified_at),
        'last_attested_at': _time(platform.last_attested_at),
        'last_verdict': platform.last_verdict,
        'last_reason': reason,
        'links': common.self_link(
            base, f'/v1/platforms/{platform.platform_id}'),
    }
