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

"""Stand-ins at the driver's edges."""

import base64
import types

from nova.compute import power_state
from nova import objects
from nova.virt.libvirt import guest as libvirt_guest

from nova_sev_attest.client import launches
from nova_sev_attest.client.transport import base as transport_base
from nova_sev_attest.virt import guard

objects.register_all()

UUID = '3f5d0a52-6d2f-4a4f-9b3c-0a1f6f0c8d11'
SESSION = launches.SevSession(b'g' * 2084, b's' * 128, 0x3b)
RELEASE = launches.SevRelease(b'h' * 52, b'x' * 32, 0x810000)

DOMAIN = '''
<domain type="kvm" id="7">
  <uuid>{uuid}</uuid>
  <metadata><nova:instance xmlns:nova="http://openstack.org/xmlns/1"/>
  </metadata>
  <vcpu placement="static">2</vcpu>
  <os firmware="efi">
    <type arch="x86_64" machine="q35">hvm</type>
    <kernel>/i/kernel</kernel>
    <loader secure="no" stateless="yes"/>
    <initrd>/i/ramdisk</initrd>
    <cmdline>console=ttyS0</cmdline>
  </os>
  <launchSecurity type="sev"><policy>0x0033</policy></launchSecurity>
</domain>'''.format(uuid=UUID)
PLAIN_DOMAIN = DOMAIN.replace(
    '<launchSecurity type="sev"><policy>0x0033</policy></launchSecurity>', '')


def make_instance(extra_specs=None, image=None, metadata=None,
                  system_metadata=None):
    """A server as far as the driver looks at it."""
    properties = {'hw_firmware_type': 'uefi', 'hw_machine_type': 'q35'}
    properties.update(image or {})
    return types.SimpleNamespace(
        uuid=UUID, name='instance-1', metadata=metadata or {},
        # Where Nova keeps what the image said.
        system_metadata={f'image_{name}': value for name, value
                         in properties.items()} | (system_metadata or {}),
        flavor=objects.Flavor(name='f', extra_specs=extra_specs or {}),
        image_meta=objects.ImageMeta.from_dict({
            'id': UUID, 'name': 'i', 'properties': properties}))


class Domain:
    """libvirt.virDomain; records what is done to it."""

    def __init__(self, xml=DOMAIN):
        self.xml = xml
        self.calls = []
        self.security_info = {
            'sev-measurement': base64.b64encode(b'm' * 48).decode(),
            'sev-api-major': 1, 'sev-api-minor': 51, 'sev-build-id': 3,
            'sev-policy': 0x3b}

    def UUIDString(self):
        return UUID

    def ID(self):
        return 7

    def XMLDesc(self, flags):
        return self.xml

    def createWithFlags(self, flags):
        self.calls.append(('create', flags))

    def resume(self):
        self.calls.append(('resume',))

    def managedSave(self, flags):
        self.calls.append(('managedSave',))

    def migrateToURI3(self, *args, **kwargs):
        self.calls.append(('migrate',))

    def setMetadata(self, *args):
        self.calls.append(('setMetadata', *args))

    def launchSecurityInfo(self, flags):
        return self.security_info

    def setLaunchSecurityState(self, parameters, flags):
        self.calls.append(('setLaunchSecurityState', parameters))


class Transport(transport_base.Transport):
    """A key service that accepts all, or raises what `failures` holds.

    :ivar owners: seconds that an owner is waited for, by operation
    :ivar deadlines: what was answered to that
    :ivar refusal_after_wait: what the owner decided, None for yes
    """

    def __init__(self):
        self.owners = {}
        self.deadlines = []
        self.refusal_after_wait = None
        self.calls = []
        self.failures = {}
        self.session = SESSION
        self.release = RELEASE

    def _record(self, operation, *args):
        self.calls.append((operation, *args))
        if operation in self.failures:
            raise self.failures[operation]

    def create_launch(self, identity, server_id, host, technology, platform,
                      deadline, waiting=None, purpose=launches.BOOT):
        self._record('create', identity, server_id, host, technology,
                     platform, purpose)
        self._wait('create', waiting)
        return self.session

    def send_evidence(self, identity, technology, evidence, claims,
                      deadline, waiting=None):
        self._record('evidence', identity, technology, evidence, claims)
        self._wait('evidence', waiting)
        return self.release

    def _wait(self, operation, waiting):
        if operation in self.owners:
            self.deadlines.append(waiting(self.owners[operation]))
            if self.refusal_after_wait is not None:
                raise self.refusal_after_wait

    def report_outcome(self, identity, status, reason, deadline):
        self._record('outcome', identity, status, reason)


def libvirt_error(message, code=None, domain=None):
    """A libvirtError as the binding makes it.

    :param code: default VIR_ERR_INTERNAL_ERROR
    :param domain: default VIR_FROM_QEMU
    """
    libvirt = libvirt_guest.libvirt
    error = libvirt.libvirtError(message)
    error.err = (libvirt.VIR_ERR_INTERNAL_ERROR if code is None else code,
                 libvirt.VIR_FROM_QEMU if domain is None else domain,
                 message, 2, '', None, None, -1, -1)
    return error


def make_guest(domain, permits=()):
    return guard.guard_guest(libvirt_guest.Guest(domain), set(permits))


class Guest(guard.GuardedGuest):
    """A guarded guest whose power state a test sets."""

    state = power_state.PAUSED

    def get_power_state(self, host):
        return self.state

    def is_active(self):
        return self.state != power_state.SHUTDOWN

    def poweroff(self):
        self._domain.calls.append(('destroy',))
        self.state = power_state.SHUTDOWN
