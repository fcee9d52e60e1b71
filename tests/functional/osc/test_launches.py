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

import json
from xml.etree import ElementTree

import pytest

from tests.functional.keyservice import harness


@pytest.fixture
def host(keyservice, cloud):
    """A host whose server "web" was launched, under policy "web"."""
    keyservice.policy()
    found = harness.Host(keyservice)
    cloud.nova.names['web'] = found.server_id
    found.launch()
    return found


@pytest.fixture
def running(host):
    assert host.send(host.measure(), host.claims()).status_code == 200
    assert host.outcome('running').status_code == 200
    return host


@pytest.fixture
def denied(host):
    evidence = host.measure(command_line='init=/bin/sh')
    assert host.send(evidence, host.claims(
        command_line='init=/bin/sh')).status_code == 403
    return host


def test_list(openstack, running):
    listed = openstack('attestation', 'launch', 'list', '--server', 'web',
                       '--policy', 'web', '--status', 'running', '-f',
                       'json').json
    assert [(each['ID'], each['Host'], each['Status']) for each in listed] \
        == [(running.id, 'host-1', 'running')]
    assert openstack('attestation', 'launch', 'list', '--host', 'host-2',
                     '-f', 'json').json == []
    assert openstack('attestation', 'launch', 'list', user='mallory').out \
        .strip() == ''


def test_list_long_says_why(openstack, denied):
    each, = openstack('attestation', 'launch', 'list', '--long', '-f',
                      'json').json
    assert each['Reason'] == 'attestation.command_line_not_allowed'


@pytest.mark.parametrize('by', ['launch', 'server name', 'server id'])
def test_show(openstack, running, by):
    word = {'launch': running.id, 'server name': 'web',
            'server id': running.server_id}[by]
    shown = openstack('attestation', 'launch', 'show', word, '-f',
                      'json').json
    assert (shown['id'], shown['status']) == (running.id, 'running')
    assert shown['verdict']['emulated'] is True


def test_show_as_a_table(openstack, running):
    done = openstack('attestation', 'launch', 'show', 'web')
    assert done.status == 0
    assert 'platform_root: emulated' in done.out


def test_show_mistakes(openstack, running):
    done = openstack('attestation', 'launch', 'show', 'wbe')
    assert done.status == 1
    assert 'There is no server "wbe". Did you mean web?' in done.err
    done = openstack('attestation', 'launch', 'show', running.id,
                     user='mallory')
    assert done.status == 1 and 'in your project' in done.err


SVG = '{http://www.w3.org/2000/svg}'


def test_picture(openstack, running, files):
    done = openstack('attestation', 'launch', 'show', 'web', '--svg',
                     'launch.svg')
    assert done.status == 0, done.err
    root = ElementTree.fromstring((files / 'launch.svg').read_bytes())
    texts = [element.text for element in root.iter(f'{SVG}text')]
    assert f'Launch {running.id}' in texts and 'running' in texts
    assert texts.count('measured, allowed') == 4
    assert f'"{harness.COMMAND_LINE}"' in texts
    assert 'EMULATED: protects nothing from its host' in texts
    again = openstack('attestation', 'launch', 'show', 'web', '--svg',
                      'launch.svg')
    assert again.status == 1 and 'launch.svg exists' in again.err


def test_picture_of_a_refusal(openstack, denied, files):
    openstack('attestation', 'launch', 'show', 'web', '--svg', 'launch.svg')
    root = ElementTree.fromstring((files / 'launch.svg').read_bytes())
    texts = [element.text for element in root.iter(f'{SVG}text')]
    assert texts.count('not allowed') == 1
    assert texts.count('the host\'s word only') == 4
    assert any(text.startswith('allowed: ') and harness.COMMAND_LINE in text
               for text in texts)


def test_watch_what_is_over(openstack, running):
    done = openstack('attestation', 'launch', 'watch', 'web')
    assert done.status == 0
    assert done.out.rstrip().endswith('running')
    assert '\x1b' not in done.out


def test_watch_what_was_denied(openstack, denied):
    done = openstack('attestation', 'launch', 'watch', denied.id)
    assert done.status == 1
    assert 'denied: The command line that the guest' in done.out


def test_watch_has_an_end(openstack, host, cloud):
    done = openstack('attestation', 'launch', 'watch', 'web', '--timeout',
                     '0.5', '--interval', '0.2')
    assert done.status == 2
    assert done.out.count('session issued') >= 1
    assert 'Not over after 0.5 s' in done.err
    cloud.nova.names['idle'] = cloud.nova.add('p', 'host-1')
    done = openstack('attestation', 'launch', 'watch', 'idle', '--timeout',
                     '0')
    assert done.status == 2 and 'there is no launch yet' in done.err


def test_the_hosts_words_steer_no_terminal(openstack, host):
    host.outcome('failed', 'gone \x1b]0;evil\x07 wrong')
    for argv in (('launch', 'show', 'web'), ('launch', 'watch', 'web'),
                 ('launch', 'list', '--long')):
        done = openstack('attestation', *argv)
        assert '\x1b' not in done.out and '\x07' not in done.out


def test_platforms(openstack, running):
    listed = openstack('attestation', 'platform', 'list', '--emulated', '-f',
                       'json').json
    assert [(each['Host'], each['Root']) for each in listed] == [
        ('host-1', 'emulated')]
    assert openstack('attestation', 'platform', 'list', '--genuine',
                     '--long', '-f', 'json').json == []
    by_host = openstack('attestation', 'platform', 'show', 'host-1', '-f',
                        'json').json
    by_id = openstack('attestation', 'platform', 'show', by_host['id'], '-f',
                      'json').json
    assert by_id == by_host and by_id['last_verdict'] == 'verified'
    done = openstack('attestation', 'platform', 'show', 'host-2')
    assert 'Did you mean host-1?' in done.err


def test_without_an_endpoint(command, cloud, keyservice):
    cloud.attestation = None
    try:
        done = command('attestation', 'policy', 'list')
    finally:
        cloud.attestation = keyservice.url
    assert done.status == 1 and 'Traceback' not in done.err
    assert 'no endpoint in the catalog' in done.err


def test_nothing_of_a_launch_is_logged(command, running):
    """Not even at --debug: neither token nor what is released."""
    done = command('--debug', 'attestation', 'launch', 'show', running.id,
                   '-f', 'json')
    assert done.status == 0, done.err
    assert json.loads(done.out)['id'] == running.id
    for secret in (running.token, harness.PASSPHRASE.decode()):
        assert secret not in done.out + done.err
