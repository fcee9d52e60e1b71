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

"""A client of a key service that requests-mock answers for."""

from keystoneauth1 import adapter
from keystoneauth1 import noauth
from keystoneauth1 import session

from nova_sev_attest import client

URL = 'http://attestation.test'


def make_adapter(url=URL):
    return adapter.Adapter(
        session.Session(auth=noauth.NoAuth(endpoint=url)),
        service_type='attestation')


def make_client(**options):
    return client.Client(make_adapter(), **options)
