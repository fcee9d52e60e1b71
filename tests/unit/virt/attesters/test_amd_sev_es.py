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

import configparser
import dataclasses
import pathlib

import pytest

from nova_sev_attest.client import exceptions
from nova_sev_attest.virt.attesters import amd_sev_es
from nova_sev_attest.virt import domain_xml
from tests.unit.virt import fakes

# As Nova asks for SEV-ES.
DOMAIN = fakes.DOMAIN.replace('0x0033', '0x0037')
SESSION = dataclasses.replace(fakes.SESSION, policy=0x3f)


@pytest.fixture
def attester():
    return amd_sev_es.AmdSevEsAttester()


def test_prepare(attester):
    domain = domain_xml.parse(DOMAIN)
    assert domain_xml.technology(domain) == 'amd-sev-es'
    attester.prepare(domain, SESSION)
    security = domain.find('launchSecurity')
    assert security.get('type') == 'sev'
    assert security.get('kernelHashes') == 'yes'
    assert security.findtext('policy') == '0x003f'
    assert domain_xml.technology(domain) == 'amd-sev-es'


@pytest.mark.parametrize('policy', [0x3b, 0x33, 0x07, 0x4])
def test_policy_that_is_weaker_or_of_another_technology(attester, policy):
    with pytest.raises(exceptions.InvalidResponse, match='policy word'):
        attester.prepare(domain_xml.parse(DOMAIN),
                         dataclasses.replace(SESSION, policy=policy))


def test_encrypted_registers_are_not_given_up(attester):
    # Also where Nova's own domain would not ask for them.
    with pytest.raises(exceptions.InvalidResponse, match='technology'):
        attester.prepare(domain_xml.parse(fakes.DOMAIN), fakes.SESSION)


def test_entry_point():
    configuration = configparser.ConfigParser()
    configuration.read(
        pathlib.Path(__file__).parents[4] / 'setup.cfg')
    points = dict(line.split(' = ') for line in configuration[
        'entry_points']['nova_sev_attest.attesters'].split('\n') if line)
    module, name = points['amd-sev-es'].split(':')
    assert (module, name) == (amd_sev_es.__name__, 'AmdSevEsAttester')
