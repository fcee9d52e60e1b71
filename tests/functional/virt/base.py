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
import threading
import time
from unittest import mock

import fixtures
from nova import context as nova_context
from nova import objects
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional.libvirt import base
from nova.virt import event as virtevent
from nova.virt.libvirt import driver
from nova.virt.libvirt import host
from nova.virt.libvirt import utils as libvirt_utils
from oslo_utils.fixture import uuidsentinel as uuids
from oslo_utils import versionutils

from nova_sev_attest.virt import conf
from nova_sev_attest.virt import driver as attest_driver
from tests.functional.virt import fakes
from tests.functional.virt import keyservice

CONF = conf.CONF

KERNEL = b'a kernel'
INITRD = b'an initrd'
COMMAND_LINE = 'console=ttyS0'

#: What happens to a guest in a launch, in this order.
LAUNCH = ['start', 'measure', 'inject', 'mark', 'run']

# Seconds that anything may take that happens soon. Nova's tests give up
# after five, which two busy processors need at times.
PATIENCE = 60.0
_LOOKS_PER_SECOND = 10


def _create_image(driver, context, instance, *args, **kwargs):
    """What Nova does here, as far as the driver reads it back."""
    folder = libvirt_utils.get_instance_path(instance)
    os.makedirs(folder, exist_ok=True)
    for name, content in (('kernel', KERNEL), ('ramdisk', INITRD)):
        with open(os.path.join(folder, name), 'wb') as file:
            file.write(content)
    return False, False


def power_off_only(driver, context, instance, *args, **kwargs):
    """Nova's migrate_disk_and_power_off, which moves disks by ssh."""
    driver.power_off(instance)
    return '{}'


