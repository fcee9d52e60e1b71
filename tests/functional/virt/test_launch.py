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

"""Servers with encrypted memory, from the API to libvirt and back."""

import base64
import hashlib
from unittest import mock

from lxml import etree
from nova import exception
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import driver as libvirt_driver

from tests.functional.virt import base
from tests.functional.virt import fakes
from tests.functional.virt import keyservice


class LaunchTest(base.SevTestCase):

    def setUp(self):
        super().setUp()
        self.kernel_models.add('sev-es')
        self.start_sev_compute()

    def _security(self):
        domain = etree.fromstring(self.connection.defined[-1])
        return domain, domain.find('launchSecurity')

    def test_runs_only_after_evidence_and_injection(self):
        server = self.boot(self.kernel_image)
        self.assertEqual(base.LAUNCH, self.events(server))
        self.assertEqual(['create', 'evidence', 'outcome'],
                         [operation for operation, _ in self.service.order])
        launch = self.service.only_launch()
        self.assertEqual({'status': 'running', 'reason': None},
                         launch['outcome'])
        self._check_request(launch['request']['launch'], server)
        self._check_domain(launch['session'])
        self._check_claims(launch['evidence']['claims'])
        self.assertEqual(
            {'sev-secret-header': keyservice.SECRET['secret_header'],
             'sev-secret': keyservice.SECRET['secret'],
             'sev-secret-set-address': 0x810000},
            self.connection.injected[server['id']])
        for secret in (launch['token'], keyservice.SECRET['secret']):
            self.assertNotIn(secret, self.stdlog.logger.output)

    def _check_request(self, request, server):
        self.assertEqual(server['id'], request['server_id'])
        self.assertEqual('compute1', request['host'])
        self.assertEqual('amd-sev', request['technology'])
        self.assertEqual(
            {'pdh': fakes.PDH, 'cert_chain': fakes.CERT_CHAIN},
            {name: base64.b64decode(value)
             for name, value in request['platform'].items()})

    def _check_domain(self, session):
        domain, security = self._security()
        self.assertEqual('sev', security.get('type'))
        self.assertEqual('yes', security.get('kernelHashes'))
        self.assertEqual(0x3b, int(security.findtext('policy'), 16))
        self.assertEqual(b'G' * 2084,
                         base64.b64decode(security.findtext('dhCert')))
        self.assertEqual(session,
                         base64.b64decode(security.findtext('session')))
        self.assertEqual('destroy', domain.findtext('on_reboot'))
        self.assertEqual('destroy', domain.findtext('on_crash'))

    def _check_claims(self, claims):
        self.assertEqual({
            'vcpus': 1,
            'kernel_sha256': hashlib.sha256(base.KERNEL).hexdigest(),
            'initrd_sha256': hashlib.sha256(base.INITRD).hexdigest(),
            'command_line_sha256': hashlib.sha256(
                base.COMMAND_LINE.encode() + b'\0').hexdigest(),
        }, claims)

    def test_sev_es(self):
        self.assertEqual('amd-sev', self._launched(self.sev_image))
        image = self._make_image('sev-es', {
            'hw_mem_encryption': 'True',
            'hw_mem_encryption_model': 'amd-sev-es'})
        self.assertEqual('amd-sev-es', self._launched(image))
        domain, security = self._security()
        self.assertEqual(0x3f, int(security.findtext('policy'), 16))
        launch = self.service.launches[self.service.order[-1][1]]
        evidence = launch['evidence']
        self.assertEqual('amd-sev-es', evidence['evidence']['technology'])
        self.assertEqual(0x3f, evidence['evidence']['policy'])
        self.assertEqual(1, evidence['claims']['vcpus'])

    def _launched(self, image):
        """The technology under which a server of the image is launched."""
        server = self.boot(image)
        self.assertEqual(base.LAUNCH, self.events(server))
        request = self.service.launches[self.service.order[-1][1]]['request']
        return request['launch']['technology']

    def test_what_is_not_given_is_not_used(self):
        self.service.releases['boot'] = None
        server = self.boot(self.sev_image)
        self.assertEqual(['start', 'measure', 'mark', 'run'],
                         self.events(server))
        _, security = self._security()
        self.assertNotIn('kernelHashes', security.attrib)
        self.service.releases['boot'] = dict(keyservice.SECRET, gpa=None)
        server = self.boot(self.sev_image)
        self.assertNotIn('sev-secret-set-address',
                         self.connection.injected[server['id']])

    def test_plain_server_is_novas(self):
        server = self.boot(self.plain_image)
        self.assertEqual(['start', 'run'], self.events(server))
        self.assertEqual([], self.service.order)
        self.assertNotIn('nova-sev-attest', self.connection.defined[-1])
        self.assertNotIn('on_reboot', self.connection.defined[-1])

    def test_waits_for_its_network_after_release(self):
        seen = []

        def plug():
            (events,) = self.connection.events.values()
            seen.extend(events)
            seen.append(self.service.only_launch()['outcome'])

        self.await_network(plug)
        server = self.boot(self.sev_image, networks=[
            {'port': self.neutron.port_1['id']}])
        self.assertEqual(['start', 'measure', 'inject', 'mark', None], seen)
        self.assertEqual(base.LAUNCH, self.events(server))
        self.assertEqual('running',
                         self.service.only_launch()['outcome']['status'])


