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

"""Which servers are attested, and what such a server may not do."""

import copy
from unittest import mock

from nova import context
from nova import exception
from nova import objects
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional.api import client

from nova_sev_attest.virt import attesters
from nova_sev_attest.virt import exceptions
from tests.functional.virt import base


class OptionalTest(base.SevTestCase):
    mode = 'optional'

    def setUp(self):
        super().setUp()
        self.start_sev_compute()

    def test_server_that_does_not_ask_is_novas(self):
        server = self.boot(self.sev_image)
        self.assertEqual(['start', 'run'], self.events(server))
        self.assertEqual([], self.service.order)
        self.assertNotIn('nova-sev-attest', self.connection.defined[-1])

    def test_property_asks(self):
        server = self.boot(self.sev_image,
                           metadata={'attestation_policy': 'web'})
        self.assertEqual(base.LAUNCH, self.events(server))

    def test_flavor_demands(self):
        flavor = self._create_flavor(
            extra_spec={'sev_attest:mode': 'required'})
        request = self._build_server(
            image_uuid=self.sev_image, flavor_id=flavor, networks='none')
        server = self.api.post_server({'server': request})
        self._wait_for_state_change(server, 'ACTIVE')
        self.assertIn('measure', self.events(server))

    def test_soft_reboot_stays_soft_where_nothing_is_attested(self):
        server = self.boot(self.sev_image)
        driver = self.computes['compute1'].driver
        instance = objects.Instance.get_by_uuid(
            context.get_admin_context(), server['id'])
        with mock.patch('nova.virt.libvirt.driver.LibvirtDriver.'
                        '_soft_reboot', return_value=True) as stock:
            self.assertTrue(driver._soft_reboot(instance))
        stock.assert_called_once_with(instance)

    def test_attested_domain_stays_guarded_without_the_property(self):
        server = self.boot(self.sev_image,
                           metadata={'attestation_policy': 'web'})
        self.api.api_delete(
            f'/servers/{server["id"]}/metadata/attestation_policy')
        driver = self.computes['compute1'].driver
        instance = objects.Instance.get_by_uuid(
            context.get_admin_context(), server['id'])
        self.assertFalse(driver._soft_reboot(instance))


class FlavorTest(base.SevTestCase):

    def _traits(self):
        return {trait for trait in self._get_provider_traits(
            self.compute_rp_uuids['compute1']) if 'SEV_ATTEST' in trait}

    def test_hosts_that_attest_can_be_demanded(self):
        self.start_sev_compute()
        self.assertEqual({'CUSTOM_SEV_ATTEST', 'CUSTOM_SEV_ATTEST_AMD_SEV'},
                         self._traits())
        flavor = self._create_flavor(extra_spec={
            'trait:CUSTOM_SEV_ATTEST': 'required'})
        server = self.boot(self.sev_image,
                           flavorRef=f'http://fake.server/{flavor}')
        self.assertEqual(base.LAUNCH, self.events(server))

    def _look_again(self, get_certificates):
        """Nova's look at a host, to which libvirt has a new connection."""
        host = self.computes['compute1'].driver._host
        self._reconnect(host)
        self.stub_out('tests.functional.virt.fakes.Connection.getSEVInfo',
                      lambda connection, flags=0: get_certificates(host))
        self._run_periodics()
        return self._traits()

    def _reconnect(self, host):
        another = copy.copy(host.get_connection())
        host.get_connection = lambda: another

    def test_host_that_lost_its_certificates_attests_no_more(self):
        self.start_sev_compute()
        self.assertEqual(set(), self._look_again(
            mock.Mock(side_effect=RuntimeError)))

    def test_host_whose_libvirt_went_away_is_still_demanded(self):
        self.start_sev_compute()
        before = self._traits()

        def lose(host):
            self._reconnect(host)
            raise fakelibvirt.make_libvirtError(
                fakelibvirt.libvirtError, 'End of file while reading data')
        self.assertEqual(before, self._look_again(lose))

    def test_api_validates_our_extra_specs(self):
        flavor = self._create_flavor(extra_spec={
            'sev_attest:mode': 'optional'})
        for wrong, told in (
                ({'sev_attest:mode': 'sometimes'}, 'required, optional'),
                ({'sev_attest:moed': 'required'}, 'sev_attest:moed')):
            error = self.assertRaises(
                client.OpenStackApiException, self.api.post_extra_spec,
                flavor, {'extra_specs': wrong})
            self.assertEqual(400, error.response.status_code)
            self.assertIn(told, str(error))


