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

import hashlib
import re

import pytest

from tests.functional.keyservice import harness
from tests.unit.launch import platforms

GUID = harness.LUKS_GUID
OPTIONS = ('--firmware', 'OVMF.fd', '--kernel', 'vmlinuz', '--initrd',
           'initrd.img', '--command-line', harness.COMMAND_LINE,
           '--trusted-root', 'emulated')


@pytest.fixture
def secret(keyservice, cloud):
    found = keyservice.secret()
    cloud.barbican.names[found] = 'passphrase'
    return found


def test_create_from_files(openstack, files, secret, keyservice, cloud):
    done = openstack('attestation', 'policy', 'create', 'web', *OPTIONS,
                     '--secret', 'luks=passphrase', '--default', '-f', 'json')
    policy = done.json
    assert policy['firmwares'] == [
        hashlib.sha256(platforms.firmware()).hexdigest()]
    assert policy['kernels'] == [harness.KERNEL.hex()]
    assert policy['initrds'] == [harness.INITRD.hex()]
    assert policy['command_lines'] == [harness.COMMAND_LINE]
    assert policy['secrets'] == [{'guid': GUID, 'secret_ref': secret}]
    assert policy['is_default'] is True
    assert 'emulated' in done.err  # the service's own warning
    # What is said to be measured is what the service then takes.
    measured, = policy['measured']
    host = harness.Host(keyservice)
    host.launch()
    evidence = host.measure()
    assert host.send(evidence).status_code == 200
    assert host.show()['verdict']['launch_digest'] == (
        measured['launch_digest'])
    # The command asks for the secret's name and readers, never for it.
    assert cloud.barbican.requests[0][1].startswith('/') and not [
        path for _, path in cloud.barbican.requests
        if path.endswith('/payload') and path.split('/')[3] != secret]


def test_a_firmware_is_uploaded_once(openstack, files, keyservice):
    for name in ('a', 'b'):
        assert openstack('attestation', 'policy', 'create', name,
                         *OPTIONS).status == 0
    shown = openstack('attestation', 'firmware', 'list', '-f', 'json').json
    assert len(shown) == 1 and shown[0]['Measures Kernels'] is True


def test_dry_run_leaves_nothing(openstack, files, keyservice):
    done = openstack('attestation', 'policy', 'create', 'web', *OPTIONS,
                     '--dry-run')
    assert done.status == 0
    assert re.search(r'\b[0-9a-f]{64}\b', done.out)
    assert 'kernel vmlinuz' in done.out and 'initrd initrd.img' in done.out
    assert harness.COMMAND_LINE in done.out
    for noun in ('policy', 'firmware'):
        assert openstack('attestation', noun, 'list', '-f', 'json').json == []


def test_rescue(openstack, files, secret, keyservice):
    line = 'root=/dev/vda console=ttyS0'
    policy = openstack(
        'attestation', 'policy', 'create', 'web', *OPTIONS, '--default',
        '--rescue-command-line', line, '--rescue-secret', 'luks=passphrase',
        '-f', 'json').json
    assert policy['secrets'] == []
    assert policy['rescue'] == {
        'kernels': None, 'initrds': None, 'command_lines': [line],
        'secrets': [{'guid': GUID, 'secret_ref': secret}]}
    boot, rescue = policy['measured']
    assert 'purpose' not in boot and rescue['purpose'] == 'rescue'
    assert rescue['command_line'] == line
    host = harness.Host(keyservice)
    assert host.create(purpose='rescue').status_code == 201
    host.start(host.create(purpose='rescue'))
    assert host.send(host.measure(command_line=line)).status_code == 200
    shown = openstack('attestation', 'launch', 'show', host.id, '-f',
                      'json').json
    assert shown['purpose'] == 'rescue'
    assert shown['verdict']['launch_digest'] == rescue['launch_digest']
    listed, = openstack('attestation', 'launch', 'list', '--long', '-f',
                        'json').json
    assert listed['Purpose'] == 'rescue'
    shown = openstack('attestation', 'policy', 'show', 'web')
    assert line in shown.out

    def change(verb, *options):
        return openstack('attestation', 'policy', verb, 'web', *options,
                         '-f', 'json').json['rescue']

    kernel = 'ab' * 32
    assert change('set', '--rescue-kernel', 'vmlinuz', '--rescue-kernel',
                  kernel, '--rescue-initrd', 'initrd.img') == (
        policy['rescue'] | {'kernels': [harness.KERNEL.hex(), kernel],
                            'initrds': [harness.INITRD.hex()]})
    assert change('set', '--no-rescue-kernel', '--rescue-kernel', kernel,
                  '--no-rescue-initrd', '--no-rescue-secret') == {
        'kernels': [kernel], 'initrds': [], 'command_lines': [line],
        'secrets': []}
    # What is taken out is not allowed any more, nor is anything else.
    assert change('unset', '--rescue-kernel', kernel)['kernels'] == []
    assert change('set', '--no-rescue', '--rescue-kernel', kernel) == {
        'kernels': [kernel], 'initrds': None, 'command_lines': None,
        'secrets': []}
    assert change('set', '--no-rescue') is None
    assert change('set', '--rescue-secret', f'luks={secret}')['secrets'] == [
        {'guid': GUID, 'secret_ref': secret}]
    assert change('unset', '--rescue-secret', 'luks') is None
    assert change('set', '--rescue-command-line', line) == {
        'kernels': None, 'initrds': None, 'command_lines': [line],
        'secrets': []}
    assert change('unset', '--rescue') is None
    done = openstack('attestation', 'policy', 'unset', 'web',
                     '--rescue-command-line', line)
    assert done.status == 1 and 'rescue-command-line in the policy' in (
        done.err)


