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

"""Files of the repository that are made from the code.

``python -m tests.generated`` writes them anew; a unit test fails where one is
not what the code makes.
"""

import json
import pathlib
import tempfile

from cryptography.hazmat.primitives.asymmetric import ed25519
from oslo_config import cfg
from oslo_config import generator as config_generator
from oslo_policy import generator as policy_generator

from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.keyservice import events
from nova_sev_attest.keyservice import notifications

ROOT = pathlib.Path(__file__).parents[2]

_PROJECT = '0f3c1e6a7b2d4d5e9a8b7c6d5e4f3a2b'
_LAUNCH = '7d0c3e1a-52b4-4a6f-9d8e-1b2c3d4e5f60'
_POLICY = 'c2a9f6d0-8e41-4b7a-a5c3-90d1e2f3a4b5'
_AT = '2026-11-24T03:43:00.000000Z'
_EXAMPLES = {
    'approval': 'automatic',
    'chip_id': 'a1' * 64,
    'count': 1200,
    'emulated': False,
    'generation': 'milan',
    'host': 'compute-07',
    'name': 'web',
    'platform_api': '1.51',
    'platform_root': 'amd-milan',
    'policy_id': _POLICY,
    'policy_revision': 3,
    'purpose': 'boot',
    'reason_code': 'attestation.kernel_not_allowed',
    'revision': 3,
    'secrets': ['5b0e8c1d-3f62-4a97-b1d0-6e7f8a9b0c1d'],
    'server_id': '1e9b7c2d-4f60-4d8a-8c3b-2a1f0e9d8c7b',
    'size': 4194304,
    'status': 'released',
    'superseded_by': '98f1d2c3-b4a5-4697-8877-665544332211',
    'technology': 'amd-sev-es',
    'verifier': 'service',
}
# Of no use to anyone: its seed is here.
_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def _signed(point):
    point = chain.Point(point.project_id, point.sequence, point.at,
                        point.hash, '0001-5eedf00d')
    return chain.Point(
        point.project_id, point.sequence, point.at, point.hash, point.key_id,
        chain.encode_signature(_KEY.sign(point.message())))


def _example(detail):
    if detail == 'checkpoint':
        return str(_signed(chain.Point(
            _PROJECT, 1200, '2025-11-24T03:43:00.000000Z', bytes(range(32)))))
    if detail.endswith('_sha256'):
        return f'{len(detail):02x}' * 32
    return _EXAMPLES[detail]


def _subject(name):
    if name in ('audit.purged', 'launch.purged'):
        return _PROJECT
    return {'launch': _LAUNCH, 'policy': _POLICY, 'firmware': 'd4' * 32,
            'platform': 'compute-07'}[name.partition('.')[0]]


def notification(name):
    """A sample of an event's notification, as it goes over the bus."""
    event = events.Event(
        name, _PROJECT, _subject(name), 'nova-sev-attest-compute-07',
        'req-3d5c8f1e-7a90-4b2c-8d6e-f0a1b2c3d4e5',
        {detail: _example(detail) for detail in events.EVENTS[name][1]})
    record = chain.Record(
        event.project_id, 4711, _AT, event.name, event.subject, event.actor,
        event.request_id, chain.canonical(event.details)).chained(bytes(32))
    return {
        'event_type': notifications.EVENT_TYPE_PREFIX + name,
        'priority': notifications.PRIORITIES.get(name, 'info').upper(),
        'publisher_id': notifications.PUBLISHER + '.node-1',
        'payload': notifications.payload(event, record,
                                         _signed(chain.Point.of(record))),
    }


def notification_events():
    """Page of all notifications, in reStructuredText."""
    lines = ['.. Made from events.py by "python -m tests.generated".', '']
    for name, (when, details) in events.EVENTS.items():
        sample = notification(name)
        title = sample['event_type']
        lines += [title, '-' * len(title), '',
                  f'{when} Priority {sample["priority"]}.', '']
        for detail in details:
            kind, meaning = events.DETAILS[detail]
            lines += [f'``{detail}`` ({kind})', f'    {meaning}']
        lines += ['', '.. code-block:: json', '']
        lines += ['    ' + line for line in
                  json.dumps(sample, indent=2).splitlines()]
        lines.append('')
    return '\n'.join(lines)


def _configuration(namespace):
    def made():
        conf = cfg.ConfigOpts()
        config_generator.register_cli_opts(conf)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, 'sample')
            conf(['--namespace', namespace, '--output-file', str(path)])
            config_generator.generate(conf)
            return path.read_text()
    return made


def _policy():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, 'sample')
        policy_generator.generate_sample(
            ['--namespace', 'nova_sev_attest', '--output-file', str(path)],
            cfg.ConfigOpts())
        return path.read_text()


#: Path -> function that makes the file's text.
FILES = {
    'doc/source/operator/notification-events.inc': notification_events,
    'etc/nova-sev-attest/nova-sev-attest.conf.sample': _configuration(
        'nova_sev_attest.keyservice'),
    'etc/nova-sev-attest/nova.conf.sample': _configuration(
        'nova_sev_attest.driver'),
    'etc/nova-sev-attest/policy.yaml.sample': _policy,
}
