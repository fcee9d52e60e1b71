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

"""Owners who verify or approve by the commands, with files of their tools."""

import base64
import json

import pytest

from nova_sev_attest.cmd.sev_attest import app as sev_attest
from tests.functional.keyservice import harness

SECRET = b'the passphrase that only its owner knows'


@pytest.fixture
def host(keyservice, cloud):
    """A function that begins a launch of the server "web"."""

    def begin(**policy):
        keyservice.policy(**policy)
        found = harness.Host(keyservice)
        cloud.nova.names['web'] = found.server_id
        return found

    return begin


def offline(folder, *argv):
    """Run sev-attest in the owner's folder."""
    assert sev_attest.main([str(word) for word in argv]) == 0


def start(host):
    """What the host does when the owner's session came."""
    response = host.create()
    assert response.status_code in (200, 201), response.text
    session = response.json()['launch']['session']
    host.guest = host.platform.launch(
        base64.b64decode(session['dh_cert']),
        base64.b64decode(session['session']), session['policy'])


def test_an_owner_who_verifies(openstack, files, host, capsys):
    waiting = host(verifier='owner', firmwares=[], kernels=[], initrds=[],
                   command_lines=[], secrets=[])
    assert waiting.create().status_code == 202
    shown = openstack('attestation', 'launch', 'show', 'web', '-f',
                      'json').json
    assert shown['waiting_for'] == 'session'

    saved = openstack('attestation', 'launch', 'certificates', 'save', 'web',
                      '-f', 'json').json
    assert saved['pdh_file'] == 'vm_pdh.cert'
    offline(files, 'session', 'create', 'vm_pdh.cert', 'vm_cert_chain.cert',
            '--anchor', 'emulated=ask_ark.cert')
    shown = openstack('attestation', 'launch', 'session', 'set', 'web',
                      '--godh', 'vm_godh.b64', '--session', 'vm_session.b64',
                      '-f', 'json').json
    assert shown['status'] == 'session_issued'

    start(waiting)
    evidence = waiting.measure()
    assert waiting.send(evidence, waiting.claims()).status_code == 202
    saved = openstack('attestation', 'launch', 'evidence', 'save', 'web',
                      '-f', 'json').json
    assert (saved['api_version'], saved['build_id']) == ('1.51', 3)
    kept = json.loads((files / 'vm_evidence.json').read_text())
    assert kept['claims'] == waiting.claims()
    launched = ('--firmware', 'OVMF.fd', '--kernel', 'vmlinuz', '--initrd',
                'initrd.img')
    without_key = openstack(
        'attestation', 'verify', 'web', '--anchor', 'emulated=ask_ark.cert',
        *launched, '--command-line', harness.COMMAND_LINE)
    assert without_key.status == 2 and 'without --tik' in without_key.err
    verify = ('attestation', 'verify', 'web', '--anchor',
              'emulated=ask_ark.cert', '--tik', 'vm_tik.bin', *launched)
    proven = openstack(*verify, '--command-line', harness.COMMAND_LINE, '-f',
                       'json')
    assert proven.json['hmac'] == 'verified'
    refused = openstack(*verify, '--command-line', 'init=/bin/sh')
    assert refused.status == 1 and 'not that of any launch' in refused.err

    (files / 'passphrase').write_bytes(SECRET)
    offline(files, 'secret', 'pack', '--tik', 'vm_tik.bin', '--tek',
            'vm_tek.bin', '--session', 'vm_session.b64', '--measurement-file',
            'vm_measurement.b64', '--api', '1.51', '--build', '3', '--policy',
            '0x3b', *launched, '--append', harness.COMMAND_LINE, '--secret',
            f'{harness.LUKS_GUID}:passphrase', '--header', 'header.b64',
            '--payload', 'payload.b64')
    done = openstack('attestation', 'launch', 'secret', 'set', 'web',
                     '--header', 'header.b64', '--payload', 'payload.b64',
                     '--gpa', '0x810000', '-f', 'json')
    assert done.json['status'] == 'released'
    answer = waiting.send(evidence, waiting.claims())
    assert answer.status_code == 200
    released = waiting.inject(answer.json()['release'], evidence)
    assert list(released.values()) == [SECRET]
    for name in ('vm_tek.bin', 'vm_tik.bin', 'passphrase'):
        assert (files / name).read_bytes() not in (
            done.out + proven.out + proven.err).encode()


