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

"""Which servers are attested.

Decided by what the flavor and image demand, never by the domain XML alone:
Nova defines a plain guest, silently, where a host does not support what was
demanded.
"""

from nova.virt import hardware
from nova.virt.libvirt import utils as libvirt_utils
from oslo_utils import strutils

from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import exceptions

REQUIRED = 'required'

#: Server property by which an owner chooses a policy.
POLICY_PROPERTY = 'attestation_policy'
#: Flavor extra spec by which an operator demands attestation.
REQUIRED_SPEC = 'sev_attest:required'


def demanded_technology(instance):
    """The memory encryption that flavor and image demand, None for none."""
    image = instance.image_meta
    config = hardware.get_mem_encryption_constraint(
        instance.flavor, image, libvirt_utils.get_machine_type(image))
    return None if config is None else config.model


def asks(instance, mode):
    """Whether a server with encrypted memory is to be attested."""
    return (mode == REQUIRED or POLICY_PROPERTY in instance.metadata or
            strutils.bool_from_string(
                instance.flavor.extra_specs.get(REQUIRED_SPEC)))


def is_attested(instance, mode):
    """Whether this server runs attested or not at all."""
    return demanded_technology(instance) is not None and asks(instance, mode)


def technology_to_attest(instance, xml, mode, attestable):
    """How a domain about to be defined is attested.

    :param instance: nova.objects.Instance
    :param xml: its definition, as Nova made it
    :param mode: 'required' or 'optional'
    :param attestable: the technologies that an attester is loaded for
    :returns: the technology; None for a server that is launched as Nova
        does it
    :raises AttestationFault: this host would launch the server otherwise
        than was demanded
    :raises AttestationRefused: nothing here attests that technology
    """
    demanded = demanded_technology(instance)
    actual = domain_xml.technology_of(xml)
    if demanded is None and actual is None:
        return None
    if not asks(instance, mode):
        return None
    if actual is None or demanded not in (None, actual):
        raise exceptions.AttestationFault(
            instance_uuid=instance.uuid,
            reason=f'the flavor or image demands {demanded}, but the host '
                   f'would launch it with {actual or "plain memory"}; check '
                   f'what memory encryption the host reports')
    if actual not in attestable:
        raise exceptions.AttestationRefused(
            instance.uuid,
            f'guests with {actual} cannot be attested by this release (only '
            f'{", ".join(sorted(attestable))}); use another '
            f'hw:mem_encryption_model')
    return actual
