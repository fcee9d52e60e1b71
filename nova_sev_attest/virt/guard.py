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

"""Guests that refuse to run unattested.

Nova has two ways to run vCPUs, Guest.launch and Guest.resume, and half a
dozen paths to each. The guard sits on those two, so that a path that nobody
thought of fails closed: a guarded guest starts only while the driver's step
permits it, always paused, and resumes only when its own live definition says
that this run of it was released. Its memory leaves the host in no other way
either: neither into a file nor to another host.

Nova makes its Host and its Guests itself, in many places and inside its
constructor. So they are not replaced but given the guarding class in place:
Nova's volume, network and image helpers, which hold the Host already, are
then guarded with it, and there is no second libvirt connection. A stand-in
of a test is left alone; a class that a later Nova derives from its own is
refused, for nothing would guard it.
"""

import contextlib
import threading
import types

from nova import exception
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import host as libvirt_host

from nova_sev_attest.virt import conf
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import scope

CONF = conf.CONF


class GuardedGuest(libvirt_guest.Guest):
    """A Guest whose launch and resume may refuse; made by guard_guest()."""

    def is_guarded(self):
        """Whether this domain may run attested only.

        One that was defined for attestation is, whatever became of its
        definition, and in required mode every one with encrypted memory.
        """
        return _is_guarded(self._domain.XMLDesc(0))

    def launch(self, pause=False):
        """Start the domain; a guarded one paused, and by permit only.

        :raises UnattestedRun: guarded and not permitted
        """
        if not self.is_guarded():
            return super().launch(pause=pause)
        if self.uuid not in self._permits:
            raise exceptions.UnattestedRun(instance_uuid=self.uuid)
        self._permits.discard(self.uuid)
        return super().launch(pause=True)

    def resume(self):
        """Resume the domain; a guarded one if this run was released.

        :raises UnattestedRun: guarded and not released
        """
        xml = self._encoded_xml
        if _is_guarded(xml) and not domain_xml.is_released(
                domain_xml.parse(xml)):
            raise exceptions.UnattestedRun(instance_uuid=self.uuid)
        super().resume()

    def save_memory_state(self):
        """Save the domain, not a guarded one.

        :raises OperationRefused: guarded
        """
        self._refuse_if_guarded('saving its memory')
        super().save_memory_state()

    def migrate(self, *args, **kwargs):
        """Migrate the domain live, not a guarded one.

        :raises OperationRefused: guarded
        """
        self._refuse_if_guarded('live migration')
        return super().migrate(*args, **kwargs)

    def _refuse_if_guarded(self, operation):
        if self.is_guarded():
            raise exceptions.OperationRefused(
                operation=operation, instance_uuid=self.uuid)

    def launch_marker(self):
        """The Marker of the domain as it is now, None without one."""
        return domain_xml.marker_of(self._encoded_xml)

    def is_released(self):
        """Whether this run of the domain was attested and released."""
        return domain_xml.is_released(domain_xml.parse(self._encoded_xml))

    def mark_released(self, launch_id):
        """Mark this run of the domain, and no later one, as attested."""
        libvirt = libvirt_guest.libvirt
        self._domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            domain_xml.released_element(launch_id, self.id),
            domain_xml.PREFIX, domain_xml.NAMESPACE,
            libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def launch_security_info(self):
        """virDomainGetLaunchSecurityInfo of the running domain."""
        return self._domain.launchSecurityInfo(0)

    def set_launch_security_state(self, parameters):
        """virDomainSetLaunchSecurityState of the paused domain."""
        self._domain.setLaunchSecurityState(parameters, 0)


def _is_guarded(xml):
    return domain_xml.marker_of(xml) is not None or (
        CONF.sev_attest.mode == scope.REQUIRED and
        domain_xml.technology_of(xml) is not None)


def guard_guest(guest, permits):
    """Make Nova's Guest a GuardedGuest in place.

    :param permits: the GuardedHost's set of UUIDs that may be started now
    :returns: the same guest
    :raises RuntimeError: it is of a class that cannot be guarded
    """
    if _is_exactly(guest, GuardedGuest):
        guest.__class__ = GuardedGuest
        guest._permits = permits
    return guest


def _is_exactly(thing, ours):
    """Whether it is Nova's and to be guarded; not so a test's stand-in.

    :param ours: the guarding class, which Nova's is the base of
    :raises RuntimeError: it is neither Nova's, nor ours, nor a stand-in
    """
    kind, novas = type(thing), ours.__base__
    if issubclass(kind, novas) and kind is not novas and (
            not issubclass(kind, ours)):
        raise RuntimeError(
            f'{kind.__module__}.{kind.__qualname__} cannot be guarded; this '
            f'release of nova-sev-attest does not know this Nova')
    return kind is novas


class GuardedHost(libvirt_host.Host):
    """A Host that hands out guarded guests; made by guard_host()."""

    def _guarded(self, guest):
        return guard_guest(guest, self._attestation_permits)

    def get_guest(self, instance):
        return self._guarded(super().get_guest(instance))

    def find_guest(self, uuid):
        """The guest of a server, None where this host has none.

        :raises InternalError: libvirt cannot tell
        """
        try:
            return self.get_guest(
                types.SimpleNamespace(uuid=uuid, name=uuid))
        except exception.InstanceNotFound:
            return None

    def list_guests(self, *args, **kwargs):
        return [self._guarded(guest)
                for guest in super().list_guests(*args, **kwargs)]

    def write_instance_config(self, xml):
        return self._guarded(super().write_instance_config(
            domain_xml.unreleased(xml)))

    def is_guarded(self, instance):
        """Whether a server's domain may run attested only.

        :returns: also False where this host has none
        """
        try:
            return _is_guarded(self._get_domain(instance).XMLDesc(0))
        except exception.InstanceNotFound:
            return False

    @contextlib.contextmanager
    def permit_start(self, uuid):
        """Let a guarded domain be started, once and paused."""
        self._attestation_permits.add(uuid)
        try:
            yield
        finally:
            self._attestation_permits.discard(uuid)


def is_guarding(host):
    """Whether guard_host() made it so: all but a test's stand-in."""
    return isinstance(host, GuardedHost)


def guard_host(host):
    """Make Nova's Host a GuardedHost in place.

    :raises RuntimeError: it is of a class that cannot be guarded
    """
    if _is_exactly(host, GuardedHost):
        host.__class__ = GuardedHost
        host._attestation_permits = set()
        # With native threads, Nova hears that libvirtd is gone in whichever
        # thread notices, which may hold this lock: while it asks whether the
        # connection is still good. It must not wait for itself, or no guest
        # here could be destroyed any more.
        host._wrapped_conn_lock = threading.RLock()