class OpenedAheadTest(base.SevTestCase):
    """The session is asked for while Nova makes the disks."""

    def setUp(self):
        super().setUp()
        self.start_sev_compute()
        self.make_disks = libvirt_driver.LibvirtDriver._create_image

    def _with_disks(self, function):
        """Have a function called before Nova makes a server's disks."""
        def make(driver, *args, **kwargs):
            function()
            return self.make_disks(driver, *args, **kwargs)

        self.stub_out('nova.virt.libvirt.LibvirtDriver._create_image', make)

    def _wait_for(self, operation):
        self.wait_until(
            lambda: operation in self._operations(),
            lambda: f'no {operation} came: {self.service.order}')

    def _operations(self):
        return [operation for operation, _ in self.service.order]

    def test_while_disks_are_made(self):
        self._with_disks(lambda: self._wait_for('create'))
        server = self.boot(self.sev_image)
        self.assertEqual(base.LAUNCH, self.events(server))
        self.assertEqual(['create', 'evidence', 'outcome'],
                         self._operations())

    def test_rebuilt_server(self):
        server = self.boot(self.sev_image)
        self._with_disks(lambda: self.wait_until(
            lambda: len(self.service.launches) == 2,
            lambda: 'no second launch came'))
        with self.one_launch(server, after=['shutdown']):
            self._rebuild_server(server, self.kernel_image)

    def test_disks_cannot_be_made(self):
        def fail():
            self._wait_for('create')
            raise exception.ImageUnacceptable(image_id='i', reason='torn')

        self._with_disks(fail)
        server = self.boot(self.sev_image, 'ERROR')
        self.assertIn('torn', self.fault(server))
        self._wait_for('outcome')
        self.assert_nothing_ran_or_is_left(server)
        self.assertEqual('failed',
                         self.service.only_launch()['outcome']['status'])
        self.assertIn('torn', self.service.only_launch()['outcome']['reason'])

    def test_why_disks_fail_is_told_to_nobody_else(self):
        def fail():
            self._wait_for('create')
            raise OSError('/a/path of the host')

        self._with_disks(fail)
        self.boot(self.sev_image, 'ERROR')
        self._wait_for('outcome')
        reason = self.service.only_launch()['outcome']['reason']
        self.assertIn('OSError', reason)
        self.assertNotIn('/a/path', reason)

    def test_disks_take_longer_than_a_session_waits(self):
        self._with_disks(lambda: self._wait_for('create'))
        self.stub_out('nova_sev_attest.virt.ahead.FRESH_SECONDS', -1)
        server = self.boot(self.sev_image)
        self.assertEqual(base.LAUNCH, self.events(server))
        self.assertEqual(
            ['create', 'outcome', 'create', 'evidence', 'outcome'],
            self._operations())
        given_up, launch = self.service.launches.values()
        self.assertEqual('failed', given_up['outcome']['status'])
        self.assertEqual('running', launch['outcome']['status'])

    def test_without_threads(self):
        self.stub_out('nova_sev_attest.virt.ahead.OpenedAhead',
                      mock.Mock(side_effect=RuntimeError))
        server = self.boot(self.sev_image)
        self.assertEqual(base.LAUNCH, self.events(server))

    def test_not_for_a_plain_server(self):
        opened = mock.Mock()
        self.stub_out('nova_sev_attest.virt.ahead.OpenedAhead', opened)
        self.boot(self.plain_image)
        opened.assert_not_called()