def test_without_a_secret(openstack, files, host):
    waiting = host(verifier='owner', secrets=[])
    waiting.create()
    openstack('attestation', 'launch', 'certificates', 'save', 'web')
    offline(files, 'session', 'create', 'vm_pdh.cert', 'vm_cert_chain.cert',
            '--anchor', 'emulated=ask_ark.cert')
    openstack('attestation', 'launch', 'session', 'set', 'web', '--godh',
              'vm_godh.b64', '--session', 'vm_session.b64')
    start(waiting)
    waiting.send(waiting.measure())
    done = openstack('attestation', 'launch', 'secret', 'set', 'web',
                     '--none')
    assert done.status == 0 and 'released' in done.out


def test_an_owner_who_approves(openstack, host):
    waiting = host(approval='owner')
    waiting.launch()
    evidence = waiting.measure()
    assert waiting.send(evidence).status_code == 202
    listed, = openstack('attestation', 'launch', 'list', '--status',
                        'awaiting_release', '--long', '-f', 'json').json
    assert listed['Waiting For'] == 'approval'
    done = openstack('attestation', 'launch', 'approve', 'web', '-f', 'json')
    assert done.json['status'] == 'released'
    assert waiting.send(evidence).status_code == 200
    waiting.outcome('running')
    shown = openstack('attestation', 'launch', 'show', 'web', '-f', 'json')
    assert [phase['phase'] for phase in shown.json['timeline']] == [
        'host starts the guest, paused', 'verification', 'owner decides',
        'release', 'host injects and resumes']
    drawn = openstack('attestation', 'launch', 'show', 'web', '-c',
                      'timeline').out
    assert 'owner decides' in drawn and '\u2588' in drawn
    assert all(len(line) <= 100 for line in drawn.split('\n'))
    watched = openstack('attestation', 'launch', 'watch', 'web')
    assert watched.status == 0 and 'approved' in watched.out
    again = openstack('attestation', 'launch', 'approve', 'web')
    assert again.status == 1 and 'waits for your approval' in again.err


def test_an_owner_who_denies(openstack, host):
    waiting = host(approval='owner')
    waiting.launch()
    waiting.send(waiting.measure())
    done = openstack('attestation', 'launch', 'deny', waiting.id, '--reason',
                     'not mine', '-f', 'json')
    assert done.json['status'] == 'denied'
    shown = openstack('attestation', 'launch', 'show', 'web')
    assert 'not mine' in shown.out
    assert openstack('attestation', 'launch', 'watch', 'web').status == 1


@pytest.mark.parametrize('argv, words', [
    (('session', 'set', 'web', '--godh', 'vmlinuz', '--session', 'vmlinuz'),
     'vmlinuz is no GODH certificate'),
    (('secret', 'set', 'web', '--header', 'vmlinuz', '--payload', 'vmlinuz'),
     'vmlinuz is no secret header'),
    (('secret', 'set', 'web', '--header', 'header', '--payload', 'vmlinuz'),
     'vmlinuz is no packed secret'),
    (('secret', 'set', 'web', '--none'), 'waits for your secret'),
    (('evidence', 'save', 'web'), 'HTTP 4')])
def test_mistakes(openstack, files, host, argv, words):
    host(verifier='owner', secrets=[]).create()
    (files / 'header').write_bytes(bytes(52))
    done = openstack('attestation', 'launch', *argv)
    assert done.status == 1 and words in done.err


def test_another_project_has_no_part_in_it(openstack, files, host):
    waiting = host(approval='owner')
    waiting.launch()
    waiting.send(waiting.measure())
    for argv in (('approve',), ('deny',), ('evidence', 'save'),
                 ('certificates', 'save'), ('secret', 'set', '--none')):
        done = openstack('attestation', 'launch', *argv, waiting.id,
                         user='mallory')
        assert done.status == 1 and 'in your project' in done.err
    assert waiting.show()['status'] == 'awaiting_release'
