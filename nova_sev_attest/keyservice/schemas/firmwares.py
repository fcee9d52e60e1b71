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

"""Requests and answers of /v1/firmwares."""

from nova_sev_attest.keyservice.schemas import common
from nova_sev_attest.keyservice.schemas import document

LIST = document.Operation('/v1/firmwares', 'get')
SHOW = document.Operation('/v1/firmwares/{sha256}', 'get')
UPLOAD = document.Operation('/v1/firmwares/{sha256}', 'put')
DELETE = document.Operation('/v1/firmwares/{sha256}', 'delete')


def _area(area):
    return area and {'base': area[0], 'size': area[1]}


def view(firmware, base):
    """A firmware as the API shows it."""
    return {
        'sha256': firmware.sha256,
        'size': firmware.size,
        'secret_area': _area(firmware.secret_area),
        'hash_table': _area(firmware.hash_table),
        'project_id': firmware.project_id,
        'created_at': common.time(firmware.created_at),
        'links': common.self_link(base, f'/v1/firmwares/{firmware.sha256}'),
    }
