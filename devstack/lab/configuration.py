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

"""Write every server's configuration.

From the templates, but for what devstack's plugin writes: the key service's,
and the driver's part of nova-compute's.
"""

import base64
import hashlib
import pathlib
import string
import textwrap

import yaml

from devstack.lab import credentials
from devstack.lab import layout as lab_layout
from devstack.lab import plugin

_TEMPLATES = pathlib.Path(__file__).with_name('templates')

# template -> place below the lab's etc folder. Barbican looks for its file
# in the home folder only, so that is where it is.
_FILES = {
    'keystone.conf': 'keystone/keystone.conf',
    'placement.conf': 'placement/placement.conf',
    'glance-api.conf': 'glance/glance-api.conf',
    'neutron.conf': 'neutron/neutron.conf',
    'barbican.conf': 'home/.barbican/barbican.conf',
    'nova.conf': 'nova/nova.conf',
    'nova-db.conf': 'nova/nova-db.conf',
    'mariadb.cnf': 'mariadb/mariadb.cnf',
    'init.sql': 'mariadb/init.sql',
    'rabbitmq.conf': 'rabbitmq/rabbitmq.conf',
}
_FOLDERS = (
    'keystone/fernet-keys', 'keystone/credential-keys', 'glance/images',
    'glance/staging', 'glance/tasks', 'neutron/lock', 'nova/instances',
    'nova/lock', 'mariadb', 'rabbitmq',
)
# user -> project; each has a section of its own in clouds.yaml.
CLOUD_USERS = {
    'admin': 'admin',
    'owner': 'owner',
    'auditor': 'owner',
    'other': 'other',
}


def write(layout):
    """Make the lab's folders and write all configuration files.

    Files are rewritten on each call: only the passwords are kept.
    """
    passwords = credentials.load(layout)
    values = _values(layout, passwords)
    for name in _FOLDERS:
        (layout.data / name).mkdir(parents=True, exist_ok=True)
    for folder in (layout.log, layout.etc / 'home', layout.run_dir):
        folder.mkdir(parents=True, exist_ok=True)
    for folder in (layout.etc, layout.data / 'keystone'):
        folder.chmod(0o700)
    for template, place in _FILES.items():
        credentials.write_private(layout.etc / place,
                                  render(template, values))
    for host in layout.computes:
        (host.state / 'nova' / 'lock').mkdir(parents=True, exist_ok=True)
        credentials.write_private(host.configuration, render(
            'nova-compute.conf', values | {
                'compute_host': host.name,
                'compute_state': host.state / 'nova',
                'compute_conf': host.configuration}))
        plugin.configure_compute(layout, host)
    plugin.configure_key_service(layout)
    credentials.write_private(layout.clouds, clouds(layout, passwords))
    credentials.write_private(layout.openrc, render('openrc', values))
    credentials.write_private(layout.tools / 'qemu-img',
                              render('qemu-img', values), mode=0o755)


def render(template, values):
    """A template with its ``${names}`` filled in.

    :raises KeyError: when the template names a value that is not given.
    """
    text = (_TEMPLATES / template).read_text()
    return string.Template(text).substitute(values)


def _values(layout, passwords):
    values = {f'{user}_password': passwords[user]
              for user in credentials.USERS}
    for server in lab_layout.PORTS:
        name = server.replace('-', '_')
        values[f'{name}_port'] = layout.port(server)
        values[f'{name}_url'] = layout.url(server)
    values |= {
        'lab_dir': layout.lab_dir,
        'etc': layout.etc,
        'data': layout.data,
        'log': layout.log,
        'run': layout.run_dir,
        'venv': layout.venv,
        'share': layout.venv / 'etc',
        'clouds': layout.clouds,
        'compute_root': layout.compute_root,
        'database_password': passwords['database'],
        'messaging_password': passwords['messaging'],
        'database': (f'mysql+pymysql://lab:{passwords["database"]}'
                     f'@127.0.0.1:{layout.port("mariadb")}'),
        'messaging': credentials.messaging_url(layout),
        'barbican_kek': _derived_key(passwords['barbican'], b'kek'),
        'service_credential': textwrap.dedent(f'''\
            auth_type = password
            auth_url = {layout.url('keystone')}/v3
            www_authenticate_uri = {layout.url('keystone')}/v3
            region_name = RegionOne
            project_name = service
            project_domain_name = Default
            user_domain_name = Default'''),
    }
    return values


def _derived_key(password, purpose):
    """A 32-byte key in base64 that stays as long as the password does."""
    digest = hashlib.sha256(purpose + b':' + password.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode()


def clouds(layout, passwords):
    """The users' credentials, in the form the OpenStack SDK reads."""
    return yaml.safe_dump({'clouds': {
        user: {
            'region_name': 'RegionOne',
            'identity_api_version': '3',
            'auth': {
                'auth_url': f'{layout.url("keystone")}/v3',
                'username': user,
                'password': passwords[user],
                'project_name': project,
                'user_domain_name': 'Default',
                'project_domain_name': 'Default',
            },
        } for user, project in CLOUD_USERS.items()}})
