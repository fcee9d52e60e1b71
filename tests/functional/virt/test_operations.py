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


"""What users do with an attested server on one host."""

from unittest import mock

from nova.compute import power_state
from nova.tests import fixtures as nova_fixtures
from nova.tests.functional.api import client
from nova.virt import event as virtevent

from tests.functional.virt import base
from tests.functional.virt import keyservice


class LaunchingTest(base.SevTestCase):
    """What starts the guest again: a launch of its own each time."""

    def setUp(self):
        super().setUp()
        self.start_sev_compute()
        self.server = self.boot(self.kernel_image)

    def test_start(self):
        self.act(self.server, 'os-stop', 'SHUTOFF')
        with self.one_launch(self.server):
            self.act(self.server, 'os-start', 'ACTIVE')
        self.assertEqual(
            {'compute_start_instance': 'Success',
             'sev_attest_session': 'Success', 'sev_attest_start': 'Success',
             'sev_attest_measurement': 'Success',
             'sev_attest_release': 'Success'},
            self.action_events(self.server, 'start'))

    def test_hard_reboot(self):
        with self.one_launch(self.server, after=['destroy']):
            self.act(self.server, 'reboot', 'ACTIVE', type='HARD')

    def test_soft_reboot_becomes_a_hard_one(self):
        with self.one_launch(self.server, after=['destroy']):
            self.act(self.server, 'reboot', 'ACTIVE', type='SOFT')

    def test_rescue_and_unrescue(self):
        rescue = self._make_image('rescue', {
            'hw_mem_encryption': 'True', 'hw_mem_encryption_model': 'amd-sev'})
        with self.one_launch(self.server, after=['shutdown']):
            self.act(self.server, 'rescue', 'RESCUE', rescue_image_ref=rescue)
        # From the XML that Nova kept, with the session of the first launch.
        with self.one_launch(self.server, after=['destroy']):
            self.act(self.server, 'unrescue', 'ACTIVE')
        self.assertEqual(['boot', 'rescue', 'boot'],
                         self.purposes(self.server))

    def test_rescue_without_a_secret(self):
        self.service.releases['rescue'] = None
        self.forget_events(self.server)
        self.act(self.server, 'rescue', 'RESCUE',
                 rescue_image_ref=self.sev_image)
        self.assertEqual(['shutdown', 'start', 'measure', 'mark', 'run'],
                         self.events(self.server))
        self.assertEqual(power_state.RUNNING,
                         self.instance(self.server).power_state)
        self.assertEqual('Success', self.action_events(
            self.server, 'rescue')['sev_attest_release'])
        # Nova reboots no server that is rescued.
        with self.no_launch(self.server):
            error = self.assertRaises(
                client.OpenStackApiException, self.act, self.server,
                'reboot', type='HARD')
            self.assertEqual(409, error.response.status_code)
        with self.one_launch(self.server, after=['destroy']):
            self.act(self.server, 'unrescue', 'ACTIVE')
        self.assertEqual(['boot', 'rescue', 'boot'],
                         self.purposes(self.server))

    def test_denied_rescue_ends_in_error(self):
        self.refuse('evidence', keyservice.refusal(
            403, 'attestation.command_line_not_allowed',
            'The command line is another.'))
        self.act(self.server, 'rescue', rescue_image_ref=self.sev_image)
        self._wait_for_state_change(self.server, 'ERROR')
        self.assertIn('The command line is another.',
                      self.fault(self.server))
        self.refuse(None, None)
        with self.one_launch(self.server):
            self.act(self.server, 'reboot', 'ACTIVE', type='HARD')
        self.assertEqual(['boot', 'rescue', 'boot'],
                         self.purposes(self.server))

    def test_unrescue_that_is_denied_is_rebooted(self):
        self.act(self.server, 'rescue', 'RESCUE',
                 rescue_image_ref=self.sev_image)
        self.refuse('create', keyservice.refusal(
            403, 'attestation.policy_revoked', 'The policy was revoked.'))
        self.act(self.server, 'unrescue')
        self._wait_for_state_change(self.server, 'ERROR')
        self.refuse(None, None)
        with self.one_launch(self.server):
            self.act(self.server, 'reboot', 'ACTIVE', type='HARD')
        self.assertEqual(['boot', 'rescue', 'boot'],
                         self.purposes(self.server))

    def test_rescue_with_plain_memory(self):
        with self.no_launch(self.server, ['shutdown']):
            self.act(self.server, 'rescue', rescue_image_ref=self.plain_image)
            self._wait_for_state_change(self.server, 'ERROR')
        self.assertIn('the server demands amd-sev and the rescue image does '
                      'not', self.fault(self.server))
        with self.one_launch(self.server):
            self.act(self.server, 'reboot', 'ACTIVE', type='HARD')

    def test_rebuild(self):
        for image in (self.kernel_image, self.sev_image):
            with self.one_launch(self.server, after=['shutdown']):
                self._rebuild_server(self.server, image)

    def test_shelve_and_unshelve(self):
        with self.no_launch(self.server, ['shutdown']):
            self._shelve_server(self.server)
        with self.one_launch(self.server):
            self._unshelve_server(self.server)

    def test_resize_on_the_same_host(self):
        self.flags(allow_resize_to_same_host=True)
        self.stub_out('nova.virt.libvirt.LibvirtDriver.'
                      'migrate_disk_and_power_off', base.power_off_only)
        larger = self._create_flavor(memory_mb=4096, vcpu=1)
        with self.one_launch(self.server, after=['destroy']):
            self._resize_server(self.server, larger)
        with self.no_launch(self.server):
            self._confirm_resize(self.server)
        self.assertEqual(
            power_state.RUNNING,
            self.computes['compute1'].driver.get_info(
                self.instance(self.server)).state)

    def test_denied_reboot_ends_in_error_and_can_be_tried_again(self):
        self.refuse('evidence', keyservice.refusal(
            403, 'attestation.kernel_not_allowed', 'The kernel is another.'))
        self.forget_events(self.server)
        self.act(self.server, 'reboot', type='HARD')
        self._wait_for_state_change(self.server, 'ERROR')
        self.assertEqual(['destroy', 'start', 'measure', 'destroy'],
                         self.events(self.server))
        self.assertIn('The kernel is another.', self.fault(self.server))
        self.assertEqual(
            'Error', self.action_events(
                self.server, 'reboot')['sev_attest_measurement'])
        self.refuse(None, None)
        with self.one_launch(self.server):
            self.act(self.server, 'reboot', 'ACTIVE', type='HARD')

    def test_denied_start_leaves_it_stopped(self):
        self.act(self.server, 'os-stop', 'SHUTOFF')
        self.refuse('create', keyservice.refusal(
            403, 'attestation.policy_revoked', 'The policy was revoked.'))
        with mock.patch.object(self.connection, 'defineXML') as define:
            self.act(self.server, 'os-start')
            self._wait_for_action_fail_completion(
                self.server, 'start', 'sev_attest_session')
        define.assert_not_called()
        self._wait_for_server_parameter(self.server, {
            'status': 'SHUTOFF', 'OS-EXT-STS:task_state': None})
        self.refuse(None, None)
        with self.one_launch(self.server):
            self.act(self.server, 'os-start', 'ACTIVE')


