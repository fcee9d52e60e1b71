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

"""What Nova is told when a launch failed.

Three causes, and Nova treats each by the exception's class. Denied, by the
key service or for what the server is: BuildAbortException, no other host is
tried, and the server's fault says why. This host's fault: any other exception
makes Nova try another host. What is Nova's own to handle stays what it is.
"""

from nova import exception

from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest.virt.attesters import base as attester_base
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import platform_errors


def for_nova(failure, instance_uuid, launch=None):
    """The exception to raise in the place of a failure.

    :param failure: what a step raised
    :param launch: steps.Launch, None where there was none yet
    :returns: failure itself where nothing has to be said about it
    """
    # The key service keeps a record of a launch that got its session, and
    # shows its owner there what was expected.
    recorded = launch is not None and launch.session is not None
    see = f'See launch {launch.identity.id}.' if recorded else ''
    if isinstance(failure, client_exceptions.RequestRefused):
        detail = failure.detail or f'HTTP {failure.status}'
        return exceptions.AttestationRefused(
            instance_uuid, f'the key service denied it: {detail}', see)
    if isinstance(failure, client_exceptions.ClientError):
        return exceptions.AttestationRefused(instance_uuid, str(failure),
                                             see)
    if isinstance(failure, domain_xml.Unlaunchable):
        return exceptions.AttestationRefused(
            instance_uuid, f'it cannot be attested: {failure}', see)
    if isinstance(failure, attester_base.AttesterError):
        return exceptions.AttestationFault(instance_uuid=instance_uuid,
                                           reason=failure)
    refusal = platform_errors.refusal_of(failure) if recorded else None
    if refusal is not None and not refusal.is_of_the_host:
        return exceptions.AttestationRefused(
            instance_uuid,
            f'the platform refused its session or secret (try again): '
            f'{failure}', see)
    if refusal is not None:
        return exceptions.AttestationFault(instance_uuid=instance_uuid,
                                           reason=failure)
    if isinstance(failure, exception.InstanceEventTimeout):
        # Nova would take it for its own wait for the network, and go on
        # with a guest that it never got.
        return exceptions.AttestationFault(
            instance_uuid=instance_uuid,
            reason='an event that it waited for did not come')
    return failure


def raise_for_nova(failure, instance_uuid, launch=None):
    """Raise for_nova() of a failure, from inside its handler."""
    told = for_nova(failure, instance_uuid, launch)
    if told is failure:
        raise failure
    raise told from failure


def to_show(failure, instance_uuid, launch=None):
    """An exception whose text may be shown to the server's owner.

    Nova's own exceptions are made to be shown; of any other, which might
    tell about the host, only the kind is.
    """
    shown = for_nova(failure, instance_uuid, launch)
    if isinstance(shown, exception.NovaException):
        return shown
    return exceptions.AttestationFault(
        instance_uuid=instance_uuid,
        reason=f'{type(failure).__name__}; nova-compute\'s log tells more')