class OperationsTest(base.SevTestCase):

    def setUp(self):
        super().setUp()
        self.start_sev_compute()
        self.server = self.boot(self.sev_image)
        self.driver = self.computes['compute1'].driver
        self.context = context.get_admin_context()
        self.instance = objects.Instance.get_by_uuid(
            self.context, self.server['id'])

    def _domain(self):
        return self.connection.lookupByUUIDString(self.server['id'])

    def test_nothing_else_runs_it(self):
        guest = self.driver._host.get_guest(self.instance)
        (listed,) = self.driver._host.list_guests()
        self._domain().destroy()
        for one in (guest, listed):
            self.assertRaises(exceptions.UnattestedRun, one.launch)
            self.assertRaises(exceptions.UnattestedRun, one.launch,
                              pause=True)
        # As some path that nobody thought of would start it.
        self._domain().createWithFlags(1)
        self.assertRaises(exceptions.UnattestedRun, self.driver.unpause,
                          self.instance)
        self.assertEqual(['destroy', 'start'], self.events(self.server)[-2:])

    def test_refused_operations(self):
        for call in (lambda: self.driver.suspend(self.context, self.instance),
                     lambda: self.driver.resume(self.context, self.instance,
                                                [])):
            error = self.assertRaises(exception.InstanceFaultRollback, call)
            self.assertIsInstance(
                error.inner_exception,
                exceptions.OperationRefused)
        self.assertRaises(
            exception.MigrationPreCheckError,
            self.driver.check_can_live_migrate_destination,
            self.context, self.instance, {}, {})
        self.assertRaises(
            exception.MigrationPreCheckError,
            self.driver.check_can_live_migrate_source,
            self.context, self.instance, None)
        self.flags(group='workarounds', disable_libvirt_livesnapshot=True)
        with mock.patch('nova.virt.libvirt.utils.find_disk',
                        return_value=('/disk', 'qcow2')):
            self.assertRaises(
                exceptions.OperationRefused,
                self.driver.snapshot, self.context, self.instance,
                self.plain_image, mock.Mock())
        self.assertEqual('run', self.events(self.server)[-1])


class UnsupportedTest(base.SevTestCase):

    def test_host_that_would_start_it_plain(self):
        # Nova defines a plain guest where the host lost what the scheduler
        # still counts on.
        self.start_sev_compute()
        with mock.patch('nova.virt.libvirt.driver.LibvirtDriver.'
                        '_get_mem_encryption_config', return_value=None):
            server = self.boot(self.sev_image, 'ERROR')
        self.assert_nothing_ran_or_is_left(server)
        self.assertIn('plain memory', self.stdlog.logger.output)
        # A session was asked for while Nova made the disks.
        self.wait_until(self._all_have_failed, lambda: self.service.launches)

    def _all_have_failed(self):
        return all((launch['outcome'] or {}).get('status') == 'failed'
                   for launch in self.service.launches.values())

    def test_host_without_certificates(self):
        def refuse(connection, flags=0):
            raise fakelibvirt.make_libvirtError(
                fakelibvirt.libvirtError, 'QEMU does not support SEV guest')
        self.stub_out('tests.functional.virt.fakes.Connection.getSEVInfo',
                      refuse)
        self.start_sev_compute()
        self.assertNotIn('CUSTOM_SEV_ATTEST', self._get_provider_traits(
            self._get_provider_uuid_by_host('compute1')))
        server = self.boot(self.sev_image, 'ERROR')
        self.assert_nothing_ran_or_is_left(server)
        self.assertEqual([], self.service.order)

    def test_model_without_attester(self):
        load = attesters.load
        self.stub_out(
            'nova_sev_attest.virt.attesters.load', lambda: {
                name: attester for name, attester in load().items()
                if name != 'amd-sev-es'})
        self.kernel_models.add('sev-es')
        image = self._make_image('sev-es', {
            'hw_mem_encryption': 'True',
            'hw_mem_encryption_model': 'amd-sev-es'})
        self.start_sev_compute()
        server = self.boot(image, 'ERROR')
        self.assert_nothing_ran_or_is_left(server)
        self.assertIn('amd-sev-es cannot be attested', self.fault(server))
