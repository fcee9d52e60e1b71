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

"""AMD SEV through libvirt.

Sources: AMD, "Secure Encrypted Virtualization API", chapters 3 and 6;
libvirt, virNodeGetSEVInfo, virDomainGetLaunchSecurityInfo,
virDomainSetLaunchSecurityState and the <launchSecurity> of its domain XML.
"""

import base64
import binascii

from lxml import etree

from nova_sev_attest.client import exceptions
from nova_sev_attest.virt.attesters import base
from nova_sev_attest.virt import domain_xml

CERTIFICATE_SIZE = 2084
# PEK, OCA and CEK.
CHAIN_SIZE = 3 * CERTIFICATE_SIZE
# GET_ID gives 64 bytes today.
CHIP_ID_SIZES = range(8, 65)
# HMAC and nonce.
MEASUREMENT_SIZE = 48


class AmdSevAttester(base.Attester):
    """SEV without encrypted registers: policy bit ES clear."""

    ES_BIT = 0x4
    wants_es = False

    def is_offered_by(self, host):
        return host.supports_amd_sev

    def read_platform(self, connection):
        """Certificates 'pdh', 2084 bytes, and 'cert_chain', 6252 bytes.

        And 'cpu0_id', the chip's id, where libvirt tells it (since 8.4.0):
        the key service finds the chip's certificate by it.
        """
        info = connection.getSEVInfo(0)
        platform = {'pdh': _octets(info, 'pdh', CERTIFICATE_SIZE),
                    'cert_chain': _octets(info, 'cert-chain', CHAIN_SIZE)}
        if info.get('cpu0-id'):
            platform['cpu0_id'] = _octets(info, 'cpu0-id', CHIP_ID_SIZES)
        return platform

    def check(self, domain):
        domain_xml.require_stateless_firmware(domain)

    def prepare(self, domain, session):
        security = domain.find('launchSecurity')
        nova_policy = domain_xml.policy_word(security)
        if session.policy & nova_policy != nova_policy:
            raise exceptions.InvalidResponse(
                f'The key service\'s policy word 0x{session.policy:x} is '
                f'weaker than Nova\'s 0x{nova_policy:x}; its operator must '
                f'mend it')
        if bool(session.policy & self.ES_BIT) != self.wants_es:
            raise exceptions.InvalidResponse(
                f'The key service\'s policy word 0x{session.policy:x} is '
                f'one of another technology; its operator must mend it')
        _set_text(security, 'policy', f'0x{session.policy:04x}')
        _set_text(security, 'dhCert', _base64(session.dh_cert))
        _set_text(security, 'session', _base64(session.session))
        # Without the table, a kernel given to QEMU is not in the digest.
        if domain.find('os/kernel') is not None:
            security.set('kernelHashes', 'yes')
        else:
            security.attrib.pop('kernelHashes', None)

    def read_evidence(self, guest):
        """The measurement, 48 bytes, and the numbers that it covers."""
        info = guest.launch_security_info()
        return {
            'measurement': _octets(info, 'sev-measurement',
                                   MEASUREMENT_SIZE),
            'api_major': _number(info, 'sev-api-major', 0xff),
            'api_minor': _number(info, 'sev-api-minor', 0xff),
            'build_id': _number(info, 'sev-build-id', 0xff),
            'policy': _number(info, 'sev-policy', 0xffffffff),
        }

    def inject(self, guest, release):
        parameters = {'sev-secret-header': _base64(release.header),
                      'sev-secret': _base64(release.secret)}
        if release.gpa is not None:
            parameters['sev-secret-set-address'] = release.gpa
        guest.set_launch_security_state(parameters)


def _base64(data):
    return base64.b64encode(data).decode('ascii')


def _set_text(parent, name, text):
    element = parent.find(name)
    if element is None:
        element = etree.SubElement(parent, name)
    element.text = text


def _octets(info, name, sizes):
    """Decoded bytes; of a size, or of one of a range of sizes."""
    try:
        data = base64.b64decode(info[name], validate=True)
    except (KeyError, TypeError, binascii.Error, ValueError):
        raise base.AttesterError(
            f'libvirt gave no "{name}" in base64') from None
    if isinstance(sizes, int):
        sizes, expected = (sizes,), str(sizes)
    else:
        expected = f'{sizes[0]} to {sizes[-1]}'
    if len(data) not in sizes:
        raise base.AttesterError(
            f'libvirt gave {len(data)} bytes as "{name}" where {expected} '
            f'were expected')
    return data


def _number(info, name, highest):
    value = info.get(name)
    if not isinstance(value, int) or not 0 <= value <= highest:
        raise base.AttesterError(
            f'libvirt gave no "{name}" between 0 and {highest}')
    return value