class RefusalTest(base.SevTestCase):

    def setUp(self):
        super().setUp()
        self.start_sev_compute()

    def test_denied_evidence(self):
        self.refuse('evidence', keyservice.refusal(
            403, 'attestation.initrd_not_allowed',
            'The initrd is not one that the policy allows.'))
        server = self.boot(self.kernel_image, 'ERROR')
        self.assertEqual(['start', 'measure', 'destroy'],
                         self.events(server))
        self.assert_nothing_ran_or_is_left(server)
        fault = self.fault(server)
        self.assertIn('The initrd is not one that the policy allows.', fault)
        (launch_id,) = self.service.launches
        self.assertIn(launch_id, fault)
        # The service closed it: nothing to report, nothing asked again.
        self.assertEqual(['create', 'evidence'],
                         [operation for operation, _ in self.service.order])

    def test_denied_session(self):
        self.refuse('create', keyservice.refusal(
            403, 'attestation.policy_missing', 'No attestation policy.'))
        server = self.boot(self.sev_image, 'ERROR')
        self.assertEqual([], self.events(server))
        self.assert_nothing_ran_or_is_left(server)
        self.assertIn('No attestation policy.', self.fault(server))
        self.assertEqual(1, len(self.service.order))

    def test_service_down(self):
        self.flags(group='sev_attest',
                   endpoint_override='http://127.0.0.1:1')
        server = self.boot(self.sev_image, 'ERROR')
        self.assert_nothing_ran_or_is_left(server)
        self.assertIn('key service gave no answer', self.fault(server))

    def test_service_fails_at_first(self):
        answers = [(503, b''), None]
        self.service.interfere = (
            lambda operation, launch_id:
            answers.pop(0) if operation == 'create' else None)
        self.boot(self.sev_image)
        self.assertEqual(['create', 'create', 'evidence', 'outcome'],
                         [operation for operation, _ in self.service.order])
        self.assertEqual(1, len(self.service.launches))

    def test_service_keeps_failing_at_the_evidence(self):
        self.refuse('evidence', keyservice.refusal(
            503, 'attestation.secret_store_unavailable',
            'The secret store does not answer.'))
        server = self.boot(self.sev_image, 'ERROR')
        self.assert_nothing_ran_or_is_left(server)
        self.assertIn('secret store does not answer', self.fault(server))
        operations = [operation for operation, _ in self.service.order]
        self.assertEqual(['create'] + ['evidence'] * 3 + ['outcome'],
                         operations)
        outcome = self.service.only_launch()['outcome']
        self.assertEqual('failed', outcome['status'])

    def test_service_too_slow(self):
        self.flags(group='sev_attest', launch_timeout=1.0, timeout=0.4)
        self.service.interfere = (
            lambda operation, launch_id:
            keyservice.slowly(1.0)(operation, launch_id)
            if operation == 'evidence' else None)
        server = self.boot(self.sev_image, 'ERROR')
        self.assert_nothing_ran_or_is_left(server)
        self.assertIn('gave no answer', self.fault(server))

    def test_rubbish(self):
        # More of it: tests/unit/client.
        for operation, rubbish in (('create', b'<html>'),
                                   ('evidence', b'{"launch": 7}')):
            with self.subTest(operation=operation):
                self.refuse(operation, (200, rubbish))
                server = self.boot(self.sev_image, 'ERROR')
                self.assert_nothing_ran_or_is_left(server)
                self.assertIn('key service', self.fault(server))
                self._delete_server(server)

    def test_firmware_with_variables(self):
        server = self.boot(self.nvram_image, 'ERROR')
        self.assert_nothing_ran_or_is_left(server)
        self.assertIn('hw_firmware_stateless=true', self.fault(server))
        self.assertEqual([], self.service.order)

    def test_injection_fails(self):
        def broken(self, parameters, flags=0):
            raise fakelibvirt.make_libvirtError(
                fakelibvirt.libvirtError, 'no such area')
        self.stub_out('tests.functional.virt.fakes.Domain.'
                      'setLaunchSecurityState', broken)
        server = self.boot(self.sev_image, 'ERROR')
        self.assert_nothing_ran_or_is_left(server)
        self.assertEqual('failed',
                         self.service.only_launch()['outcome']['status'])

    def test_outcome_lost_keeps_the_server(self):
        self.refuse('outcome', (500, b''))
        server = self.boot(self.sev_image)
        self.assertEqual('run', self.events(server)[-1])

    def test_network_does_not_come(self):
        # The guest was released and waits paused when its port fails.
        for failure in (exception.VirtualInterfaceCreateException(),
                        exception.InstanceEventTimeout()):
            with self.subTest(failure=type(failure).__name__):
                self.service.launches.clear()

                def plug():
                    raise failure

                self.await_network(plug)
                server = self.boot(self.sev_image, 'ERROR', networks=[
                    {'port': self.neutron.port_1['id']}])
                self.assert_nothing_ran_or_is_left(server)
                self.assertIn('inject', self.events(server))
                self.assertIn('destroy', self.events(server))
                outcome = self.service.only_launch()['outcome']
                self.assertEqual('failed', outcome['status'])
                self._delete_server(server)
