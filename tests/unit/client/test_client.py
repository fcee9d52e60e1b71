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

from keystoneauth1 import noauth
from keystoneauth1 import session

from nova_sev_attest import client
from tests.unit.client import fakes


def test_from_a_session(requests_mock):
    requests_mock.get(f'{fakes.URL}/v1/platforms', json={
        'platforms': [{'id': 'a'}]})
    found = client.Client.from_session(
        session.Session(auth=noauth.NoAuth()), endpoint_override=fakes.URL)
    assert list(found.platforms.each(emulated=True)) == [{'id': 'a'}]
    assert requests_mock.last_request.qs == {'emulated': ['true']}
    assert 'nova-sev-attest' in requests_mock.last_request.headers[
        'User-Agent']
