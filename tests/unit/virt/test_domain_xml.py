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

from lxml import etree
import pytest

from nova_sev_attest.virt import domain_xml
from tests.unit.virt import fakes


def domain(text=fakes.DOMAIN, *changes):
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return domain_xml.parse(text)


@pytest.mark.parametrize('security, technology', [
    ('', None),
    ('<launchSecurity type="sev"><policy>0x0033</policy></launchSecurity>',
     'amd-sev'),
    ('<launchSecurity type="sev"/>', 'amd-sev'),
    ('<launchSecurity type="sev"><policy>55</policy></launchSecurity>',
     'amd-sev-es'),
    ('<launchSecurity type="sev-snp"/>', 'amd-sev-snp'),
    ('<launchSecurity type="tdx"/>', 'intel-tdx'),
    ('<launchSecurity type="s390-pv"/>', 's390-pv'),
])
def test_technology(security, technology):
    assert domain_xml.technology(
        domain_xml.parse(f'<domain>{security}</domain>')) == technology


def test_policy_that_is_no_number():
    with pytest.raises(domain_xml.Unlaunchable):
        domain_xml.technology(domain(fakes.DOMAIN, ('0x0033', 'many')))


def test_external_entities_are_not_read(tmp_path):
    secret = tmp_path / 'secret'
    secret.write_text('outside')
    text = (f'<!DOCTYPE d [<!ENTITY e SYSTEM "file://{secret}">]>'
            f'<domain><os><kernel>&e;</kernel></os></domain>')
    assert 'outside' not in domain_xml.to_text(domain_xml.parse(text))


def test_not_xml():
    with pytest.raises(etree.XMLSyntaxError):
        domain_xml.parse('no')


def test_pending_mark_round():
    marked = domain()
    domain_xml.mark_pending(marked, 'launch-1')
    again = domain_xml.parse(domain_xml.to_text(marked))
    assert domain_xml.marker(again) == domain_xml.Marker(
        'launch-1', 'pending')
    assert not domain_xml.is_released(again)
    assert again.findtext('on_reboot') == 'destroy'
    assert again.findtext('on_crash') == 'destroy'
    # Nova's own metadata stays.
    assert len(again.find('metadata')) == 2


def test_pending_mark_replaces_what_a_stored_definition_says():
    marked = domain(fakes.DOMAIN, (
        '</domain>', '<on_reboot>restart</on_reboot></domain>'))
    domain_xml.mark_pending(marked, 'launch-1')
    domain_xml.mark_pending(marked, 'launch-2')
    assert domain_xml.marker(marked).launch_id == 'launch-2'
    assert len(marked.findall('on_reboot')) == 1
    assert marked.findtext('on_reboot') == 'destroy'
    assert len(marked.findall('metadata')) == 1


def test_mark_without_metadata_and_without_launch():
    marked = domain_xml.parse('<domain/>')
    domain_xml.mark_pending(marked)
    assert domain_xml.marker(marked) == domain_xml.Marker(None, 'pending')


RELEASED = 'id="a" state="released" run="7"'


def with_mark(attributes, run='id="7"'):
    return (f'<domain {run}><metadata><l:launch '
            f'xmlns:l="{domain_xml.NAMESPACE}" {attributes}/></metadata>'
            f'</domain>')


@pytest.mark.parametrize('attributes, run, released', [
    (RELEASED, 'id="7"', True),
    # Another run, none, or a run that is not said.
    (RELEASED, 'id="8"', False), (RELEASED, '', False),
    ('id="a" state="released"', 'id="7"', False),
    ('id="a" state="released"', '', False),
    ('state="released" run="7"', 'id="7"', False),
    ('id="a" state="pending" run="7"', 'id="7"', False),
    ('id="a" run="7"', 'id="7"', False), ('', 'id="7"', False)])
def test_released(attributes, run, released):
    assert domain_xml.is_released(domain_xml.parse(
        with_mark(attributes, run))) is released


def test_a_definition_is_never_released():
    defined = domain_xml.parse(domain_xml.unreleased(with_mark(RELEASED)))
    assert domain_xml.marker(defined) == domain_xml.Marker('a', 'pending')
    assert defined.findtext('on_reboot') == 'destroy'


@pytest.mark.parametrize('xml', [
    'not <XML', with_mark('id="a" state="pending"'),
    f'<domain><name>{domain_xml.NAMESPACE}</name></domain>'])
def test_other_definitions_stay_as_they_are(xml):
    assert domain_xml.unreleased(xml) is xml


def test_mark_of_another_namespace_is_none():
    assert domain_xml.marker(domain_xml.parse(
        '<domain><metadata><launch id="a" state="released"/></metadata>'
        '</domain>')) is None


def test_released_element_is_without_namespace():
    assert domain_xml.released_element('a', 7) == (
        '<launch id="a" state="released" run="7"/>')


def test_stateless_firmware():
    domain_xml.require_stateless_firmware(domain())
    domain_xml.require_stateless_firmware(domain(fakes.DOMAIN, (
        'secure="no" stateless="yes"', 'type="rom"')))


@pytest.mark.parametrize('old, new', [
    ('<loader secure="no" stateless="yes"/>', ''),
    ('stateless="yes"', ''),
    ('stateless="yes"', 'stateless="no"'),
    ('<initrd>', '<nvram>/vars</nvram><initrd>'),
    ('<initrd>', '<nvram template="/vars"/><initrd>'),
])
def test_firmware_with_variables(old, new):
    with pytest.raises(domain_xml.Unlaunchable,
                       match='hw_firmware_stateless'):
        domain_xml.require_stateless_firmware(
            domain(fakes.DOMAIN, (old, new)))


def test_boot_inputs():
    assert domain_xml.boot_inputs(domain(fakes.DOMAIN, (
        '<loader secure="no" stateless="yes"/>',
        '<loader> /fw </loader>'))) == domain_xml.BootInputs(
        '/i/kernel', '/i/ramdisk', 'console=ttyS0', '/fw', 2)


def test_vcpus_that_may_be_plugged_in_later_do_not_count():
    assert domain_xml.boot_inputs(domain(fakes.DOMAIN, (
        '<vcpu placement="static">2', '<vcpu current="1">2'))).vcpus == 1


def test_boot_inputs_absent():
    assert domain_xml.boot_inputs(
        domain_xml.parse('<domain><os><loader/></os></domain>')) == (
        domain_xml.BootInputs(None, None, None, None, None))