class StayingTest(base.SevTestCase):
    """What leaves the guest running, stopped or paused, or is refused."""

    def setUp(self):
        super().setUp()
        self.start_sev_compute()
        self.server = self.boot(self.sev_image)
        self.driver = self.computes['compute1'].driver

    def _api_refuses(self, action, **parameters):
        error = self.assertRaises(
            client.OpenStackApiException, self.act, self.server, action,
            **parameters)
        self.assertEqual(400, error.response.status_code)
        return str(error)

    def test_pause_and_unpause(self):
        with self.no_launch(self.server, ['pause', 'run']):
            self.act(self.server, 'pause', 'PAUSED')
            self.act(self.server, 'unpause', 'ACTIVE')

    def test_unpause_of_another_run(self):
        self.act(self.server, 'pause', 'PAUSED')
        # As an operator with virsh would.
        self.domain(self.server).destroy()
        self.domain(self.server).createWithFlags(1)
        with self.no_launch(self.server):
            self.act(self.server, 'unpause')
            self._wait_for_action_fail_completion(
                self.server, 'unpause', 'compute_unpause_instance')

    def test_suspend(self):
        with self.no_launch(self.server):
            self.assertIn('not supported', self._api_refuses('suspend'))

    def test_live_migration(self):
        self.start_sev_compute('compute2')
        with self.no_launch(self.server):
            self.assertIn('not supported', self._api_refuses(
                'os-migrateLive', host=None, block_migration='auto'))

    def test_live_snapshot(self):
        taken = []
        self.stub_out('nova.virt.libvirt.LibvirtDriver._live_snapshot',
                      lambda *args: taken.append(args))
        with self.no_launch(self.server):
            self.assertEqual('active', self._snapshot()['status'])
        self.assertEqual(1, len(taken))

    def test_cold_snapshot_of_a_running_server(self):
        self.flags(group='workarounds', disable_libvirt_livesnapshot=True)
        with self.no_launch(self.server):
            self.assertIsNone(self._snapshot())
        event = self._wait_for_action_fail_completion(
            self.server, 'createImage', 'sev_attest_snapshot')
        self.assertIn('stop it first', event['details'])
        self.assertEqual(
            'ACTIVE', self.api.get_server(self.server['id'])['status'])

    def test_cold_snapshot_of_a_stopped_server(self):
        self.act(self.server, 'os-stop', 'SHUTOFF')
        with self.no_launch(self.server):
            self.assertEqual('active', self._snapshot()['status'])

    def _snapshot(self):
        """The image that is made, None if it is taken back."""
        self._snapshot_server(self.server, 'shot')
        self._wait_for_server_parameter(self.server, {
            'OS-EXT-STS:task_state': None})
        return next((image for image in self.glance.detail(None)
                     if image['name'] == 'shot'), None)

    def test_reset_from_inside(self):
        with self.no_launch(self.server, ['destroy']):
            self.domain(self.server).reset()
            self.driver.emit_event(virtevent.LifecycleEvent(
                self.server['id'], virtevent.EVENT_LIFECYCLE_STOPPED))
            self._wait_for_state_change(self.server, 'SHUTOFF')
        with self.one_launch(self.server):
            self.act(self.server, 'os-start', 'ACTIVE')

    def test_delete_leaves_nothing(self):
        self._delete_server(self.server)
        self.assert_nothing_is_left(self.server)


