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

"""Versions of the API, chosen by the header OpenStack-API-Version.

There is one so far. Whoever asks for none gets the lowest, so that clients
that know nothing of versions go on working.
"""

import microversion_parse

from nova_sev_attest.keyservice import errors

HEADER = 'OpenStack-API-Version'
SERVICE_TYPE = 'attestation'
LOWEST = HIGHEST = microversion_parse.Version(1, 0)


def _wanted(req):
    """The version that a request asks for.

    :raises BadRequest: not a version
    :raises NotAcceptable: one that there is not
    """
    header = req.get_header(HEADER)
    text = header and microversion_parse.get_version(
        {microversion_parse.STANDARD_HEADER: header}, SERVICE_TYPE)
    if not text:
        return LOWEST
    if text == 'latest':
        return HIGHEST
    try:
        version = microversion_parse.parse_version_string(text)
    except (TypeError, ValueError):
        raise errors.BadRequest(
            'version_malformed',
            f'The header {HEADER} asks for a version of {SERVICE_TYPE} that '
            f'is neither "latest" nor two numbers such as '
            f'{HIGHEST}.') from None
    if not LOWEST <= version <= HIGHEST:
        raise errors.NotAcceptable(
            'version_unsupported',
            f'The service has no version {version} of its API; it has '
            f'{LOWEST} to {HIGHEST}.')
    return version


class Negotiation:
    """Falcon middleware: settles the version and names it in each answer.

    :ivar: req.context.version is a (major, minor)
    """

    def process_request(self, req, resp):
        resp.append_header('Vary', HEADER)
        resp.set_header(HEADER, f'{SERVICE_TYPE} {HIGHEST}')
        req.context.version = _wanted(req)
        resp.set_header(HEADER, f'{SERVICE_TYPE} {req.context.version}')
