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

from nova import utils
from nova.virt import hardware
from nova.virt.libvirt import utils as libvirt_utils

from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import exceptions

REQUIRED = 'required'
OPTIONAL = 'optional'

#: Server property by which an owner chooses a policy.
POLICY_PROPERTY = 'attestation_policy'
#: Flavor extra spec by which an operator demands attestation.
MODE_SPEC = 'sev_attest:mode'
#: Image property by which an image's owner does.
MODE_PROPERTY = 'sev_attest_mode'

_FLAVOR_SPEC = 'hw:mem_encryption'
_IMAGE_PROPERTY = f'{utils.SM_IMAGE_PROP_PREFIX}hw_mem_encryption'


def demanded_technology(instance):
    """The memory encryption that flavor and image demand, None for none."""
    # Most servers' neither says a word of it.
    if not (_FLAVOR_SPEC in instance.flavor.get('extra_specs', {}) or
            _IMAGE_PROPERTY in instance.system_metadata):
        return None
    image = instance.image_meta
    config = hardware.get_mem_encryption_constraint(
        instance.flavor, image, libvirt_utils.get_machine_type(image))
    return None if config is None else config.model


def effective_mode(instance, configured):
    """The strictest of what configuration, flavor and image say.

    None of them lowers another: 'optional' is only the lack of a demand. A
    word that is neither counts as 'required', for it was meant to say
    something. Nova keeps an image's own properties in system_metadata, which
    no user writes.

    :param configured: [sev_attest] mode
    :returns: 'required' or 'optional'
    """
    said = (configured, instance.flavor.extra_specs.get(MODE_SPEC),
            instance.system_metadata.get(
                f'{utils.SM_IMAGE_PROP_PREFIX}{MODE_PROPERTY}'))
    demands = [word for word in said
               if word is not None and word.strip().lower() != OPTIONAL]
    return REQUIRED if demands else OPTIONAL


def asks(instance, configured):
    """Whether a server with encrypted memory is to be attested."""
    return (POLICY_PROPERTY in instance.metadata or
            effective_mode(instance, configured) == REQUIRED)


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
    # Whether it is attested or not: who asked for encrypted memory never
    # gets plain memory for it.
    if actual is None or demanded not in (None, actual):
        raise exceptions.AttestationFault(
            instance_uuid=instance.uuid,
            reason=f'the flavor or image demands {demanded}, but the host '
                   f'would launch it with {actual or "plain memory"}; check '
                   f'what memory encryption the host reports')
    if not asks(instance, mode):
        return None
    if actual not in attestable:
        raise exceptions.AttestationRefused(
            instance.uuid,
            f'guests with {actual} cannot be attested by this release (only '
            f'{", ".join(sorted(attestable))}); use another '
            f'hw:mem_encryption_model')
    return actual