def test_sev_es_digests(openstack, files):
    policy = openstack(
        'attestation', 'policy', 'create', 'es', *OPTIONS, '--technology',
        'amd-sev-es', '--vcpus', '1', '--vcpus', '2', '--cpu-model',
        'EPYC-v4', '--launch-profile', 'qemu-init2', '-f', 'json').json
    assert [each['vcpus'] for each in policy['measured']] == [1, 2]
    assert len({each['launch_digest'] for each in policy['measured']}) == 2


def test_set_adds_and_unset_takes_out(openstack, files, secret):
    openstack('attestation', 'policy', 'create', 'web', *OPTIONS)
    (files / 'other').write_bytes(b'another kernel')
    other = hashlib.sha256(b'another kernel').hexdigest()
    policy = openstack(
        'attestation', 'policy', 'set', 'web', '--kernel', 'other',
        '--command-line', 'quiet', '--secret', f'{GUID}={secret}',
        '--limit-not-after', '2099-01-01T01:00+01:00',
        '--limit-max-releases', '3', '--approval', 'owner', '--name', 'db',
        '-f', 'json').json
    assert policy['kernels'] == [harness.KERNEL.hex(), other]
    assert policy['command_lines'] == [harness.COMMAND_LINE, 'quiet']
    assert policy['limits'] == {'not_after': '2099-01-01T00:00:00Z',
                                'max_releases': 3}
    assert (policy['approval'], policy['name'], policy['revision']) == (
        'owner', 'db', 2)
    policy = openstack(
        'attestation', 'policy', 'set', 'db', '--no-kernel', '--kernel',
        other, '-f', 'json').json
    assert policy['kernels'] == [other]
    policy = openstack(
        'attestation', 'policy', 'unset', 'db', '--command-line', 'quiet',
        '--limit-max-releases', '--limit-not-after', '--secret', 'luks',
        '-f', 'json').json
    assert policy['command_lines'] == [harness.COMMAND_LINE]
    assert (policy['limits'], policy['secrets']) == (None, [])
    old = openstack('attestation', 'policy', 'show', 'db', '--revision', '1',
                    '-f', 'json').json
    assert old['name'] == 'web'


def test_set_of_nothing_makes_no_revision(openstack, files):
    openstack('attestation', 'policy', 'create', 'web', *OPTIONS)
    policy = openstack('attestation', 'policy', 'set', 'web', '--kernel',
                       'vmlinuz', '-f', 'json').json
    assert policy['revision'] == 1


def test_revoke_and_restore(openstack, files):
    openstack('attestation', 'policy', 'create', 'web', *OPTIONS)
    policy = openstack('attestation', 'policy', 'set', 'web', '--revoked',
                       '-f', 'json').json
    assert policy['revoked_at']
    listed = openstack('attestation', 'policy', 'list', '--revoked', '-f',
                       'json').json
    assert [each['Name'] for each in listed] == ['web']
    policy = openstack('attestation', 'policy', 'set', 'web',
                       '--not-revoked', '-f', 'json').json
    assert policy['revoked_at'] is None


def test_list_show_delete(openstack, files):
    for name in ('b', 'a'):
        openstack('attestation', 'policy', 'create', name, *OPTIONS)
    listed = openstack('attestation', 'policy', 'list', '--sort', 'name',
                       '--long', '-f', 'json').json
    assert [each['Name'] for each in listed] == ['a', 'b']
    assert {each['Verifier'] for each in listed} == {'service'}
    shown = openstack('attestation', 'policy', 'show', 'a', '--firmware',
                      'OVMF.fd', '-f', 'json').json
    assert len(shown['measured']) == 1
    done = openstack('attestation', 'policy', 'delete', 'a', 'bb', 'b')
    assert done.status == 1
    assert 'bb: There is no policy "bb". Did you mean b?' in done.err
    assert '1 of 3 could not be done' in done.err
    assert openstack('attestation', 'policy', 'list', '-f',
                     'json').json == []


def image_of(cloud, **properties):
    kernel = cloud.glance.add('kernel', b'a kernel')
    initrd = cloud.glance.add('initrd', b'an initrd')
    return cloud.glance.add('disk', **({
        'kernel_id': kernel, 'ramdisk_id': initrd,
        'os_command_line': harness.COMMAND_LINE, 'hw_firmware_type': 'uefi',
        'hw_firmware_stateless': 'true',
        'hw_machine_type': 'q35'} | properties))


