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

"""What the lab takes from devstack's plugin.

The plugin's own functions write the configuration, make the accounts and
prepare the database; bash runs them with functions.sh in devstack's place,
which does to files what devstack does, and tells what it was asked to do to
keystone.
"""

import os
import subprocess
import tempfile

from devstack.lab import credentials
from devstack.lab import errors
from devstack.lab import layout as lab_layout

_SCRIPT = '''\
set -eu
cd "$1"
source lab/functions.sh
source settings
source plugin.sh '' ''
shift
for function in "$@"; do
    "$function"
done
'''
_SECONDS = 300
_KEY_SERVICE = 'key,attestation-api'
_RPC = 'attestation-rpc'
_COMPUTE = 'n-cpu'


def configure_key_service(layout):
    """Write the key service's configuration."""
    services = _KEY_SERVICE
    if layout.transport == 'rpc':
        services += f',{_RPC}'
    _run(layout, services, 'configure_attestation_keyservice')


def configure_compute(layout, host):
    """Add to a compute host's configuration what the driver needs.

    :param host: ComputeHost; the rest of its configuration is there
    """
    _run(layout, _COMPUTE, 'configure_attestation_compute',
         **_of_host(layout, host))


def accounts(layout):
    """What the plugin asks of keystone, for the service and every host.

    :returns: list of calls, each a list: the name of a function of devstack,
        then its arguments
    """
    calls = _run(layout, _KEY_SERVICE, 'create_attestation_accounts')
    for host in layout.computes:
        calls += _run(layout, _COMPUTE, 'create_attestation_host_account',
                      **_of_host(layout, host))
    return calls


def initialise(layout):
    """Bring the key service's tables up to date and make its keys."""
    _run(layout, _KEY_SERVICE, 'init_attestation')


def _of_host(layout, host):
    return {
        'ATTESTATION_HOST_NAME': host.name,
        'ATTESTATION_HOST_USER': host.user,
        'ATTESTATION_HOST_PASSWORD': credentials.of_host(
            credentials.load(layout), host),
        'ATTESTATION_RUN_DIR': host.run,
        'ATTESTATION_DROP_IN': host.configuration.with_suffix('.unit'),
        'NOVA_CONF': host.configuration,
        'NOVA_CPU_CONF': host.configuration,
    }


def _run(layout, services, *functions, **variables):
    """Run functions of the plugin; returns the calls it made."""
    passwords = credentials.load(layout)
    folder = layout.etc / 'attestation'
    with tempfile.NamedTemporaryFile('r', dir=layout.etc) as calls:
        environment = os.environ | {
            'STANDIN_CALLS': calls.name,
            'ENABLED_SERVICES': services,
            'HOME': layout.etc / 'home',
            'PYTHON': layout.bin('python'),
            'DEST': lab_layout.CHECKOUT.parent,
            'DATA_DIR': layout.data,
            'DATABASE_URL': (
                f'mysql+pymysql://lab:{passwords["database"]}@127.0.0.1:'
                f'{layout.port("mariadb")}/%s?charset=utf8mb4'),
            'TRANSPORT_URL': credentials.messaging_url(layout),
            'KEYSTONE_SERVICE_URI': f'{layout.url("keystone")}/v3',
            'SERVICE_PASSWORD': passwords['attestation'],
            'ATTESTATION_DIR': lab_layout.CHECKOUT,
            'ATTESTATION_CONF_DIR': folder,
            'ATTESTATION_CONF': folder / 'attestation.conf',
            'ATTESTATION_SEALING_KEYS': layout.sealing_keys,
            'ATTESTATION_AUDIT_KEYS': layout.audit_keys,
            'ATTESTATION_PLATFORM': 'emulated',
            'ATTESTATION_PLATFORM_KEYS': layout.emulator,
            'ATTESTATION_TRANSPORT': layout.transport,
            'ATTESTATION_NOTIFICATIONS': True,
            'ATTESTATION_SERVICE_URL': layout.url('attestation'),
        } | variables
        done = subprocess.run(
            ['bash', '-c', _SCRIPT, 'plugin',
             lab_layout.CHECKOUT / 'devstack', *functions],
            env={name: str(value) for name, value in environment.items()},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=_SECONDS)
        if done.returncode:
            raise errors.StepFailed(
                f'{", ".join(functions)} of devstack/plugin.sh ended with '
                f'{done.returncode}:\n{done.stdout}')
        return [line.split('\t') for line in calls.read().splitlines()]
