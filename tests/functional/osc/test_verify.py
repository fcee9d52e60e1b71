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

import pytest

from nova_sev_attest.keyservice.schemas import launches as schemas
from tests.functional.keyservice import harness
from tests.unit.launch import platforms

VERIFY = ('attestation', 'verify', 'web', '--anchor', 'emulated=ask_ark.cert',
          '--firmware', 'OVMF.fd')


@pytest.fixture
def server(keyservice, cloud):
    """A function that launches the server "web"."""
    keyservice.policy()

    def launch(**what):
        host = harness.Host(keyservice)
        cloud.nova.names['web'] = host.server_id
        host.launch()
        host.send(host.measure(**what), host.claims(**what))
        return host

    return launch


def test_it_holds(openstack, files, server):
    host = server()
    done = openstack(*VERIFY, '-f', 'json')
    assert done.json['launch_digest'] == (
        host.show()['verdict']['launch_digest'])
    assert done.json['kernel_sha256'] == harness.KERNEL.hex()
    assert (done.json['hmac'], done.json['emulated']) == ('service', True)
    assert 'is the key service\'s word' in done.err
    assert 'it protects nothing' in done.err


def test_by_own_files(openstack, files, server):
    server()
    assert openstack(*VERIFY, '--kernel', 'vmlinuz', '--initrd', 'initrd.img',
                     '--command-line', harness.COMMAND_LINE).status == 0
    (files / 'vmlinuz').write_bytes(b'the kernel that was meant')
    done = openstack(*VERIFY, '--kernel', 'vmlinuz')
    assert done.status == 1
    assert 'which is none of the 1 that your files' in done.err
    assert done.out == ''


@pytest.mark.parametrize('purpose, status', [('rescue', 0), ('boot', 1)])
def test_rescue(openstack, files, keyservice, cloud, monkeypatch, purpose,
                status):
    """It is held to what the policy says of rescues."""
    line = 'root=/dev/vda'
    keyservice.policy(rescue={'command_lines': [line]})
    host = harness.Host(keyservice)
    cloud.nova.names['web'] = host.server_id
    host.start(host.create(purpose='rescue'))
    assert host.send(host.measure(command_line=line)).status_code == 200
    view = schemas.full
    monkeypatch.setattr(schemas, 'full', lambda *args: view(*args) | {
        'purpose': purpose})
    done = openstack(*VERIFY, '-f', 'json')
    assert done.status == status
    if status == 0:
        assert done.json['purpose'] == 'rescue'
    else:
        assert 'which is none of the 1 that your files' in done.err


def test_another_root(openstack, files, server):
    server()
    (files / 'ask_ark.cert').write_bytes(platforms.ask_ark('other'))
    done = openstack(*VERIFY)
    assert done.status == 1
    assert 'not signed by the ASK of any trusted root' in done.err


def test_denied(openstack, files, server):
    server(command_line='init=/bin/sh')
    done = openstack(*VERIFY)
    assert done.status == 1 and 'was denied' in done.err


@pytest.mark.parametrize('argv, words', [
    (VERIFY[:3] + VERIFY[5:], 'Nothing is trusted yet'),
    (VERIFY[:-1] + ('other.fd',), 'is no firmware of the policy'),
    (VERIFY + ('--tik', 'vmlinuz'), 'vmlinuz is no TIK: expected 16 bytes'),
    (VERIFY[:2] + ('wbe',) + VERIFY[3:], 'Did you mean web?'),
    (VERIFY[:4] + ('emulated=missing',) + VERIFY[5:], 'missing'),
    (VERIFY[:5], '--firmware')])
def test_unusable(openstack, files, server, argv, words):
    server()
    (files / 'other.fd').write_bytes(platforms.firmware(size=16384))
    done = openstack(*argv)
    assert done.status == 2
    assert words in done.err


def test_evidence_has_not_come(openstack, files, keyservice, cloud):
    keyservice.policy()
    host = harness.Host(keyservice)
    cloud.nova.names['web'] = host.server_id
    host.launch()
    done = openstack(*VERIFY)
    assert done.status == 2 and 'Traceback' not in done.err