@pytest.mark.parametrize('by', ['name', 'id'])
def test_from_image(openstack, files, cloud, by):
    image = image_of(cloud)
    done = openstack(
        'attestation', 'policy', 'create', 'web', '--firmware', 'OVMF.fd',
        '--from-image', 'disk' if by == 'name' else image, '--trusted-root',
        'emulated', '-f', 'json')
    assert done.json['kernels'] == [harness.KERNEL.hex()]
    assert done.json['initrds'] == [harness.INITRD.hex()]
    assert done.json['command_lines'] == [harness.COMMAND_LINE]
    assert 'Glance is the operator\'s' in done.err
    assert 'needs the property' not in done.err


def test_from_an_image_that_cannot_be_attested(openstack, files, cloud):
    image_of(cloud, hw_firmware_type='bios')
    done = openstack('attestation', 'policy', 'create', 'web', '--firmware',
                     'OVMF.fd', '--from-image', 'disk', '--dry-run')
    assert 'needs the property hw_firmware_type=uefi' in done.err
    cloud.glance.add('bare')
    done = openstack('attestation', 'policy', 'create', 'web', '--firmware',
                     'OVMF.fd', '--from-image', 'bare')
    assert done.status == 1 and 'has no property kernel_id' in done.err
    done = openstack('attestation', 'policy', 'create', 'web', '--firmware',
                     'OVMF.fd', '--from-image', 'dsk')
    assert 'There is no image "dsk". Did you mean disk' in done.err


def test_warnings(openstack, files):
    (files / 'plain.fd').write_bytes(platforms.firmware(hash_table=None))
    done = openstack('attestation', 'policy', 'create', 'web', '--firmware',
                     'plain.fd', '--kernel', 'vmlinuz', '--command-line', '',
                     '--dry-run')
    assert 'Warning: Firmware plain.fd measures no kernel' in done.err
    done = openstack('attestation', 'policy', 'create', 'web', '--firmware',
                     'OVMF.fd', '--initrd', 'initrd.img', '--dry-run')
    assert 'An initrd without a kernel is not measured' in done.err
    assert 'Nothing can be launched' in done.err


@pytest.mark.parametrize('argv, words', [
    (('--firmware', 'stock.fd'), 'using it would overwrite the guest'),
    (('--firmware', 'missing.fd'), 'missing.fd: No such file'),
    (('--firmware', 'vmlinuz'), 'vmlinuz: firmware of 8 bytes'),
    ((), 'give --firmware'),
    (('--firmware', 'OVMF.fd', '--secret', 'luks=pasphrase'),
     'There is no secret "pasphrase". Did you mean passphrase?'),
    (('--firmware', 'OVMF.fd', '--kernel', 'vmlinuz'), 'command lines'),
])
def test_mistakes(openstack, files, secret, argv, words):
    (files / 'stock.fd').write_bytes(platforms.firmware(secret=(0, 0)))
    done = openstack('attestation', 'policy', 'create', 'web', *argv)
    assert done.status == 1
    assert words in done.err


@pytest.mark.parametrize('argv, words', [
    (('--secret', 'hunter2'), 'never given on the command line'),
    (('--secret', 'x=y'), 'is no GUID'),
    (('--limit-not-after', 'tomorrow'), 'is no time'),
    (('--allowed-chip', 'ff'), 'expected a SHA-256'),
    (('--vcpus', 'two'), 'is no number'),
    (('--verifier', 'me'), 'invalid choice')])
def test_wrong_options(openstack, files, argv, words):
    done = openstack('attestation', 'policy', 'create', 'web', *argv)
    assert done.status == 2
    assert words in done.err and 'hunter2' not in done.err


def test_a_secret_nobody_else_may_read(openstack, files, keyservice, cloud):
    cloud.barbican.names[keyservice.secret(granted=False)] = 'mine'
    done = openstack('attestation', 'policy', 'create', 'web', *OPTIONS,
                     '--secret', 'luks=mine')
    assert 'Nobody but your project may read secret mine' in done.err


def test_another_projects_policy(openstack, files):
    policy = openstack('attestation', 'policy', 'create', 'web', *OPTIONS,
                       '-f', 'json').json
    for word in ('web', policy['id']):
        done = openstack('attestation', 'policy', 'show', word,
                         user='mallory')
        assert done.status == 1 and harness.COMMAND_LINE not in done.err


def test_no_secret_is_logged(command, files, secret):
    """Not even at --debug, with everything that is asked of Barbican."""
    done = command('--debug', 'attestation', 'policy', 'create', 'web',
                   *OPTIONS, '--secret', 'luks=passphrase')
    assert done.status == 0, done.err
    assert f'/v1/secrets/{secret}/acl' in done.err
    assert harness.PASSPHRASE.decode() not in done.out + done.err
