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

"""What requests about launches say, and what is answered when it came before.
"""

import base64
import binascii
import hashlib
import json

from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.keyservice.objects import policies
from nova_sev_attest.keyservice import sealing
from nova_sev_attest.launch import errors as launch_errors
from nova_sev_attest.launch import measurement


def fingerprint(value):
    """SHA-256 over the canonical form of what a request says."""
    return hashlib.sha256(json.dumps(
        value, sort_keys=True, separators=(',', ':')).encode()).digest()


def hash_token(token):
    """SHA-256 of a launch token, the only form that is stored."""
    return hashlib.sha256(token.encode()).digest()


def decode(text, word, what):
    """Decode base64.

    :param word: code of the error when it is none
    :param what: the name of the value
    :raises BadRequest: it is not base64
    """
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise errors.BadRequest(
            word, f'The {what} is not base64: {exc}.') from None


def parse_evidence(evidence):
    """The launch core's Evidence from that of a request.

    :raises BadRequest: it is malformed
    """
    try:
        return measurement.Evidence.parse(
            decode(evidence['measurement'], 'evidence_malformed',
                   'measurement'),
            int(evidence['api_major']), int(evidence['api_minor']),
            int(evidence['build_id']))
    except launch_errors.FormatError as exc:
        raise errors.BadRequest('evidence_malformed', str(exc)) from exc


def denied(launch):
    """The answer that a denied launch got when it was denied."""
    return errors.Denied(launch.reason_code.removeprefix('attestation.'),
                         launch.reason_detail)


def closed(launch):
    """The error for whoever goes on with a launch that is closed."""
    if launch.status == launches.EXPIRED:
        return errors.Conflict('launch_expired', launch.reason_detail)
    detail = f': {launch.reason_detail}' if launch.reason_detail else '.'
    return errors.Conflict('launch_closed',
                           f'The launch is {launch.status}{detail}')


def sealed_for(launch):
    """What the sealed keys of a launch are bound to.

    A rescue's to its being one, too: its keys open for no boot, nor for a
    release of the service that takes every launch for a boot.
    """
    more = [] if launch.purpose == policies.BOOT else [launch.purpose]
    return sealing.associated_data(launch.id, launch.server_id,
                                   launch.project_id, *more)


def busy():
    """The error where other requests about a launch are always faster."""
    return errors.Unavailable(
        'launch_busy',
        'Several requests change this launch, or begin launches of its '
        'server, at once; try again.')
