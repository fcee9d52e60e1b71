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

"""Passwords and keys of a lab, made once and kept until it is reset."""

import hmac
import json
import os
import secrets

USERS = ('admin', 'nova', 'placement', 'glance', 'neutron', 'barbican',
         'attestation', 'owner', 'auditor', 'other')
_NAMES = ('database', 'messaging', *USERS)


def load(layout):
    """The lab's passwords by user name, made at random the first time.

    They are hexadecimal, so that no file format has to quote them. The file
    is readable by root only.
    """
    path = layout.etc / 'credentials.json'
    known = json.loads(path.read_text()) if path.exists() else {}
    missing = [name for name in _NAMES if name not in known]
    if missing:
        known.update((name, secrets.token_hex(16)) for name in missing)
        write_private(path, json.dumps(known, indent=1))
    return known


def messaging_url(layout):
    """RabbitMQ's URL in oslo.messaging's form, with the lab's password."""
    return (f'rabbit://lab:{load(layout)["messaging"]}'
            f'@127.0.0.1:{layout.port("rabbitmq")}/')


def of_host(passwords, host):
    """The password of a compute host's own user.

    :param passwords: what load() gives
    :param host: ComputeHost
    """
    return hmac.new(passwords['nova'].encode(), host.user.encode(),
                    'sha256').hexdigest()[:32]


def write_private(path, text, mode=0o600):
    """Write a file that nobody else can read, not even while it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + '.new')
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, 'w') as out:
        out.write(text)
    fresh.replace(path)
