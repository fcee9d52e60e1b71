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


"""Attested servers between two compute hosts."""

import os
import pathlib

from nova.tests.fixtures import libvirt as fakelibvirt
from nova import utils

from nova_sev_attest.virt import domain_xml
from tests.functional.virt import base
from tests.functional.virt import keyservice


class TwoHostsTest(base.SevTestCase):
    """What moves a server: a launch of its own on the other host."""

    def setUp(self):
        super().setUp()
        self.start_sev_compute()
        self.server = self.boot(self.sev_image)
        self.start_sev_compute('compute2')
        self.stub_out('nova.virt.libvirt.LibvirtDriver.'
                      'migrate_disk_and_power_off', base.power_off_only)

    def test_cold_migration(self):
        with self.one_launch(self.server, 'compute2'):
            self._migrate_server(self.server)
        self._confirm_resize(self.server)
        self.assertFalse(self.domain(self.server).isActive())

    def test_revert_of_a_migration(self):
        self._migrate_server(self.server)
        with self.one_launch(self.server):
            self._revert_resize(self.server)
        self.assertEqual({}, self.connections['compute2']._vms)

    def test_revert_of_a_resize_of_a_stopped_server(self):
        self.act(self.server, 'os-stop', 'SHUTOFF')
        larger = self._create_flavor(memory_mb=4096, vcpu=1)
        with self.no_launch(self.server):
            self._resize_server(self.server, larger)
        # Defined as what must not run unattested, for whoever starts it.
        domain = domain_xml.parse(
            self.domain(self.server, 'compute2').XMLDesc(0))
        self.assertEqual(domain_xml.Marker(None, 'pending'),
                         domain_xml.marker(domain))
        self.assertEqual('destroy', domain.findtext('on_reboot'))
        with self.no_launch(self.server):
            self.act(self.server, 'revertResize', 'SHUTOFF')
        with self.one_launch(self.server):
            self.act(self.server, 'os-start', 'ACTIVE')

    def test_denied_migration(self):
        self.refuse('evidence', keyservice.refusal(
            403, 'attestation.firmware_not_allowed', 'Another firmware.'))
        self.act(self.server, 'migrate')
        self._wait_for_state_change(self.server, 'ERROR')
        self.assertEqual(['start', 'measure', 'destroy'],
                         self.events(self.server, 'compute2'))
        self.assertIn('Another firmware.', self.fault(self.server))
        self.refuse(None, None)
        with self.one_launch(self.server, 'compute2'):
            self.act(self.server, 'reboot', 'ACTIVE', type='HARD')

    def _lose_compute1(self):
        (service,) = self.api.get_services(host='compute1',
                                           binary='nova-compute')
        self.api.put_service(service['id'], {'forced_down': True})

    def test_evacuation(self):
        self._lose_compute1()
        with utils.temporary_mutation(self.api, microversion='2.94'):
            with self.one_launch(self.server, 'compute2'):
                self._evacuate_server(self.server, expected_host='compute2',
                                      expected_state='ACTIVE')
        # The guest that the lost host still had ends when it comes back.
        self.restart_compute_service('compute1')
        self.assertEqual({}, self.connections['compute1']._vms)

    def test_evacuation_that_leaves_it_stopped(self):
        self._lose_compute1()
        self.forget_events(self.server)
        self._evacuate_server(self.server, expected_host='compute2')
        # Nova boots it, and stops it then.
        self.assertEqual([*base.LAUNCH, 'destroy'],
                         self.events(self.server, 'compute2'))
        with self.one_launch(self.server, 'compute2'):
            self.act(self.server, 'os-start', 'ACTIVE')

    def test_denied_evacuation(self):
        self._lose_compute1()
        self.refuse('create', keyservice.refusal(
            403, 'attestation.host_not_allowed', 'Not on this host.'))
        with utils.temporary_mutation(self.api, microversion='2.94'):
            self._evacuate_server(
                self.server, expected_host='compute1',
                expected_state='ERROR', expected_migration_status='failed')
        self.assertIn('Not on this host.', self.fault(self.server))
        self.assertEqual([], self.events(self.server, 'compute2'))


