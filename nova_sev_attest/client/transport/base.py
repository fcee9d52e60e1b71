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

"""What the Nova driver asks of a way to the key service."""

import abc

from nova_sev_attest.client import launches


class Transport(abc.ABC):
    """One way to the key service, loaded from an entry point.

    Entry points live in the namespace nova_sev_attest.transports and are
    called with the oslo.config object, whose group [sev_attest] is
    registered. One transport serves all launches of a host at the same
    time, from native threads or from green ones.

    Every implementation owes these:

    * calls return or raise by their deadline, or at most one silence of the
      peer ([sev_attest] timeout) later;
    * a request may be repeated: the service answers the same again;
    * the launch token, the session and the release reach no log, exception
      or repr;
    * answers are checked for shape and size before they are returned;
    * errors are those of nova_sev_attest.client.exceptions.
    """

    @abc.abstractmethod
    def create_launch(self, identity, server_id, host, technology, platform,
                      deadline, waiting=None, purpose=launches.BOOT):
        """Open a launch and return its session.

        Where the launch waits for its owner, the same request is repeated
        until the deadline.

        :param identity: LaunchIdentity, made afresh for this boot
        :param server_id: UUID of the server
        :param host: this compute host's name, as Nova's API shows it
        :param technology: Nova's hw:mem_encryption_model
        :param platform: the platform's certificates by name, as bytes
        :param deadline: Deadline
        :param waiting: called once with the whole seconds that the owner
            has, before such a wait begins; raises where none may begin, or
            returns another Deadline for it, or None
        :param purpose: launches.BOOT or launches.RESCUE
        :returns: the technology's session, for SEV a SevSession
        """

    @abc.abstractmethod
    def send_evidence(self, identity, technology, evidence, claims,
                      deadline, waiting=None):
        """Send the evidence and return what is released to the guest.

        :param evidence: the technology's evidence, bytes and integers by
            name
        :param claims: what this host launched, hints only
        :param waiting: as for create_launch
        :returns: the technology's release, for SEV a SevRelease; None where
            the policy has no secrets for it
        """

    @abc.abstractmethod
    def report_outcome(self, identity, status, reason, deadline):
        """Say how the launch ended.

        :param status: 'running' or 'failed'
        :param reason: a sentence, None for 'running'
        """


class LaunchesTransport(Transport):
    """A transport that says what the resource Launches says.

    :param resource: launches.Launches, over whatever makes its requests
    """

    def __init__(self, resource):
        self._launches = resource

    def create_launch(self, identity, server_id, host, technology, platform,
                      deadline, waiting=None, purpose=launches.BOOT):
        return self._launches.create(identity, server_id, host, technology,
                                     platform, deadline, waiting, purpose)

    def send_evidence(self, identity, technology, evidence, claims,
                      deadline, waiting=None):
        return self._launches.send_evidence(identity, technology, evidence,
                                            claims, deadline, waiting)

    def report_outcome(self, identity, status, reason, deadline):
        self._launches.report_outcome(identity, status, reason, deadline)
