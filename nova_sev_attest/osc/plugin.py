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

"""The openstack command's plugin: ``openstack attestation ...``.

This module is imported whenever ``openstack`` starts, whatever it is to do,
and so is each module of commands for ``openstack --help``. What they need
beyond osc-lib is imported by what needs it.
"""

from osc_lib import utils

DEFAULT_API_VERSION = '1'
API_VERSION_OPTION = 'os_attestation_api_version'
API_NAME = 'attestation'
API_VERSIONS = ('1',)


def make_client(instance):
    """A client of the key service.

    :param instance: openstackclient's ClientManager
    """
    from nova_sev_attest import client

    return client.Client.from_session(
        instance.session, interface=instance.interface,
        region_name=instance.region_name,
        endpoint_override=instance.get_configuration().get(
            'attestation_endpoint_override'))


def build_option_parser(parser):
    """Add the options that go before the command."""
    parser.add_argument(
        '--os-attestation-api-version', metavar='<attestation-api-version>',
        default=utils.env('OS_ATTESTATION_API_VERSION',
                          default=DEFAULT_API_VERSION),
        help=f'Attestation API version, default={DEFAULT_API_VERSION} '
             f'(Env: OS_ATTESTATION_API_VERSION)')
    return parser
