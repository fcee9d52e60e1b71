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

"""What is told of an error: one line, with what to do."""

_CATALOG = ('"openstack catalog show attestation" tells where it should '
            'answer.')
_ADVICE = {
    'attestation.policy_name_taken':
        'Change it by "openstack attestation policy set", or choose another '
        'name.',
    'attestation.default_exists':
        'Take it from that one by "openstack attestation policy set '
        '--no-default" first.',
    'attestation.firmware_in_use':
        'Take it out of them by "openstack attestation policy unset '
        '--firmware" first.',
    'attestation.secret_forbidden':
        '"openstack secret list" shows those that you may read.',
}
_ROLES = ('To look takes the role reader in the project, to change anything '
          'the role member; another project is chosen by --os-project-name.')
_TOKEN = ('The token is not valid, or not any more: log in anew, with '
          '--os-cloud or without OS_TOKEN.')


def line(error):
    """An error as one line for people, or None for one that is unknown.

    Errors of OpenStack's own libraries say what they have to say.
    """
    from keystoneauth1 import exceptions as ksa_exceptions
    from openstack import exceptions as sdk_exceptions

    from nova_sev_attest.client import exceptions as client_exceptions
    from nova_sev_attest import files
    from nova_sev_attest.launch import errors

    if isinstance(error, client_exceptions.RequestRefused):
        text = _refused(error)
    elif isinstance(error, client_exceptions.ServiceUnavailable):
        text = f'{error} {_CATALOG}'
    elif isinstance(error, OSError) and error.filename is not None:
        text = f'{error.filename}: {error.strerror}'
    elif isinstance(error, sdk_exceptions.DuplicateResource):
        text = f'{error} Name it by its ID.'
    elif isinstance(error, (
            client_exceptions.ClientError, errors.LaunchError, files.Unusable,
            OSError, ksa_exceptions.ClientException,
            sdk_exceptions.SDKException)):
        text = str(error)
    else:
        return None
    return ' '.join(text.split())


def _refused(error):
    text = error.detail or str(error)
    if error.request_id:
        text += f' (HTTP {error.status}, {error.request_id})'
    advice = _ADVICE.get(error.code)
    if advice is None and error.status == 401:
        advice = _TOKEN
    if advice is None and error.code == 'attestation.forbidden':
        advice = _ROLES
    if advice is None and not error.code:
        advice = f'That is no answer of the key service\'s. {_CATALOG}'
    if advice is None:
        return text
    return f'{text}{"" if text.endswith((".", ")")) else "."} {advice}'
