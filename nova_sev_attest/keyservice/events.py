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

"""What the key service records and tells of: events and their details.

Only what stands here can be recorded, so that no secret, token, session or
packet gets into the audit, a notification or the log by accident: a new event
or detail is added here first, with what it means.
"""

import dataclasses
import datetime

#: Detail -> (JSON type, what it is).
DETAILS = {
    'approval': ('string', 'the policy\'s word on who approves'),
    'checkpoint': ('string', 'the checkpoint that the chain goes on from'),
    'chip_id': ('string', 'the chip\'s id in hexadecimal'),
    'content_sha256': (
        'string', 'SHA-256 of the revision\'s content as JSON with sorted '
                  'keys and no spaces'),
    'count': ('integer', 'how many'),
    'emulated': ('boolean', 'whether the platform protects nothing because '
                            'it is emulated'),
    'evidence_sha256': (
        'string', 'SHA-256 of the evidence as JSON with sorted keys and no '
                  'spaces'),
    'generation': ('string', 'the generation of the platform'),
    'host': ('string', 'the compute host, as it calls itself'),
    'name': ('string', 'the name that its owner gave it'),
    'platform_api': ('string', 'version of the platform\'s API'),
    'platform_cek_sha256': (
        'string', 'SHA-256 of the certificate of the chip\'s endorsement '
                  'key'),
    'platform_root': ('string', 'the root that the platform leads to'),
    'policy_id': ('string', 'the policy'),
    'policy_revision': ('integer', 'the revision of the policy'),
    'purpose': ('string', 'what the launch is for: boot or rescue'),
    'reason_code': ('string', 'why, as the API says it'),
    'revision': ('integer', 'the revision of the policy'),
    'secrets': ('array', 'ids in the secret store of the secrets released'),
    'server_id': ('string', 'the server in Nova'),
    'size': ('integer', 'size of the image in bytes'),
    'status': ('string', 'what the launch is now'),
    'superseded_by': ('string', 'the launch that took this one\'s place'),
    'technology': ('string', 'amd-sev, amd-sev-es'),
    'verdict_sha256': (
        'string', 'SHA-256 of the verdict as JSON with sorted keys and no '
                  'spaces'),
    'verifier': ('string', 'who verifies: service or owner'),
}

_LAUNCH = ('server_id', 'host', 'technology', 'purpose', 'policy_id',
           'policy_revision', 'verifier', 'approval')
_PLATFORM = ('platform_root', 'platform_api', 'platform_cek_sha256',
             'chip_id', 'emulated')
_POLICY = ('name', 'revision', 'content_sha256')

#: Event -> (when, names of the details that it can have).
EVENTS = {
    'audit.purged': (
        'The oldest audit records of a project were deleted.',
        ('checkpoint', 'count')),
    'firmware.uploaded': ('A firmware image was stored.', ('size',)),
    'firmware.deleted': ('A firmware image was deleted.', ()),
    'launch.awaiting_session': (
        'A launch began and waits for its owner\'s session.',
        _LAUNCH + _PLATFORM),
    'launch.session_issued': (
        'A launch has its session: the service\'s, or its owner\'s.',
        _LAUNCH + _PLATFORM),
    'launch.evidence_received': (
        'The first evidence came; no other counts from now on.',
        _LAUNCH + ('evidence_sha256',)),
    'launch.evidence_refused': (
        'Other evidence came for a launch than the first, and was refused.',
        _LAUNCH + ('reason_code', 'evidence_sha256', 'status')),
    'launch.awaiting_release': (
        'The evidence is in; the launch waits for its owner.',
        _LAUNCH + ('evidence_sha256', 'verdict_sha256')),
    'launch.approved': (
        'The owner approved the release.', _LAUNCH + ('verdict_sha256',)),
    'launch.released': (
        'The launch verified, and what the policy names was released to '
        'that guest alone.',
        _LAUNCH + _PLATFORM + (
            'evidence_sha256', 'verdict_sha256', 'secrets')),
    'launch.running': ('The host says that the guest runs.', _LAUNCH),
    'launch.failed': (
        'The host says that the launch failed.', _LAUNCH + ('reason_code',)),
    'launch.denied': (
        'The launch was refused, by the service or its owner.',
        _LAUNCH + _PLATFORM + ('reason_code', 'evidence_sha256')),
    'launch.expired': (
        'The launch\'s time was over; its keys are destroyed.',
        _LAUNCH + ('reason_code',)),
    'launch.superseded': (
        'A newer launch of the same server took the launch\'s place.',
        _LAUNCH + ('reason_code', 'superseded_by')),
    'launch.purged': (
        'Records of launches that were over were deleted.', ('count',)),
    'platform.verified': (
        'A host\'s platform was held to a root for the first time, or '
        'changed.', ('host', 'generation') + _PLATFORM),
    'policy.created': ('A policy was created.', _POLICY),
    'policy.updated': ('A policy has a new revision.', _POLICY),
    'policy.revoked': (
        'A policy was revoked; open launches of it are denied.', _POLICY),
    'policy.restored': ('A policy is not revoked any more.', _POLICY),
    'policy.deleted': ('A policy was deleted.', _POLICY),
}

_TYPES = {'string': str, 'integer': int, 'boolean': bool, 'array': list}


@dataclasses.dataclass(frozen=True)
class Event:
    """One thing that was decided.

    :ivar name: one of EVENTS
    :ivar subject: id of the launch, policy, ...
    :ivar actor: id of the user, name of the host, 'sweeper', ...; None when
        not known
    :ivar details: {name: JSON value}
    :ivar request_id: of the request that it was decided in, or None
    :ivar began: of a launch: when it began
    :ivar previous: of a launch: when it last changed before this
    """

    name: str
    project_id: str
    subject: str
    actor: str | None
    request_id: str | None
    details: dict
    began: datetime.datetime | None = None
    previous: datetime.datetime | None = None

    def __post_init__(self):
        if self.name not in EVENTS:
            raise ValueError(f'{self.name} is no event of events.EVENTS')
        allowed = EVENTS[self.name][1]
        for name, value in self.details.items():
            if name not in allowed:
                raise ValueError(f'{self.name} has no detail {name}; see '
                                 f'events.EVENTS')
            if type(value) is not _TYPES[DETAILS[name][0]]:
                raise ValueError(
                    f'{self.name}: {name} is a {DETAILS[name][0]}, not a '
                    f'{type(value).__name__}')
