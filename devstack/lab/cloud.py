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

"""What is in the cloud when it is new: users, endpoints, flavors."""

import hashlib
import json

from cryptography import fernet

from devstack.lab import credentials
from devstack.lab import databases
from devstack.lab import errors
from devstack.lab import plugin
from devstack.lab import probes

_SERVICE_USERS = ('nova', 'placement', 'glance', 'neutron', 'barbican')
_PROJECTS = ('service', 'owner', 'other')
# user, project, roles. The owner and the other are strangers to each other;
# the auditor may look at what the owner has.
_GRANTS = (
    *((user, 'service', ('admin', 'service')) for user in _SERVICE_USERS),
    ('owner', 'owner', ('member', 'creator')),
    ('auditor', 'owner', ('reader',)),
    ('other', 'other', ('member', 'creator')),
)
_ROLES = ('admin', 'service', 'member', 'reader', 'creator')
# service type -> server, path below its address
_ENDPOINTS = {
    'placement': ('placement', ''),
    'compute': ('nova-api', '/v2.1'),
    'image': ('glance', ''),
    'network': ('neutron', ''),
    'key-manager': ('barbican', ''),
}
_SEV = {'hw:mem_encryption': 'true', 'hw:mem_encryption_model': 'amd-sev'}
_SEV_ES = _SEV | {'hw:mem_encryption_model': 'amd-sev-es'}
# name -> memory in MiB, vCPUs, extra specs
_FLAVORS = {
    'm1.plain': (512, 1, {}),
    'm1.sev': (512, 1, _SEV),
    'm1.sev2': (512, 2, _SEV),
    'm1.sev-es': (512, 1, _SEV_ES),
    'm1.sev-es2': (512, 2, _SEV_ES),
}


def bootstrap_identity(layout):
    """Give keystone its keys, the administrator and its own endpoint."""
    for name in ('fernet-keys', 'credential-keys'):
        # The key in use is the one with the highest number; 0 comes next.
        for number in ('0', '1'):
            path = layout.data / 'keystone' / name / number
            if not path.exists():
                credentials.write_private(
                    path, fernet.Fernet.generate_key().decode())
    if _is_done(layout, 'identity'):
        return
    url = f'{layout.url("keystone")}/v3'
    databases.run_manage(
        layout, 'keystone-manage',
        '--config-file', layout.etc / 'keystone' / 'keystone.conf',
        'bootstrap', '--bootstrap-region-id', 'RegionOne',
        '--bootstrap-public-url', url, '--bootstrap-internal-url', url,
        environment={
            'OS_BOOTSTRAP_PASSWORD': credentials.load(layout)['admin']})
    _set_done(layout, 'identity')


def fill_catalog(layout):
    """Make projects, users, roles and endpoints."""
    if _is_done(layout, 'catalog'):
        return
    passwords = credentials.load(layout)
    with probes.admin(layout) as cloud:
        identity = cloud.identity
        domain = identity.find_domain('Default', ignore_missing=False)
        roles = {role.name: role for role in identity.roles()}
        for name in _ROLES:
            if name not in roles:
                roles[name] = identity.create_role(name=name)
        projects = {project.name: project for project in identity.projects()}
        for name in _PROJECTS:
            if name not in projects:
                projects[name] = identity.create_project(
                    name=name, domain_id=domain.id)
        users = {user.name: user for user in identity.users()}
        for name, project, granted in _GRANTS:
            if name not in users:
                users[name] = identity.create_user(
                    name=name, domain_id=domain.id, password=passwords[name],
                    default_project_id=projects[project].id)
            for role in granted:
                identity.assign_project_role_to_user(
                    projects[project], users[name], roles[role])
        for service_type, (server, path) in _ENDPOINTS.items():
            _make_endpoint(identity, server, service_type,
                           layout.url(server) + path)
    _set_done(layout, 'catalog')


def make_attestation_accounts(layout):
    """Make the users and the endpoint that devstack's plugin asks for."""
    if _is_done(layout, 'attestation-accounts'):
        return
    types = {}
    with probes.admin(layout) as cloud:
        identity = cloud.identity
        for call in plugin.accounts(layout):
            match call:
                case ['get_or_create_user', name, password, *_]:
                    _make_user(identity, name, password)
                case ['get_or_add_user_project_role', role, name, project,
                      *_]:
                    _grant(identity, name, project, role)
                case ['get_or_create_service', name, service_type, *_]:
                    types[name] = service_type
                case ['get_or_create_endpoint', name, _, url, *_]:
                    _make_endpoint(identity, name, types[name], url)
                case _:
                    raise errors.StepFailed(
                        f'devstack/plugin.sh calls {call[0]}, for which the '
                        f'lab has nothing')
    _set_done(layout, 'attestation-accounts')


def _make_user(identity, name, password):
    domain = identity.find_domain('Default', ignore_missing=False)
    if identity.find_user(name) is None:
        identity.create_user(name=name, domain_id=domain.id,
                             password=password)


def _grant(identity, user, project, role):
    identity.assign_project_role_to_user(
        identity.find_project(project, ignore_missing=False),
        identity.find_user(user, ignore_missing=False),
        identity.find_role(role, ignore_missing=False))


def _make_endpoint(identity, name, service_type, url):
    service = next(identity.services(type=service_type), None) or (
        identity.create_service(type=service_type, name=name))
    known = {endpoint.interface: endpoint
             for endpoint in identity.endpoints(service_id=service.id)}
    for interface in ('public', 'internal'):
        endpoint = known.get(interface)
        if endpoint is None:
            identity.create_endpoint(
                service_id=service.id, interface=interface, url=url,
                region_id='RegionOne')
        elif endpoint.url != url:
            identity.update_endpoint(endpoint, url=url)


def make_flavors(layout):
    """Make the flavors, with and without memory encryption."""
    if _is_done(layout, 'flavors'):
        return
    with probes.admin(layout) as cloud:
        known = {flavor.name for flavor in cloud.compute.flavors()}
        for name, (memory, vcpus, extra_specs) in _FLAVORS.items():
            if name in known:
                continue
            flavor = cloud.compute.create_flavor(
                name=name, ram=memory, vcpus=vcpus, disk=1)
            if extra_specs:
                cloud.compute.create_flavor_extra_specs(flavor, extra_specs)
    _set_done(layout, 'flavors')


def map_hosts(layout):
    """Tell Nova's cell about the compute hosts, once they reported."""
    if _is_done(layout, 'hosts'):
        return
    folder = layout.etc / 'nova'
    databases.run_manage(
        layout, 'nova-manage', '--config-file', folder / 'nova.conf',
        '--config-file', folder / 'nova-db.conf',
        'cell_v2', 'discover_hosts', '--by-service')
    _set_done(layout, 'hosts')


def _stamp(layout):
    """What the stamps stand for: another content is made anew."""
    content = [_ROLES, _PROJECTS, _GRANTS, _ENDPOINTS, _FLAVORS,
               layout.compute_count, layout.port_base]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _is_done(layout, name):
    path = layout.data / f'{name}.stamp'
    return path.exists() and path.read_text() == _stamp(layout)


def _set_done(layout, name):
    (layout.data / f'{name}.stamp').write_text(_stamp(layout))
