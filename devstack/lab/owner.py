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

"""A guest owner at work: what a project's member does to have a server
attested.

Everything that an owner makes is remembered and can be removed by
:meth:`Owner.clean`. The demo and the tests of the lab are built on this.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import time
import uuid

from keystoneauth1 import adapter
import openstack
from openstack import exceptions

from nova_sev_attest import client

FLAVOR = 'm1.sev'
# The entry of the launch secret table that holds a LUKS passphrase, as
# OVMF's users agreed on it.
LUKS_GUID = '736869e5-84f0-4973-92ec-06879ce3da0b'
# What the driver and Nova ask of an image that is to be attested.
IMAGE_PROPERTIES = {
    'hw_firmware_type': 'uefi',
    'hw_firmware_stateless': 'true',
    'hw_machine_type': 'q35',
    # The guest has nothing to save and does not listen for a power button.
    'os_shutdown_timeout': '0',
}
_REPORT_SECONDS = 5
_POLL = 0.3


class OwnerError(Exception):
    """Something did not happen in time, or the command line failed."""


@dataclasses.dataclass(frozen=True)
class Images:
    """The images that a server is started from, by their ids."""

    kernel: str
    initramfs: str
    disk: str


class Owner:
    """A member of a project.

    :param layout: the lab (:class:`devstack.lab.layout.Layout`).
    :param user: the user's name, which is a section of the lab's
        clouds.yaml too.
    """

    def __init__(self, layout, user='owner'):
        self._layout = layout
        self._user = user
        configuration = openstack.config.OpenStackConfig(
            config_files=[str(layout.clouds)], load_envvars=False)
        self.cloud = openstack.connection.Connection(
            config=configuration.get_one(user))
        self.attestation = client.Client(adapter.Adapter(
            self.cloud.session, service_type='attestation',
            interface='public', region_name='RegionOne'))
        self._made = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clean()

    def clean(self):
        """Remove what this owner made, the newest first."""
        self._made.close()

    def keep(self):
        """Forget what was made: it stays."""
        self._made.pop_all()

    def store_secret(self, name, payload):
        """Put a secret into Barbican.

        :param payload: text.
        :returns: its UUID.
        """
        answer = self._barbican('POST', '/secrets', json={
            'name': name, 'secret_type': 'passphrase', 'payload': payload,
            'payload_content_type': 'text/plain'})
        secret = answer.json()['secret_ref'].rsplit('/', 1)[1]
        self._made.callback(self._barbican, 'DELETE', f'/secrets/{secret}')
        return secret

    def grant(self, secret, user_id):
        """Let one more user, the key service's, read a secret."""
        self._barbican('PUT', f'/secrets/{secret}/acl', json={
            'read': {'users': [user_id], 'project-access': True}})

    def _barbican(self, method, path, **arguments):
        answer = self.cloud.key_manager.request(path, method, **arguments)
        exceptions.raise_from_response(answer)
        return answer

    def create_policy(self, **members):
        """Create a policy; returns its members as the service shows them."""
        members.setdefault('technologies', ['amd-sev'])
        policy = self.attestation.policies.create(members).body
        self._made.callback(self.attestation.policies.delete, policy['id'])
        return policy

    def upload_firmware(self, path):
        """Make a firmware image known to the key service.

        It stays there: other policies of the project may name it.

        :returns: its SHA-256 in hex.
        """
        return self.attestation.firmwares.upload(
            pathlib.Path(path).read_bytes())['sha256']

    def create_guest_policy(self, name, guest, firmware, secret=None,
                            **members):
        """Create a policy that allows exactly one guest.

        :param guest: :class:`devstack.lab.guest.build.Guest`.
        :param firmware: SHA-256 in hex.
        :param secret: Barbican's UUID of the disk's passphrase.
        :param members: of the policy, where they differ.
        """
        exact = {
            'name': name,
            'firmwares': [firmware],
            'kernels': [sha256(guest.kernel)],
            'initrds': [sha256(guest.initramfs)],
            'command_lines': [guest.command_line],
            'secrets': [] if secret is None else [
                {'guid': LUKS_GUID, 'secret_ref': secret}],
        }
        return self.create_policy(**exact | members)

    def upload_image(self, name, path, kind, **properties):
        """Upload an image of a disk format that is its container's too.

        :param kind: 'aki' (kernel), 'ari' (initramfs) or 'raw' (disk).
        :returns: its id.
        """
        image = self.cloud.image.create_image(
            name, filename=str(path), disk_format=kind,
            container_format='bare' if kind == 'raw' else kind,
            # They are compared by the launch digest, not by Glance.
            validate_checksum=False, allow_duplicates=True, wait=True,
            properties=properties)
        self._made.callback(self.cloud.image.delete_image, image.id)
        return image.id

    def upload_guest(self, name, guest, initramfs=None):
        """Upload a guest as Nova takes it.

        :param guest: :class:`devstack.lab.guest.build.Guest`.
        :param initramfs: path of another initramfs than the guest's.
        """
        kernel = self.upload_image(f'{name}-kernel', guest.kernel, 'aki')
        ramdisk = self.upload_image(f'{name}-initramfs',
                                    initramfs or guest.initramfs, 'ari')
        disk = self.upload_image(
            f'{name}-disk', guest.disk, 'raw', kernel_id=kernel,
            ramdisk_id=ramdisk, os_command_line=guest.command_line,
            **IMAGE_PROPERTIES)
        return Images(kernel, ramdisk, disk)

    def create_server(self, name, images, policy=None):
        """Start a server with ``openstack server create``.

        :param policy: what the server's property attestation_policy says.
        :returns: the server's id.
        """
        chosen = [] if policy is None else [
            '--property', f'attestation_policy={policy}']
        server = json.loads(self.openstack(
            'server', 'create', '--format', 'json', '--flavor', FLAVOR,
            '--image', images.disk, '--nic', 'none', *chosen, name))['id']
        self._made.callback(self.delete_server, server)
        return server

    def boot_server(self, name, images, policy=None, flavor=FLAVOR):
        """The same request without starting a command for it."""
        server = self.cloud.compute.create_server(
            name=name, image_id=images.disk, networks='none',
            flavor_id=self.cloud.compute.find_flavor(
                flavor, ignore_missing=False).id,
            metadata={} if policy is None
            else {'attestation_policy': policy}).id
        self._made.callback(self.delete_server, server)
        return server

    def openstack(self, *arguments):
        """Run the real ``openstack`` command; returns what it prints."""
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith('OS_')}
        environment |= {'OS_CLIENT_CONFIG_FILE': str(self._layout.clouds),
                        'OS_CLOUD': self._user}
        done = subprocess.run([self._layout.bin('openstack'), *arguments],
                              env=environment, capture_output=True, text=True)
        if done.returncode:
            raise OwnerError(f'openstack {" ".join(arguments)} failed: '
                             f'{done.stderr.strip()}')
        return done.stdout

    def server(self, server):
        """A server as Nova shows it to its owner."""
        return self.cloud.compute.get_server(server)

    def wait(self, server, status, seconds=60):
        """Wait for a server's status, at rest (no task on its way).

        :returns: the server; it is in ERROR when that came instead.
        :raises OwnerError: when neither comes in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            seen = self.server(server)
            if seen.task_state is None and seen.status in (status, 'ERROR'):
                return seen
            if time.monotonic() > deadline:
                raise OwnerError(
                    f'server {server} is {seen.status} (task '
                    f'{seen.task_state}) after {seconds} s, not {status}')
            time.sleep(_POLL)

    def console(self, server):
        """All that a server's console printed.

        Nova has no console for a server that no host holds: then nothing
        was printed.
        """
        try:
            return self.cloud.compute.get_server_console_output(
                server)['output']
        except (exceptions.NotFoundException, exceptions.ConflictException):
            return ''

    def wait_for_console(self, server, text, seconds=60):
        """Wait until a server printed a text; returns the console.

        :raises OwnerError: when it does not come in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            printed = self.console(server)
            if text in printed:
                return printed
            if time.monotonic() > deadline:
                raise OwnerError(f'server {server} did not print {text!r} in '
                                 f'{seconds} s but: {printed[-2000:]!r}')
            time.sleep(_POLL)

    def launches(self, server):
        """The key service's records of a server's boots, oldest first.

        That a guest runs is reported a moment after its server is ACTIVE;
        so much is waited for.
        """
        deadline = time.monotonic() + _REPORT_SECONDS
        while True:
            found, _ = self.attestation.launches.list(server_id=server)
            if (time.monotonic() > deadline or
                    'released' not in [one['status'] for one in found]):
                return sorted(found, key=lambda launch: launch['created_at'])
            time.sleep(_POLL)

    def delete_server(self, server, seconds=60):
        """Delete a server and wait until it is gone."""
        with contextlib.suppress(exceptions.NotFoundException):
            self.cloud.compute.delete_server(server)
            found = self.server(server)
            self.cloud.compute.wait_for_delete(found, interval=_POLL,
                                               wait=seconds)


def sha256(path):
    """The digest of a file, in hex."""
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def unique(name):
    """A name that nothing else in the lab has."""
    return f'{name}-{uuid.uuid4().hex[:8]}'