class ReschedulingTest(base.SevTestCase):
    """Who else is asked when a launch fails depends on whose fault it is."""

    def setUp(self):
        super().setUp()
        self.start_sev_compute()
        self.start_sev_compute('compute2')

    def _assert_launched_on_one_after(self, server, events):
        """On one host, after these events on the other."""
        host = server['OS-EXT-SRV-ATTR:host']
        (other,) = set(self.connections) - {host}
        self.assertEqual(base.LAUNCH, self.events(server, host))
        self.assertEqual(events, self.events(server, other))
        self.assertEqual({}, self.connections[other]._vms)
        self.assertEqual({}, self.connections[other]._running_vms)

    def test_fault_of_the_host(self):
        inject = base.fakes.Domain.setLaunchSecurityState
        broken = []

        def fail_first(domain, parameters, flags=0):
            if not broken:
                broken.append(domain)
                raise fakelibvirt.make_libvirtError(
                    fakelibvirt.libvirtError, 'no such area')
            inject(domain, parameters, flags)

        self.stub_out('tests.functional.virt.fakes.Domain.'
                      'setLaunchSecurityState', fail_first)
        self._assert_launched_on_one_after(
            self.boot(self.sev_image), ['start', 'measure', 'destroy'])
        self.assertEqual(['failed', 'running'], [
            launch['outcome']['status']
            for launch in self.service.launches.values()])

    def test_host_that_would_start_it_plain(self):
        configure = base.driver.LibvirtDriver._get_mem_encryption_config
        plain = []

        def lose_support(driver, *args, **kwargs):
            if not plain:
                plain.append(driver)
            return (None if driver is plain[0]
                    else configure(driver, *args, **kwargs))

        self.stub_out('nova.virt.libvirt.driver.LibvirtDriver.'
                      '_get_mem_encryption_config', lose_support)
        self._assert_launched_on_one_after(self.boot(self.sev_image), [])
        # The first host asked for a session while it made the disks.
        self.wait_until(
            lambda: ['failed', 'running'] == [
                (launch['outcome'] or {}).get('status')
                for launch in self.service.launches.values()],
            lambda: self.service.launches)

    def test_denial(self):
        self.refuse('evidence', keyservice.refusal(
            403, 'attestation.kernel_not_allowed', 'Another kernel.'))
        server = self.boot(self.kernel_image, 'ERROR')
        self.assert_nothing_ran_or_is_left(server)
        self.assertEqual(1, len(self.service.launches))
        self.assertEqual(
            [[], ['start', 'measure', 'destroy']],
            sorted(self.events(server, host) for host in self.connections))
        self.assertIn('Another kernel.', self.fault(server))

    def test_denial_for_a_kernel_that_the_host_has_in_part(self):
        def lose(operation, launch_id):
            if operation != 'evidence' or len(self.service.launches) > 1:
                return None
            for kernel in pathlib.Path(base.CONF.instances_path).glob(
                    '*/kernel'):
                os.truncate(kernel, 3)
            return keyservice.refusal(
                403, 'attestation.kernel_not_allowed', 'Another kernel.')

        self.service.interfere = lose
        server = self.boot(self.kernel_image)
        self._assert_launched_on_one_after(
            server, ['start', 'measure', 'destroy'])
        self.assertEqual(2, len(self.service.launches))

    def _make_kernels_in_part(self):
        make = base.driver.LibvirtDriver._create_image

        def make_in_part(driver, context, instance, *args, **kwargs):
            made = make(driver, context, instance, *args, **kwargs)
            os.truncate(pathlib.Path(
                base.CONF.instances_path, instance.uuid, 'kernel'), 3)
            return made

        self.stub_out('nova.virt.libvirt.LibvirtDriver._create_image',
                      make_in_part)

    def test_denial_before_anything_was_measured(self):
        self._make_kernels_in_part()
        self.refuse('create', keyservice.refusal(
            403, 'attestation.policy_missing', 'No attestation policy.'))
        server = self.boot(self.kernel_image, 'ERROR')
        self.assertIn('No attestation policy.', self.fault(server))
        self.assertEqual(1, len(self.service.order))

    def test_no_answer_about_a_kernel_that_the_host_has_in_part(self):
        self._make_kernels_in_part()
        self.refuse('evidence', (503, b''))
        server = self.boot(self.kernel_image, 'ERROR')
        self.assertIn('key service gave no answer', self.fault(server))
        self.assertEqual(1, len(self.service.launches))

    def test_service_that_cannot_be_asked(self):
        self.flags(group='sev_attest',
                   endpoint_override='http://127.0.0.1:1')
        server = self.boot(self.sev_image, 'ERROR')
        self.assert_nothing_ran_or_is_left(server)
        self.assertEqual([[], []], [
            self.events(server, host) for host in self.connections])
        self.assertIn('key service gave no answer', self.fault(server))
