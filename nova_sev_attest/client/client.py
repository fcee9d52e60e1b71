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

"""The key service's REST API, one attribute a resource."""

from nova_sev_attest.client import firmwares
from nova_sev_attest.client import launches
from nova_sev_attest.client import platforms
from nova_sev_attest.client import policies
from nova_sev_attest.client import rest


class Client:
    """A client on a keystoneauth1 adapter.

    :param adapter: keystoneauth1.adapter.Adapter with session and auth, for
        the service type attestation
    :param options: what RestClient takes: timeout, total_timeout,
        max_retries, retry_delay
    :ivar launches: Launches
    :ivar policies: Policies
    :ivar firmwares: Firmwares
    :ivar platforms: Platforms
    """

    def __init__(self, adapter, **options):
        api = rest.RestClient(adapter, **options)
        self.launches = launches.Launches(api)
        self.policies = policies.Policies(api)
        self.firmwares = firmwares.Firmwares(api)
        self.platforms = platforms.Platforms(api)
