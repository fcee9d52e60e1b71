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

"""What the journal is told of the steps of launches."""

import hashlib
import json


def sha256(value):
    """SHA-256 of a JSON value with sorted keys and no spaces, as text."""
    return hashlib.sha256(json.dumps(
        value, sort_keys=True, separators=(',', ':')).encode()).hexdigest()


def of_evidence(launch):
    """Names the evidence of a launch, where it came."""
    fingerprint = launch.evidence_fingerprint
    return {'evidence_sha256': fingerprint and fingerprint.hex()}


def of_platform(launch):
    """The platform of a launch, where it was verified."""
    return {
        'platform_root': launch.platform_root,
        'platform_api': launch.platform_api and '{}.{}'.format(
            *launch.platform_api),
        'platform_cek_sha256': launch.platform_cek
        and launch.platform_cek.hex(),
        'chip_id': launch.platform_chip,
        'emulated': launch.platform_emulated,
    }
