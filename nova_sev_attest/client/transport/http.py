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

from nova_sev_attest.client import client
from nova_sev_attest.client.transport import base
from nova_sev_attest.client.transport import credential
from nova_sev_attest.conf import driver as options


class HttpTransport(base.LaunchesTransport):
    """REST over keystoneauth1, configured by the group [sev_attest]."""

    def __init__(self, conf):
        settings = conf[options.GROUP.name]
        super().__init__(client.Client(
            ksa_adapter.Adapter(
                credential.load_session(conf),
                service_type=settings.service_type,
                service_name=settings.service_name,
                interface=settings.valid_interfaces,
                region_name=settings.region_name,
                endpoint_override=settings.endpoint_override,
                client_name='nova-sev-attest'),
            timeout=settings.timeout,
            total_timeout=settings.launch_timeout,
            max_retries=settings.max_retries,
            retry_delay=settings.retry_delay).launches)
