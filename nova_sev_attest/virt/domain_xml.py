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

"""Reading and marking libvirt's domain XML.

The format is libvirt's, https://libvirt.org/formatdomain.html.

Every domain that must not run unattested carries a marker in its metadata,
in a namespace of ours: ::

    <metadata>
      <attest:launch xmlns:attest="urn:nova-sev-attest:launch"
                     id="<launch UUID>" state="pending"/>
    </metadata>

The persistent definition only ever says 'pending'. 'released' is written to
the live definition alone, after the guest got what the key service released
to it, with libvirt's id of this run of the domain: ::

    <attest:launch id="<launch UUID>" state="released" run="7"/>

libvirt forgets the live definition when the domain stops, and counts its runs
on. So the mark is bound to one launch of one domain, outlives nova-compute
and libvirtd, and holds for no other start, wherever it might be copied to.
"""

import dataclasses

from lxml import etree

NAMESPACE = 'urn:nova-sev-attest:launch'
PREFIX = 'attest'
PENDING = 'pending'
RELEASED = 'released'

_LAUNCH = f'{{{NAMESPACE}}}launch'
_SEV_ES_BIT = 0x4
# The words of Nova's hw:mem_encryption_model; libvirt has its own.
_TECHNOLOGIES = {'sev-snp': 'amd-sev-snp', 'tdx': 'intel-tdx'}


class Unlaunchable(Exception):
    """The domain cannot be launched so that attesting it means anything."""


@dataclasses.dataclass(frozen=True)
class Marker:
    """What a domain says about its launch.

    :ivar launch_id: None where no launch was opened for the domain
    :ivar run: the run that was released, libvirt's id in decimal
    """

    launch_id: str | None
    state: str
    run: str | None = None


@dataclasses.dataclass(frozen=True)
class BootInputs:
    """What of a domain is measured, as paths and text; None where absent."""

    kernel: str | None
    initrd: str | None
    command_line: str | None
    firmware: str | None
    vcpus: int | None


def parse(xml):
    """The <domain> element of a text.

    :raises lxml.etree.XMLSyntaxError: it is not XML
    """
    return etree.fromstring(
        xml, etree.XMLParser(resolve_entities=False, no_network=True))


def to_text(domain):
    return etree.tostring(domain, encoding='unicode')


def technology_of(xml):
    """technology() of a text, which a plain domain is not parsed for."""
    return technology(parse(xml)) if _mentions(xml, 'launchSecurity') else None


def _mentions(xml, word):
    # What is no text is a stand-in of Nova's tests; libvirt gives text.
    return isinstance(xml, str) and word in xml


def technology(domain):
    """The memory encryption a domain is defined with, in Nova's words.

    :returns: 'amd-sev', 'amd-sev-es', 'amd-sev-snp', 'intel-tdx', libvirt's
        own word for another one, None for a plain domain
    """
    security = domain.find('launchSecurity')
    if security is None:
        return None
    kind = security.get('type', '')
    if kind != 'sev':
        return _TECHNOLOGIES.get(kind, kind)
    return 'amd-sev-es' if policy_word(security) & _SEV_ES_BIT else 'amd-sev'


def policy_word(security):
    """The policy of a <launchSecurity> element, 0 where it has none.

    :raises Unlaunchable: the policy is no number
    """
    text = security.findtext('policy', default='0')
    try:
        return int(text.strip(), 0)
    except ValueError:
        raise Unlaunchable(
            'the domain\'s launch policy is not a number') from None


def marker(domain):
    """The domain's Marker, None where it has none."""
    element = domain.find(f'metadata/{_LAUNCH}')
    if element is None:
        return None
    return Marker(element.get('id'), element.get('state', PENDING),
                  element.get('run'))


def marker_of(xml):
    """marker() of a text, which one without any is not parsed for."""
    return marker(parse(xml)) if _mentions(xml, NAMESPACE) else None


def is_released(domain):
    """Whether a live definition says that this very run was released."""
    found = marker(domain)
    return (found is not None and found.launch_id is not None and
            found.state == RELEASED and found.run is not None and
            found.run == domain.get('id'))


def released_element(launch_id, run):
    """The mark of a release as virDomainSetMetadata takes it.

    Without namespace, which libvirt adds.

    :param run: libvirt's id of the running domain
    """
    return etree.tostring(
        etree.Element('launch', id=launch_id, state=RELEASED, run=str(run)),
        encoding='unicode')


def unreleased(xml):
    """A definition as text, with any mark of a release turned to pending.

    Nova reads live definitions and defines them again, and a release is
    never part of a definition.
    """
    found = marker_of(xml)
    if found is None or found.state == PENDING:
        return xml
    domain = parse(xml)
    mark_pending(domain, found.launch_id)
    return to_text(domain)


def mark_pending(domain, launch_id=None):
    """Mark a definition as one that must not run unattested.

    A guest that resets itself never passes through Nova, so libvirt is told
    to destroy it: its next start is then Nova's, and attested.
    """
    metadata = domain.find('metadata')
    if metadata is None:
        metadata = etree.SubElement(domain, 'metadata')
    for old in metadata.findall(_LAUNCH):
        metadata.remove(old)
    element = etree.SubElement(metadata, _LAUNCH, state=PENDING,
                               nsmap={PREFIX: NAMESPACE})
    if launch_id is not None:
        element.set('id', launch_id)
    for event in ('on_reboot', 'on_crash'):
        action = domain.find(event)
        if action is None:
            action = etree.SubElement(domain, event)
        action.text = 'destroy'


def require_stateless_firmware(domain):
    """Refuse firmware with a variable store.

    NVRAM is not measured, so whatever it tells the firmware to boot would
    get past the launch digest.

    :raises Unlaunchable: the firmware has, or libvirt would give it, NVRAM
    """
    loader = domain.find('os/loader')
    stateless = loader is not None and (
        loader.get('stateless') == 'yes' or loader.get('type') == 'rom')
    if domain.find('os/nvram') is not None or not stateless:
        raise Unlaunchable(
            'its firmware keeps variables (NVRAM) that are not measured; '
            'set the image property hw_firmware_stateless=true')


def boot_inputs(domain):
    """The BootInputs of a domain; an active one names its firmware."""
    vcpus = _vcpus(domain)
    return BootInputs(
        kernel=_path(domain, 'os/kernel'),
        initrd=_path(domain, 'os/initrd'),
        command_line=domain.findtext('os/cmdline'),
        firmware=_path(domain, 'os/loader'),
        vcpus=int(vcpus) if vcpus.isdecimal() else None)


def _vcpus(domain):
    """The vCPUs that are there from the start, as text."""
    element = domain.find('vcpu')
    if element is None:
        return ''
    return (element.get('current') or element.text or '').strip()


def _path(domain, where):
    text = domain.findtext(where)
    return (text.strip() or None) if text else None
