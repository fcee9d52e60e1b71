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

"""A compute host with SEV under our driver, in Nova's functional tier."""

import contextlib
import copy
import os
import sys
from unittest import mock

import fixtures
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional.libvirt import base
from nova.virt.libvirt import driver
from nova.virt.libvirt import host
from nova.virt.libvirt import utils as libvirt_utils
from oslo_utils.fixture import uuidsentinel as uuids
from oslo_utils import versionutils

from nova_sev_attest.virt import conf
from tests.functional.virt import fakes
from tests.functional.virt import keyservice

CONF = conf.CONF

KERNEL = b'a kernel'
INITRD = b'an initrd'
COMMAND_LINE = 'console=ttyS0'


def _create_image(driver, context, instance, *args, **kwargs):
    """What Nova does here, as far as the driver reads it back."""
    folder = libvirt_utils.get_instance_path(instance)
    os.makedirs(folder, exist_ok=True)
    for name, content in (('kernel', KERNEL), ('ramdisk', INITRD)):
        with open(os.path.join(folder, name), 'wb') as file:
            file.write(content)
    return False, False


class SevTestCase(base.ServersTestBase):
    """Starts no compute service: a test does, once it has set its flags."""

    microversion = 'latest'
    ADMIN_API = True
    mode = 'required'

    def setUp(self):
        # Nova looks for it beside its package, where a wheel does not put
        # it.
        paste = os.path.join(sys.prefix, 'etc', 'nova', 'api-paste.ini')
        self.assertTrue(os.path.isfile(paste), paste)
        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.conf.paths.state_path_def',
            lambda *parts: os.path.join(sys.prefix, *parts)))
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(
            fakelibvirt.virConnect, '_domain_capability_features',
            new=fakelibvirt.virConnect._domain_capability_features_with_SEV))
        self.libvirt.amd_sev.sev = True
        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.LibvirtDriver._create_image', _create_image))
        self.service = keyservice.KeyService()
        server = keyservice.Server(self.service)
        self.addCleanup(server.stop)
        self.flags(group='sev_attest', mode=self.mode, auth_type='none',
                   endpoint_override=server.url, launch_timeout=5.0,
                   timeout=2.0, report_timeout=1.0, max_retries=2,
                   retry_delay=0.05)
        self._make_images()

    def _clear_attrs(self):
        # pytest puts the test on the instance, and takes it off again.
        test = getattr(self, self._testMethodName)
        super()._clear_attrs()
        setattr(self, self._testMethodName, test)

    def _setup_compute_service(self):
        self.flags(compute_driver='sev_attest.LibvirtDriver')

    def _get_connection(self, *args, **kwargs):
        with mock.patch.object(fakelibvirt, 'Connection', fakes.Connection):
            self.connection = super()._get_connection(*args, **kwargs)
        return self.connection

    def _make_images(self):
        self.plain_image = self._make_image('plain', {})
        self.sev_image = self._make_image('sev', {
            'hw_mem_encryption': 'True'})
        kernel = self._make_image('kernel', {}, 'aki')
        ramdisk = self._make_image('ramdisk', {}, 'ari')
        self.kernel_image = self._make_image('sev-kernel', {
            'hw_mem_encryption': 'True', 'kernel_id': kernel,
            'ramdisk_id': ramdisk, 'os_command_line': COMMAND_LINE})
        self.nvram_image = self._make_image('sev-nvram', {
            'hw_mem_encryption': 'True', 'hw_firmware_stateless': 'False'})

    def _make_image(self, name, properties, container_format='bare'):
        image = copy.deepcopy(self.glance.image1)
        image['id'] = getattr(uuids, name)
        image['container_format'] = container_format
        image['properties'].update({
            'hw_firmware_type': 'uefi', 'hw_machine_type': 'q35',
            'hw_firmware_stateless': 'True'})
        image['properties'].update(properties)
        self.glance.create(None, image)
        return image['id']

    def start_sev_compute(self):
        return self.start_compute(
            libvirt_version=versionutils.convert_version_to_int(
                driver.MIN_LIBVIRT_STATELESS_FIRMWARE),
            qemu_version=versionutils.convert_version_to_int(
                host.MIN_QEMU_SEV_ES_VERSION))

    def boot(self, image, expected_state='ACTIVE', networks='none',
             metadata=None):
        request = self._build_server(image_uuid=image, networks=networks)
        if metadata is not None:
            request['metadata'] = metadata
        server = self.api.post_server({'server': request})
        server = self._wait_for_state_change(server, expected_state)
        return self.api.get_server(server['id'])

    def await_network(self, plug):
        """Make Nova wait for a port of the next servers.

        :param plug: called when Nova has started the guest, paused
        """
        @contextlib.contextmanager
        def wait(virtapi, instance, events, **kwargs):
            yield
            if events:
                plug()

        self.flags(vif_plugging_timeout=10)
        self.stub_out('nova.compute.manager.ComputeVirtAPI.'
                      'wait_for_instance_event', wait)
        self.stub_out(
            'nova.virt.libvirt.LibvirtDriver._get_neutron_events',
            lambda driver, network_info: [
                ('network-vif-plugged', vif['id']) for vif in network_info])

    def events(self, server):
        return self.connection.events.get(server['id'], [])

    def assert_nothing_ran_or_is_left(self, server):
        """No instruction of the guest, no domain, no allocation."""
        self.assertNotIn('run', self.events(server))
        self.assertEqual({}, self.connection._vms)
        self.assertEqual({}, self.connection._running_vms)
        self.assertEqual({}, self.placement.get(
            f'/allocations/{server["id"]}').body['allocations'])

    def fault(self, server):
        message = self.api.get_server(server['id'])['fault']['message']
        self.assertLessEqual(len(message), 255)
        return message
