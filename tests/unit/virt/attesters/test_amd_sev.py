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

import base64
import dataclasses
import types

import pytest

from nova_sev_attest.client import exceptions
from nova_sev_attest.virt.attesters import amd_sev
from nova_sev_attest.virt.attesters import base
from nova_sev_attest.virt import domain_xml
from tests.unit.virt import fakes


def text(data):
    return base64.b64encode(data).decode()


@pytest.fixture
def attester():
    return amd_sev.AmdSevAttester()


def connection(**changes):
    info = {'pdh': text(b'p' * 2084), 'cert-chain': text(b'c' * 6252)}
    info.update(changes)
    return types.SimpleNamespace(getSEVInfo=lambda flags: info)


def test_platform(attester):
    assert attester.read_platform(connection()) == {
        'pdh': b'p' * 2084, 'cert_chain': b'c' * 6252}


@pytest.mark.parametrize('size', (8, 64))
def test_chip_id(attester, size):
    found = attester.read_platform(connection(**{'cpu0-id': text(
        b'i' * size)}))
    assert found['cpu0_id'] == b'i' * size


@pytest.mark.parametrize('value', (None, ''))
def test_libvirt_without_chip_id(attester, value):
    assert 'cpu0_id' not in attester.read_platform(
        connection(**{'cpu0-id': value}))


@pytest.mark.parametrize('changes', [
    {'cpu0-id': '!'}, {'cpu0-id': text(b'i' * 7)},
    {'cpu0-id': text(b'i' * 65)},
    {'pdh': None}, {'pdh': '!'}, {'pdh': text(b'p' * 2083)},
    {'cert-chain': text(b'c' * 2084)}])
def test_platform_that_cannot_be_used(attester, changes):
    with pytest.raises(base.AttesterError):
        attester.read_platform(connection(**changes))


def test_prepare(attester):
    domain = domain_xml.parse(fakes.DOMAIN)
    attester.prepare(domain, fakes.SESSION)
    security = domain.find('launchSecurity')
    assert security.attrib == {'type': 'sev', 'kernelHashes': 'yes'}
    assert {child.tag: child.text for child in security} == {
        'policy': '0x003b', 'dhCert': text(b'g' * 2084),
        'session': text(b's' * 128)}


def test_prepare_replaces_an_earlier_session(attester):
    domain = domain_xml.parse(fakes.DOMAIN)
    attester.prepare(domain, fakes.SESSION)
    attester.prepare(domain, dataclasses.replace(
        fakes.SESSION, session=b't' * 128))
    (session,) = domain.findall('launchSecurity/session')
    assert session.text == text(b't' * 128)


def test_prepare_keeps_what_libvirt_filled_in(attester):
    domain = domain_xml.parse(fakes.DOMAIN.replace(
        '</policy>', '</policy><cbitpos>51</cbitpos>'))
    attester.prepare(domain, fakes.SESSION)
    assert domain.findtext('launchSecurity/cbitpos') == '51'


def test_no_hashes_without_kernel(attester):
    domain = domain_xml.parse(fakes.DOMAIN.replace(
        '<kernel>/i/kernel</kernel>', '').replace(
        'type="sev"', 'type="sev" kernelHashes="yes"'))
    attester.prepare(domain, fakes.SESSION)
    assert 'kernelHashes' not in domain.find('launchSecurity').attrib


@pytest.mark.parametrize('policy', [0x32, 0x01, 0x0, 0x3f])
def test_policy_that_is_weaker_or_of_another_technology(attester, policy):
    with pytest.raises(exceptions.InvalidResponse, match='policy word'):
        attester.prepare(
            domain_xml.parse(fakes.DOMAIN),
            dataclasses.replace(fakes.SESSION, policy=policy))


def test_check_refuses_variables(attester):
    attester.check(domain_xml.parse(fakes.DOMAIN))
    with pytest.raises(domain_xml.Unlaunchable):
        attester.check(domain_xml.parse(
            fakes.DOMAIN.replace('stateless="yes"', '')))


def test_evidence(attester):
    guest = fakes.make_guest(fakes.Domain())
    assert attester.read_evidence(guest) == {
        'measurement': b'm' * 48, 'api_major': 1, 'api_minor': 51,
        'build_id': 3, 'policy': 0x3b}


@pytest.mark.parametrize('name, value', [
    ('sev-measurement', ''), ('sev-measurement', text(b'm' * 32)),
    ('sev-measurement', None), ('sev-api-major', None),
    ('sev-api-minor', 256), ('sev-build-id', -1), ('sev-policy', 2 ** 32)])
def test_evidence_that_cannot_be_used(attester, name, value):
    domain = fakes.Domain()
    domain.security_info[name] = value
    with pytest.raises(base.AttesterError, match=name):
        attester.read_evidence(fakes.make_guest(domain))


@pytest.mark.parametrize('gpa', [0x810000, None])
def test_inject(attester, gpa):
    domain = fakes.Domain()
    attester.inject(fakes.make_guest(domain),
                    dataclasses.replace(fakes.RELEASE, gpa=gpa))
    expected = {'sev-secret-header': text(b'h' * 52),
                'sev-secret': text(b'x' * 32)}
    if gpa is not None:
        expected['sev-secret-set-address'] = gpa
    assert domain.calls == [('setLaunchSecurityState', expected)]
