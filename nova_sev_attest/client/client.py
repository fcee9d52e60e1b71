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

from keystoneauth1 import adapter as ksa_adapter

from nova_sev_attest.client import firmwares
from nova_sev_attest.client import launches
from nova_sev_attest.client import platforms
from nova_sev_attest.client import policies
from nova_sev_attest.client import rest


class Client:
    """A client on a keystoneauth1 adapter.

    Safe to repeat is GET, PUT and DELETE: these are asked again, by
    themselves, when the service cannot be reached, is silent or answers
    5xx. After the n-th failure in a row it waits retry_delay * 2^(n-1)
    seconds, at most 8, of which up to half is left out at random, or as long
    as the answer's Retry-After says. It gives up after max_retries
    repetitions, or where the wait would not end within total_timeout or the
    deadline given. POST and PATCH, which create and update policies, are
    never repeated. No 4xx is: it would be answered the same.

    :param adapter: keystoneauth1.adapter.Adapter with session and auth, for
        the service type attestation
    :param options: timeout: seconds that connecting, or any silence, may
        last (10); total_timeout: seconds of one call with its repetitions
        (60); max_retries (4); retry_delay: seconds (0.5)
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

    @classmethod
    def from_session(cls, session, interface='public', region_name=None,
                     endpoint_override=None, service_type='attestation',
                     **options):
        """A client on a keystoneauth1 session.

        :param session: keystoneauth1.session.Session with auth
        :param endpoint_override: URL in place of the catalog's
        :param options: as for the class
        """
        return cls(ksa_adapter.Adapter(
            session, service_type=service_type, interface=interface,
            region_name=region_name, endpoint_override=endpoint_override,
            client_name='nova-sev-attest'), **options)