class BehindNovasBackTest(base.SevTestCase):
    """What an operator does with libvirt's own tools is noticed."""

    def setUp(self):
        super().setUp()
        self.start_sev_compute()
        self.server = self.boot(self.sev_image)
        self.hear(self.computes['compute1'].driver)

    def _assert_destroyed_and_written_down(self, ran):
        self.wait_until(
            lambda: not self.domain(self.server).isActive(),
            lambda: f'it still runs: {self.events(self.server)}')
        self.assertEqual([*ran, 'destroy'], self.events(self.server))
        event = self._wait_for_action_fail_completion(
            self.server, 'sev_attest_destroy', 'sev_attest_destroy')
        self.assertIn('was not attested', event['details'])
        self.assertIn('behind Nova\'s back', self.stdlog.logger.output)
        self.notifier.wait_for_versioned_notifications(
            'instance.power_off.error')

    def test_start(self):
        self.act(self.server, 'os-stop', 'SHUTOFF')
        self.forget_events(self.server)
        self.domain(self.server).createWithFlags(0)
        self._assert_destroyed_and_written_down(['start', 'run'])

    def test_resume_of_what_was_started_paused(self):
        self.act(self.server, 'os-stop', 'SHUTOFF')
        self.domain(self.server).createWithFlags(1)
        self.forget_events(self.server)
        self.domain(self.server).resume()
        self._assert_destroyed_and_written_down(['run'])

    def test_resume_in_the_middle_of_a_launch(self):
        self.act(self.server, 'os-stop', 'SHUTOFF')
        self.forget_events(self.server)

        def run(operation, launch_id):
            if operation == 'evidence':
                self.domain(self.server).resume()
                self.domain(self.server).suspend()

        self.service.interfere = run
        self.act(self.server, 'os-start')
        self.wait_until(
            lambda: 'destroy' in self.events(self.server),
            lambda: f'it still runs: {self.events(self.server)}')
        # By the watch or by the launch, whoever is first.
        happened = self.events(self.server)
        self.assertEqual(['start', 'measure', 'run'], happened[:3])
        self.assertIn('destroy', happened)
        self.assertNotIn('inject', happened)
        self._wait_for_server_parameter(self.server, {
            'status': 'SHUTOFF', 'OS-EXT-STS:task_state': None})
        self.assertEqual('failed', [
            launch['outcome']['status'] for launch
            in self.service.launches.values()][-1])

    def test_reset(self):
        # libvirt destroys it; nothing ran that was not attested.
        with self.no_launch(self.server, ['destroy']):
            self.domain(self.server).reset()
        self.assertEqual([], [
            one for one in self.api.get_instance_actions(self.server['id'])
            if one['action'] == 'sev_attest_destroy'])

    def test_what_was_not_heard_is_seen_at_the_next_look(self):
        self.act(self.server, 'os-stop', 'SHUTOFF')
        self.forget_events(self.server)
        self.connection._event_callbacks.clear()
        self.domain(self.server).createWithFlags(0)
        self._run_periodics()
        self._assert_destroyed_and_written_down(['start', 'run'])

    def test_resume_of_an_attested_run_is_let_be(self):
        self.act(self.server, 'pause', 'PAUSED')
        with self.no_launch(self.server, ['run']):
            self.domain(self.server).resume()
            self._run_periodics()


