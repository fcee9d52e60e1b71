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

"""What Nova's fake libvirt lacks: a paused start and launch security.

The platform is a toy, with the one property that the tests lean on: a
measurement is fresh for every start and holds for one session only.
"""

import base64
import hashlib
import secrets

from lxml import etree
from nova.tests.fixtures import libvirt as fakelibvirt

PDH = b'P' * 2084
CERT_CHAIN = b'C' * 6252
POLICIES = {'amd-sev': 0x3b, 'amd-sev-es': 0x3f}

_START_PAUSED = 1
_XML_INACTIVE = 2


def measurement(session, nonce):
    """What this platform measures of a guest started with a session."""
    return hashlib.sha256(b'toy' + session + nonce).digest() + nonce


class Domain(fakelibvirt.Domain):
    """A domain that keeps its XML, can be paused, and measures itself.

    :ivar events: what happened to it, in order
    """

    def __init__(self, connection, xml, running=False, transient=False):
        super().__init__(connection, xml, running, transient)
        self._defined = etree.fromstring(xml)
        self._live_metadata = None
        self._nonce = None
        self.events = connection.events.setdefault(self.UUIDString(), [])

    def createWithFlags(self, flags):
        self._live_metadata = None
        self._nonce = secrets.token_bytes(16)
        self._id = self._connection._id_counter
        self.events.append('start')
        if flags & _START_PAUSED:
            # As libvirt does: such a domain was never running.
            self._state = fakelibvirt.VIR_DOMAIN_PAUSED
            self._connection._mark_running(self)
        else:
            self.events.append('run')
            super().createWithFlags(flags)

    def isActive(self):
        return int(self._state in (fakelibvirt.VIR_DOMAIN_RUNNING,
                                   fakelibvirt.VIR_DOMAIN_PAUSED))

    def shutdown(self):
        self._live_metadata = None
        self.events.append('shutdown')
        self._state = fakelibvirt.VIR_DOMAIN_SHUTOFF
        self._connection._mark_not_running(self)

    def suspend(self):
        self.events.append('pause')
        super().suspend()

    def reset(self, flags=0):
        """From outside or, as far as libvirt is concerned, inside."""
        if self._defined.findtext('on_reboot') == 'destroy':
            self.destroy()
        else:
            self.events.append('run')

    def resume(self):
        self.events.append('run')
        super().resume()
        self._connection._emit_lifecycle(
            self, fakelibvirt.VIR_DOMAIN_EVENT_RESUMED, 0)

    def destroy(self):
        self._live_metadata = None
        if self.isActive():
            self.events.append('destroy')
        super().destroy()

    def setMetadata(self, metadata_type, metadata, key, uri, flags=0):
        if uri.startswith('urn:nova-sev-attest'):
            assert flags == fakelibvirt.VIR_DOMAIN_AFFECT_LIVE, flags
            assert self.isActive()
            element = etree.fromstring(metadata)
            self._live_metadata = etree.Element(
                f'{{{uri}}}{element.tag}', element.attrib, nsmap={key: uri})
            self.events.append('mark')

    def XMLDesc(self, flags):
        shown = etree.fromstring(super().XMLDesc(flags))
        shown.attrib.pop('id', None)
        if self.isActive() and not flags & _XML_INACTIVE:
            shown.set('id', str(self.ID()))
        for name in ('on_reboot', 'on_crash', 'launchSecurity', 'metadata'):
            ours, theirs = self._defined.find(name), shown.find(name)
            if theirs is not None and ours is not None:
                shown.remove(theirs)
            if ours is not None:
                shown.append(etree.fromstring(etree.tostring(ours)))
        for name in ('kernel', 'initrd', 'cmdline'):
            ours = self._defined.find(f'os/{name}')
            if ours is not None:
                shown.find('os').append(
                    etree.fromstring(etree.tostring(ours)))
        if self._live_metadata is not None and not flags & _XML_INACTIVE:
            metadata = shown.find('metadata')
            for old in metadata.findall(self._live_metadata.tag):
                metadata.remove(old)
            metadata.append(self._live_metadata)
        return etree.tostring(shown, encoding='unicode')

    def launchSecurityInfo(self, flags=0):
        assert self._state == fakelibvirt.VIR_DOMAIN_PAUSED
        self.events.append('measure')
        security = self._defined.find('launchSecurity')
        session = base64.b64decode(security.findtext('session'))
        policy = int(security.findtext('policy'), 16)
        return {
            'sev-measurement': base64.b64encode(
                measurement(session, self._nonce)).decode(),
            'sev-api-major': 1, 'sev-api-minor': 51, 'sev-build-id': 3,
            'sev-policy': policy,
        }

    def setLaunchSecurityState(self, parameters, flags=0):
        assert self._state == fakelibvirt.VIR_DOMAIN_PAUSED
        self.events.append('inject')
        self._connection.injected[self.UUIDString()] = parameters


class Connection(fakelibvirt.Connection):
    """A libvirt of a host with SEV.

    :ivar events: per server, over all its domains
    :ivar injected: the last launch secret per server
    :ivar defined: every XML that was defined
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.events = {}
        self.injected = {}
        self.defined = []

    def getSEVInfo(self, flags=0):
        return {'pdh': base64.b64encode(PDH).decode(),
                'cert-chain': base64.b64encode(CERT_CHAIN).decode(),
                'cbitpos': 51, 'reduced-phys-bits': 1}

    def defineXML(self, xml):
        self.defined.append(xml)
        domain = Domain(connection=self, running=False, transient=False,
                        xml=xml)
        self._vms[domain.name()] = domain
        return domain

    def _undefine(self, domain):
        # As libvirt does: an active domain loses its definition only.
        if domain.isActive():
            domain._transient = True
        else:
            super()._undefine(domain)
