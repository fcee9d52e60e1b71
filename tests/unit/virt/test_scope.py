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

from nova import exception
import pytest

from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import scope
from tests.unit.virt import fakes

SEV = {'hw:mem_encryption': 'true'}
SEV_ES = SEV | {'hw:mem_encryption_model': 'amd-sev-es'}
ASKS = {'attestation_policy': 'web'}
MODE = 'sev_attest:mode'
IMAGE_MODE = 'image_sev_attest_mode'


def decide(instance, xml=fakes.DOMAIN, mode='required',
           attestable=('amd-sev',)):
    return scope.technology_to_attest(instance, xml, mode, attestable)


@pytest.mark.parametrize('instance', [
    fakes.make_instance(extra_specs=SEV),
    fakes.make_instance(image={'hw_mem_encryption': 'true'})])
def test_demanded_by_flavor_or_image(instance):
    assert decide(instance) == 'amd-sev'
    assert scope.is_attested(instance, 'required')


@pytest.mark.parametrize('mode', ['required', 'optional'])
def test_plain(mode):
    instance = fakes.make_instance(metadata=ASKS)
    assert decide(instance, fakes.PLAIN_DOMAIN, mode) is None
    assert not scope.is_attested(instance, mode)


def test_plain_domain_is_not_even_parsed():
    assert decide(fakes.make_instance(), 'not <XML') is None


@pytest.mark.parametrize('specs, image, metadata, attested', [
    ({}, {}, {}, False), ({}, {}, ASKS, True),
    ({MODE: 'required'}, {}, {}, True), ({MODE: 'optional'}, {}, {}, False),
    ({}, {IMAGE_MODE: 'required'}, {}, True),
    ({}, {IMAGE_MODE: 'optional'}, {}, False),
    ({MODE: 'required'}, {IMAGE_MODE: 'optional'}, {}, True),
    ({MODE: 'optional'}, {IMAGE_MODE: 'required'}, {}, True),
    # Meant to say something: not to be passed over.
    ({MODE: 'yes'}, {}, {}, True), ({}, {IMAGE_MODE: ''}, {}, True)])
def test_optional(specs, image, metadata, attested):
    instance = fakes.make_instance(SEV | specs, metadata=metadata,
                                   system_metadata=image)
    assert decide(instance, mode='optional') == (
        'amd-sev' if attested else None)
    assert scope.is_attested(instance, 'optional') is attested


@pytest.mark.parametrize('said', [
    {MODE: 'optional'}, {IMAGE_MODE: 'optional'}])
def test_nothing_lowers_what_configuration_requires(said):
    assert decide(fakes.make_instance(
        SEV | said, system_metadata=said)) == 'amd-sev'


def test_users_metadata_says_nothing_of_the_mode():
    assert decide(fakes.make_instance(SEV, metadata={
        MODE: 'required', 'sev_attest_mode': 'required',
        IMAGE_MODE: 'required'}), mode='optional') is None


@pytest.mark.parametrize('mode', ['required', 'optional'])
def test_plain_guest_in_place_of_an_encrypted_one(mode):
    with pytest.raises(exceptions.AttestationFault, match='plain memory'):
        decide(fakes.make_instance(SEV), fakes.PLAIN_DOMAIN, mode)


def test_weaker_technology_than_demanded():
    with pytest.raises(exceptions.AttestationFault, match='amd-sev-es'):
        decide(fakes.make_instance(SEV_ES),
               attestable=('amd-sev', 'amd-sev-es'))


def test_encrypted_rescue_image_of_a_plain_server():
    assert decide(fakes.make_instance()) == 'amd-sev'


def test_technology_without_attester():
    with pytest.raises(exceptions.AttestationRefused,
                       match='amd-sev-es cannot be attested') as caught:
        decide(fakes.make_instance(SEV_ES),
               fakes.DOMAIN.replace('0x0033', '0x0037'))
    assert isinstance(caught.value, exception.BuildAbortException)


def test_technology_without_attester_that_nobody_asked_to_attest():
    assert decide(fakes.make_instance(SEV_ES),
                  fakes.DOMAIN.replace('0x0033', '0x0037'),
                  mode='optional') is None


def test_machine_type_that_cannot_be_encrypted():
    with pytest.raises(exception.InvalidMachineType):
        decide(fakes.make_instance(SEV, {'hw_machine_type': 'pc'}))