class VolumeBackedTest(base.SevTestCase):

    def test_paths(self):
        cinder = self.useFixture(nova_fixtures.CinderFixture(self))
        volume = cinder.IMAGE_BACKED_VOL
        get = cinder.fake_get

        def with_image(context, volume_id, microversion=None):
            shown = get(context, volume_id, microversion)
            if volume_id == volume:
                shown['volume_image_metadata'] = {
                    'hw_mem_encryption': 'True', 'hw_firmware_type': 'uefi',
                    'hw_machine_type': 'q35', 'hw_firmware_stateless': 'True'}
            return shown

        self.stub_out('nova.volume.cinder.API.get',
                      lambda api, *args, **kwargs: with_image(
                          *args, **kwargs))
        self.start_sev_compute()
        server = self.boot('', block_device_mapping_v2=[{
            'boot_index': 0, 'uuid': volume, 'source_type': 'volume',
            'destination_type': 'volume'}])
        self.assertEqual(base.LAUNCH, self.events(server))
        with self.one_launch(server, after=['destroy']):
            self.act(server, 'reboot', 'ACTIVE', type='HARD')
        with self.one_launch(server, after=['shutdown']):
            self._shelve_server(server)
            self._unshelve_server(server)
        self.refuse('evidence', keyservice.refusal(
            403, 'attestation.denied', 'No.'))
        self.act(server, 'reboot', type='HARD')
        self._wait_for_state_change(server, 'ERROR')
        self._delete_server(self.api.get_server(server['id']))
        self.assert_nothing_is_left(server)
        self.assertEqual({}, cinder.volume_to_attachment[volume])
