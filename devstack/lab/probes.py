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

"""When a service is ready: one small question for each kind.

A probe returns None when the service answers as it should, or else a few
words on what is missing. It never waits longer than a second or two, and a
service that is not there yet is no error.
"""

import calendar
import socket
import subprocess
import sys
import time

import amqp
from keystoneauth1 import exceptions as auth_exceptions
import openstack
from openstack import exceptions as sdk_exceptions
import pymysql
import requests

from devstack.lab import credentials

_SECONDS = 2

# The first connection takes long: libvirtd asks QEMU for its abilities then.
_LIBVIRT_SECONDS = 60
_ASK_LIBVIRT = '''
import sys
import libvirt
libvirt.registerErrorHandler(lambda context, error: None, None)
try:
    platform = libvirt.open(sys.argv[1]).getSEVInfo()
except libvirt.libvirtError as error:
    sys.exit(str(error))
if not platform.get('cert-chain'):
    sys.exit('no SEV platform')
'''


def tcp(layout, server):
    """Something listens on the server's port."""
    try:
        socket.create_connection(('127.0.0.1', layout.port(server)),
                                 timeout=_SECONDS).close()
    except OSError as error:
        return str(error)
    return None


def database(layout):
    """MariaDB lets the lab's user in."""
    try:
        pymysql.connect(
            host='127.0.0.1', port=layout.port('mariadb'), user='lab',
            password=credentials.load(layout)['database'],
            connect_timeout=_SECONDS, read_timeout=_SECONDS).close()
    except (pymysql.err.Error, OSError) as error:
        return str(error)
    return None


def broker(layout):
    """RabbitMQ lets the lab's user in."""
    try:
        with _broker(layout):
            return None
    except (amqp.exceptions.AMQPError, OSError) as error:
        return str(error) or type(error).__name__


def consumer(layout, queue):
    """Somebody takes messages from a queue: an RPC server is there."""
    try:
        with _broker(layout) as connection:
            answer = connection.channel().queue_declare(queue, passive=True)
            return None if answer.consumer_count else 'no consumer yet'
    except (amqp.exceptions.AMQPError, OSError) as error:
        return str(error) or type(error).__name__


def http(layout, server, path):
    """The server answers a request that needs no credential."""
    try:
        response = requests.get(layout.url(server) + path, timeout=_SECONDS,
                                allow_redirects=False)
    except requests.RequestException as error:
        return type(error).__name__
    if response.status_code >= 400:
        return f'HTTP {response.status_code}'
    return None


def platform(host):
    """The emulated secure processor listens and has published its root."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(str(host.platform_socket))
    except OSError as error:
        return str(error)
    if not host.layout.emulated_root.exists():
        return 'no root certificate'
    return None


def hypervisor(host):
    """libvirtd answers, with the emulated platform among its abilities."""
    # A process of its own, because libvirt's calls have no time-out.
    try:
        done = subprocess.run(
            [sys.executable, '-c', _ASK_LIBVIRT, host.libvirt_uri],
            capture_output=True, text=True, timeout=_LIBVIRT_SECONDS)
    except subprocess.TimeoutExpired:
        return f'no answer in {_LIBVIRT_SECONDS} s'
    return done.stderr.strip() or None


def compute(host, since):
    """Nova may give a compute host servers, and placement has its SEV slots.

    :param since: seconds since the epoch; reports from before do not count.
    """
    try:
        with admin(host.layout) as cloud:
            service = next(iter(cloud.compute.services(
                binary='nova-compute', host=host.name)), None)
            return (_reported(service, since) or
                    _placed(cloud.placement, host, service))
    except (auth_exceptions.ClientException, sdk_exceptions.SDKException,
            OSError) as error:
        return str(error)


def _reported(service, since):
    if (service is None or service.state != 'up' or not service.updated_at or
            _seconds(service.updated_at) < since):
        return 'no report yet'
    if (service.disabled_reason or '').startswith('AUTO:'):
        # An operator's reason does not start so.
        return f'disabled itself: {service.disabled_reason}'
    return None


def _placed(placement, host, service):
    providers = {provider['name']: provider['uuid'] for provider in
                 placement.get('/resource_providers', microversion='1.14')
                 .json()['resource_providers']}
    if f'{host.name}_amd_sev' not in providers:
        return 'no SEV slots in placement yet'
    traits = placement.get(
        f'/resource_providers/{providers[host.name]}/traits',
        microversion='1.6').json()['traits']
    # Nova tells it in one attempt, and if that fails with its next look at
    # the host's resources.
    if service.status == 'enabled' and 'COMPUTE_STATUS_DISABLED' in traits:
        return 'placement was not told that it is enabled'
    return None


def admin(layout):
    """A connection of the cloud's administrator.

    A new one for each use: sessions are not made for many threads.
    """
    return openstack.connection.Connection(
        config=openstack.config.OpenStackConfig(
            config_files=[str(layout.clouds)], load_envvars=False,
        ).get_one('admin', api_timeout=30))


def _seconds(timestamp):
    return calendar.timegm(time.strptime(timestamp[:19],
                                         '%Y-%m-%dT%H:%M:%S'))


def _broker(layout):
    return amqp.Connection(
        f'127.0.0.1:{layout.port("rabbitmq")}', userid='lab',
        password=credentials.load(layout)['messaging'],
        connect_timeout=_SECONDS, read_timeout=_SECONDS,
        write_timeout=_SECONDS)
