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

"""What differs between memory-encryption technologies on the host."""

import abc


class Attester(abc.ABC):
    """The host's part of one technology, loaded from an entry point.

    Entry points live in the namespace nova_sev_attest.attesters under the
    technology's name in Nova, hw:mem_encryption_model, and are called
    without arguments. One attester serves all launches of a host at the
    same time and keeps no state.

    An attester carries: it verifies nothing, and it logs neither sessions
    nor releases. It raises AttesterError for what this host does wrong and
    lets libvirt's errors pass.
    """

    @abc.abstractmethod
    def is_offered_by(self, host):
        """Whether Nova finds the technology on this host.

        :param host: nova.virt.libvirt.host.Host
        """

    @abc.abstractmethod
    def read_platform(self, connection):
        """The platform's certificates.

        Called once for a connection to libvirt, and again when a launch
        was refused that they were used for.

        :param connection: libvirt.virConnect
        :returns: bytes by name, as the key service takes them
        """

    @abc.abstractmethod
    def check(self, domain):
        """Refuse a domain that attestation would say nothing about.

        Called before the key service is asked.

        :param domain: the <domain> element
        :raises Unlaunchable: what is wrong and what to do
        """

    @abc.abstractmethod
    def prepare(self, domain, session):
        """Write the session into a domain that will be defined.

        :param domain: the <domain> element, changed in place
        :param session: what the key service answered
        :raises InvalidResponse: the session does not fit this technology
        """

    @abc.abstractmethod
    def read_evidence(self, guest):
        """What the platform measured of a guest that is started, paused.

        :param guest: GuardedGuest
        :returns: bytes and integers by name, as the key service takes them
        """

    @abc.abstractmethod
    def inject(self, guest, release):
        """Hand the guest, still paused, what was released to it."""


class AttesterError(Exception):
    """This host or its libvirt gave what cannot be used."""
