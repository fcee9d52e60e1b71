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

"""To the key service by its REST API, with this host's own credential."""

from keystoneauth1 import adapter as ksa_adapter
from keystoneauth1 import exceptions as ksa_exceptions
from keystoneauth1 import loading as ks_loading

from nova_sev_attest.client import client
from nova_sev_attest.client import exceptions
from nova_sev_attest.client.transport import base
from nova_sev_attest.conf import driver as options


class HttpTransport(base.Transport):
    """REST over keystoneauth1, configured by the group [sev_attest].

    The credential is the service's of that group, never the user's token:
    many boots have no user, and the key service believes none here.
    """

    def __init__(self, conf):
        group = options.GROUP.name
        settings = conf[group]
        try:
            auth = ks_loading.load_auth_from_conf_options(conf, group)
            session = ks_loading.load_session_from_conf_options(
                conf, group, auth=auth)
        except ksa_exceptions.ClientException as error:
            raise exceptions.ServiceUnavailable(
                f'The credential in [{group}] of nova.conf cannot be used: '
                f'{error}') from None
        if auth is None:
            raise exceptions.ServiceUnavailable(
                f'[{group}] of nova.conf names no credential for the key '
                f'service: set auth_type and what it needs.')
        self._launches = client.Client(
            ksa_adapter.Adapter(
                session,
                service_type=settings.service_type,
                service_name=settings.service_name,
                interface=settings.valid_interfaces,
                region_name=settings.region_name,
                endpoint_override=settings.endpoint_override,
                client_name='nova-sev-attest'),
            timeout=settings.timeout,
            total_timeout=settings.launch_timeout,
            max_retries=settings.max_retries,
            retry_delay=settings.retry_delay).launches

    def create_launch(self, identity, server_id, host, technology, platform,
                      deadline, waiting=None):
        return self._launches.create(identity, server_id, host, technology,
                                     platform, deadline, waiting)

    def send_evidence(self, identity, technology, evidence, claims,
                      deadline, waiting=None):
        return self._launches.send_evidence(identity, technology, evidence,
                                            claims, deadline, waiting)

    def report_outcome(self, identity, status, reason, deadline):
        self._launches.report_outcome(identity, status, reason, deadline)
