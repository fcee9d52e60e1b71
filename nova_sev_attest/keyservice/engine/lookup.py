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

"""Finding the launch that a request is about."""

import hmac

from nova_sev_attest.keyservice.engine import requests
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import launches


class Lookup:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts

    def authenticate(self, launch_id, token):
        """The launch, to who knows its token."""
        with self._parts.database.reader() as session:
            launch = launches.get(session, launch_id)
        if not hmac.compare_digest(launch.token_hash,
                                   requests.hash_token(token)):
            raise errors.Forbidden(
                'launch_token_mismatch',
                'The launch was begun with another token.')
        return launch
