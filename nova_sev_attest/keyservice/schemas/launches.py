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

"""Requests and answers of /v1/launches."""

import base64
import json

from nova_sev_attest.keyservice.schemas import common
from nova_sev_attest.keyservice.schemas import document

TOKEN_HEADER = 'X-Attestation-Launch-Token'

_ONE = '/v1/launches/{launch_id}'

LIST = document.Operation('/v1/launches', 'get')
SHOW = document.Operation(_ONE, 'get')
CREATE = document.Operation(_ONE, 'put')
EVIDENCE = document.Operation(_ONE + '/evidence', 'put')
OUTCOME = document.Operation(_ONE + '/outcome', 'put')
CERTIFICATES = document.Operation(_ONE + '/certificates', 'get')
SESSION = document.Operation(_ONE + '/session', 'put')
SHOW_EVIDENCE = document.Operation(_ONE + '/evidence', 'get')
SECRET = document.Operation(_ONE + '/secret', 'put')
DECISION = document.Operation(_ONE + '/decision', 'put')
EVENTS = document.Operation(_ONE + '/events', 'get')


def _text(data):
    return base64.b64encode(data).decode('ascii')


def reduced(launch, base):
    """A launch as the compute service sees it."""
    reason = None
    if launch.reason_code is not None:
        reason = {'code': launch.reason_code, 'detail': launch.reason_detail}
    return {
        'id': launch.id,
        'server_id': launch.server_id,
        'project_id': launch.project_id,
        'host': launch.host,
        'policy_id': launch.policy_id,
        'policy_revision': launch.policy_revision,
        'technology': launch.technology,
        'purpose': launch.purpose,
        'verifier': launch.verifier,
        'approval': launch.approval,
        'status': launch.status,
        'waiting_for': launch.waiting_for,
        'reason': reason,
        'created_at': common.time(launch.created_at),
        'updated_at': common.time(launch.updated_at),
        'expires_at': common.time(launch.expires_at),
        'expires_in': _seconds(launch.time_left) if launch.is_open else None,
        'links': common.self_link(base, f'/v1/launches/{launch.id}'),
    }


def operators(launch, base):
    """A launch as the operator sees it: that it was, where, and why it ended.

    What the owner claimed, allowed or asked for is the owner's.
    """
    return reduced(launch, base) | {'platform': _platform(launch)}


def full(launch, base):
    """A launch as its owner sees it."""
    shown = operators(launch, base)
    if shown['reason'] is not None:
        shown['reason'] |= launch.reason_owner or {}
    return shown | {
        'verdict': launch.verdict,
        'policy_word': launch.policy_word,
        'decided_by': launch.decided_by,
        'decided_at': launch.decided_at and common.time(launch.decided_at),
    }


def _seconds(time_left):
    return max(0, int(time_left.total_seconds()))


def _platform(launch):
    return launch.platform_root and {
        'root': launch.platform_root,
        'emulated': launch.platform_emulated,
        'api_version': '{}.{}'.format(*launch.platform_api),
        'cek_fingerprint': launch.platform_cek.hex(),
        'chip_id': launch.platform_chip,
    }


def session(launch, base):
    """A launch with its session, for the host that begins it."""
    return reduced(launch, base) | {'session': {
        'dh_cert': _text(launch.dh_cert),
        'session': _text(launch.session),
        'policy': launch.policy_word,
    }}


def release(launch):
    """What evidence gets."""
    return launch.release and {
        'secret_header': _text(launch.release.header),
        'secret': _text(launch.release.data),
        'gpa': launch.release.gpa,
    }


def certificates(shown):
    """What a platform showed, an objects.launches.Certificates."""
    return {
        'pdh': _text(shown.pdh),
        'cert_chain': _text(shown.cert_chain),
        'signed_cek': shown.signed_cek and _text(shown.signed_cek),
    }


def event(record):
    """A record of the audit, an audit.chain.Record, as the owner sees it."""
    return {
        'event': record.event,
        'at': record.at,
        'actor': record.actor,
        'details': json.loads(record.details),
    }
