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

"""Finding what a word on the command line means: its id, or its name."""

from osc_lib import exceptions

from nova_sev_attest.osc import base


def policy(client, word):
    """The id of a policy."""
    if base.is_uuid(word):
        return word.lower()
    found = next(iter(client.policies.each(name=word)), None)
    if found is None:
        raise base.unknown(word, 'policy', [
            each['name'] for each in client.policies.each(sort='name')])
    return found['id']


def firmware(client, word):
    """The SHA-256 of a firmware: that itself, its beginning, or a file."""
    import os
    import re

    from nova_sev_attest import files

    if re.fullmatch('[0-9a-fA-F]{64}', word):
        return word.lower()
    if re.fullmatch('[0-9a-fA-F]{6,63}', word):
        found = [each['sha256'] for each in client.firmwares.each()
                 if each['sha256'].startswith(word.lower())]
        if len(found) == 1:
            return found[0]
        if found:
            raise exceptions.CommandError(
                f'{len(found)} firmwares begin with {word}: '
                f'{", ".join(found[:5])}')
    if os.path.exists(word):
        return files.Reader().sha256(word, 'a firmware')
    raise base.unknown(word, 'firmware', [
        each['sha256'] for each in client.firmwares.each()])


def platform(client, word):
    """The members of a platform, by its id or its host's name."""
    if base.is_uuid(word):
        return client.platforms.get(word.lower())
    found = list(client.platforms.each(host=word))
    if not found:
        raise base.unknown(word, 'host with a platform', [
            each['host'] for each in client.platforms.each()])
    if len(found) > 1:
        raise exceptions.CommandError(
            f'Host {word} had {len(found)} platforms; name one by its id: '
            f'{", ".join(each["id"] for each in found[:5])}')
    return found[0]


def server(manager, word):
    """The id of a server; Nova is asked for its name."""
    if base.is_uuid(word):
        return word.lower()
    found = manager.compute.find_server(word, ignore_missing=True)
    if found is None:
        raise base.unknown(word, 'server', [
            each.name for each in manager.compute.servers()])
    return found.id


def launches(manager, word):
    """The launch of an id, or the newest ones of a server; a list."""
    from nova_sev_attest.client import exceptions as client_exceptions

    client = manager.attestation
    if base.is_uuid(word):
        try:
            return [client.launches.get(word.lower())]
        except client_exceptions.NotFound:
            pass  # it may be a server's
    found, _ = client.launches.list(server_id=server(manager, word),
                                    limit=20)
    return found


def launch(manager, word, waiting_for=None):
    """The members of a launch: by its id, or the newest one of a server.

    :param waiting_for: 'session', 'secret' or 'approval': of a server, the
        one that waits for that
    :raises CommandError: there is none
    """
    found = launches(manager, word)
    if not found:
        what = ('launch, and no launch of a server,' if base.is_uuid(word)
                else 'launch of server')
        raise exceptions.CommandError(
            f'There is no {what} "{word}" in your project. "openstack server '
            f'show {word}" may tell why.')
    if waiting_for is None or found[0]['id'] == word.lower():
        return found[0]
    for each in found:
        if each.get('waiting_for') == waiting_for:
            return each
    raise exceptions.CommandError(
        f'No launch of server {word} waits for your {waiting_for}; the '
        f'newest one, {found[0]["id"]}, is {found[0]["status"]}.')


def secret(manager, word):
    """What a policy calls a secret of Barbican's: its UUID or reference.

    A secret is looked for by its name; its payload is never asked for.
    """
    if base.is_uuid(word) or '/secrets/' in word:
        return word
    store = manager.sdk_connection.key_manager
    found = [each.secret_ref for each in store.secrets(name=word)]
    if not found:
        raise base.unknown(word, 'secret', [
            each.name for each in store.secrets()])
    if len(found) > 1:
        raise exceptions.CommandError(
            f'{len(found)} secrets are called "{word}"; name one by its '
            f'reference: {", ".join(found[:5])}')
    return found[0].rstrip('/').rsplit('/', 1)[1]


def secret_readers(manager, reference):
    """Ids of the users of other projects that may read a secret.

    :param reference: as secret() returns it
    :returns: list, None where that cannot be told
    """
    from keystoneauth1 import exceptions as ksa_exceptions
    from openstack import exceptions as sdk_exceptions

    secret_id = reference.rstrip('/').rsplit('/', 1)[-1]
    try:
        answer = manager.sdk_connection.key_manager.get(
            f'/secrets/{secret_id}/acl')
        sdk_exceptions.raise_from_response(answer)
        return answer.json()['read'].get('users', [])
    except (sdk_exceptions.SDKException, ksa_exceptions.ClientException,
            KeyError, TypeError, ValueError):
        return None