class SevTestCase(base.ServersTestBase):
    """Starts no compute service: a test does, once it has set its flags."""

    microversion = 'latest'
    ADMIN_API = True
    # What a user asked for is answered before it is done.
    CAST_AS_CALL = False
    mode = 'required'

    def setUp(self):
        self.connections = {}
        # Where launches are recorded: not for another test's nova-compute.
        state = self.useFixture(fixtures.TempDir()).path
        # Nova looks for it beside its package, where a wheel does not put
        # it.
        paste = os.path.join(sys.prefix, 'etc', 'nova', 'api-paste.ini')
        self.assertTrue(os.path.isfile(paste), paste)
        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.conf.paths.state_path_def',
            lambda *parts: os.path.join(sys.prefix, *parts)))
        super().setUp()
        connection = fakelibvirt.virConnect
        self.useFixture(fixtures.MockPatchObject(
            connection, '_domain_capability_features',
            # Nova 33 has one without numbers of guests, too.
            new=getattr(
                connection,
                '_domain_capability_features_with_SEV_max_guests',
                connection._domain_capability_features_with_SEV)))
        # What the kernel says that it can, in Nova's words.
        self.kernel_models = {'sev'}
        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.host.Host._kernel_supports_amd_sev',
            lambda host, model='sev': model in self.kernel_models))
        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.LibvirtDriver._create_image', _create_image))
        self.service = keyservice.KeyService()
        server = keyservice.Server(self.service)
        self.addCleanup(server.stop)
        self.flags(group='sev_attest', mode=self.mode, auth_type='none',
                   endpoint_override=server.url, launch_timeout=PATIENCE,
                   timeout=PATIENCE, report_timeout=PATIENCE, max_retries=2,
                   retry_delay=0.05)
        self.flags(state_path=state)
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
        self.connections[self.connection.hostname] = self.connection
        return self.connection

    def _make_images(self):
        self.plain_image = self._make_image('plain', {})
        self.sev_image = self._make_image('sev', {
            'hw_mem_encryption': 'True'})
        kernel = self._make_image('kernel', {}, 'aki', len(KERNEL))
        ramdisk = self._make_image('ramdisk', {}, 'ari', len(INITRD))
        self.kernel_image = self._make_image('sev-kernel', {
            'hw_mem_encryption': 'True', 'kernel_id': kernel,
            'ramdisk_id': ramdisk, 'os_command_line': COMMAND_LINE})
        self.nvram_image = self._make_image('sev-nvram', {
            'hw_mem_encryption': 'True', 'hw_firmware_stateless': 'False'})

    def _make_image(self, name, properties, container_format='bare',
                    size=None):
        image = copy.deepcopy(self.glance.image1)
        image['size'] = size or image['size']
        image['id'] = getattr(uuids, name)
        image['container_format'] = container_format
        image['properties'].update({
            'hw_firmware_type': 'uefi', 'hw_machine_type': 'q35',
            'hw_firmware_stateless': 'True'})
        image['properties'].update(properties)
        self.glance.create(None, image)
        return image['id']

    def start_sev_compute(self, hostname='compute1'):
        return self.start_compute(
            hostname,
            libvirt_version=versionutils.convert_version_to_int(
                driver.MIN_LIBVIRT_STATELESS_FIRMWARE),
            qemu_version=versionutils.convert_version_to_int(
                host.MIN_QEMU_SEV_ES_VERSION))

    def _wait_for_server_parameter(self, server, expected_params,
                                   max_retries=None, api=None,
                                   wait_for_fault_key=True):
        api = api or self.api

        def look():
            return api.get_server(server['id'])

        shown = self.wait_until(
            lambda: self._shows(look(), expected_params, wait_for_fault_key),
            lambda: f'{expected_params} did not come: {look()}')
        self.wait_until_told()
        return shown

    def wait_until_told(self):
        """Wait until the key service knows of all guests that run."""
        for thread in threading.enumerate():
            if thread.name.startswith(attest_driver.TELLING):
                thread.join(PATIENCE)
                self.assertFalse(thread.is_alive())

    @staticmethod
    def _shows(server, expected, wait_for_fault_key):
        if any(server[name] != value for name, value in expected.items()):
            return None
        # The fault comes after the state.
        if (wait_for_fault_key and expected.get('status') == 'ERROR' and
                'fault' not in server):
            return None
        return server

    def wait_until(self, seen, problem):
        """Wait for what happens soon.

        :param seen: called until it gives something true
        :param problem: called for the message if it never does
        :returns: what seen gave
        """
        for _ in range(int(PATIENCE * _LOOKS_PER_SECOND)):
            result = seen()
            if result:
                return result
            time.sleep(1 / _LOOKS_PER_SECOND)
        self.fail(problem())

    def boot(self, image, expected_state='ACTIVE', networks='none',
             **request):
        request = self._build_server(
            image_uuid=image, networks=networks) | request
        server = self.api.post_server({'server': request})
        return self._wait_for_state_change(server, expected_state)

    def act(self, server, action, expected_state=None, **parameters):
        """Ask for an action on a server, and wait for its state after."""
        self.api.post_server_action(
            server['id'], {action: parameters or None})
        if expected_state is None:
            return server
        return self._wait_for_server_parameter(server, {
            'status': expected_state, 'OS-EXT-STS:task_state': None})

    def refuse(self, operation, answer):
        """Make the key service give an answer to one operation."""
        self.service.interfere = (
            lambda now, launch_id: answer if now == operation else None)

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

    @contextlib.contextmanager
    def one_launch(self, server, host='compute1', after=()):
        """Hold a block to a single new launch of a server, on one host.

        With an id, a token and a session that no launch had before, in the
        order of LAUNCH, and reported as running.

        :param after: what happens to the guest on that host before
        """
        before = dict(self.service.launches)
        self.forget_events(server)
        yield
        new = {launch_id: launch for launch_id, launch
               in self.service.launches.items() if launch_id not in before}
        self.assertEqual([server['id']], [
            launch['request']['launch']['server_id']
            for launch in new.values()])
        (launch,) = new.values()
        self.assertEqual(host, launch['request']['launch']['host'])
        for fresh in ('token', 'session'):
            self.assertNotIn(launch[fresh], [
                earlier[fresh] for earlier in before.values()])
        # The service refuses a measurement of another session.
        self.assertEqual([*after, *LAUNCH], self.events(server, host))
        for other in set(self.connections) - {host}:
            self.assertNotIn('run', self.events(server, other))
        self.assertEqual('running', launch['outcome']['status'])

    @contextlib.contextmanager
    def no_launch(self, server, events=()):
        """Hold a block to no launch of a server, and these events."""
        before = list(self.service.order)
        self.forget_events(server)
        yield
        self.assertEqual(before, self.service.order)
        for name in self.connections:
            self.assertEqual(list(events) if name == 'compute1' else [],
                             self.events(server, name))

    def purposes(self, server):
        """What the launches of a server were for, in order."""
        return [request.get('purpose', 'boot') for request in (
            launch['request']['launch']
            for launch in self.service.launches.values())
            if request['server_id'] == server['id']]

    def domain(self, server, host='compute1'):
        """A server's domain, as an operator could take it in hand."""
        return self.connections[host].lookupByUUIDString(server['id'])

    def events(self, server, host='compute1'):
        """What happened to a server's guest on a host, in order."""
        return self.connections[host].events.get(server['id'], [])

    def forget_events(self, server):
        for connection in self.connections.values():
            connection.events.get(server['id'], [])[:] = []

    def instance(self, server):
        return objects.Instance.get_by_uuid(
            nova_context.get_admin_context(), server['id'])

    def action_events(self, server, action):
        """Results by event of a server's latest action of a name."""
        found = next(one for one in self.api.get_instance_actions(
            server['id']) if one['action'] == action)
        return {event['event']: event['result'] for event in
                self.api.get_instance_action_details(
                    server['id'], found['request_id'])['events']}

    def hear(self, driver):
        """Let a driver hear of what happens in its libvirt.

        What libvirt's events go through before, Nova's tests leave out.
        """
        host = driver._host

        def heard(connection, domain, event, detail, opaque):
            transition = {
                fakelibvirt.VIR_DOMAIN_EVENT_STARTED:
                    virtevent.EVENT_LIFECYCLE_STARTED,
                fakelibvirt.VIR_DOMAIN_EVENT_RESUMED:
                    virtevent.EVENT_LIFECYCLE_RESUMED}.get(event)
            if transition is not None:
                driver.emit_event(virtevent.LifecycleEvent(
                    domain.UUIDString(), transition))

        host.get_connection().domainEventRegisterAny(
            None, fakelibvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, heard, None)

    def assert_nothing_ran_or_is_left(self, server):
        """No instruction of the guest, no domain, no allocation."""
        for name in self.connections:
            self.assertNotIn('run', self.events(server, name))
        self.assert_nothing_is_left(server)

    def assert_nothing_is_left(self, server):
        """No domain, no allocation."""
        for connection in self.connections.values():
            self.assertEqual({}, connection._vms)
            self.assertEqual({}, connection._running_vms)
        # Nova takes them back after the server shows its last state.
        self.wait_until(lambda: not self._allocations(server),
                        lambda: f'allocations: {self._allocations(server)}')

    def _allocations(self, server):
        return self.placement.get(
            f'/allocations/{server["id"]}').body['allocations']

    def fault(self, server):
        message = self.api.get_server(server['id'])['fault']['message']
        self.assertLessEqual(len(message), 255)
        return message
