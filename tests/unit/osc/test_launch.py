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

import io

import pytest

from nova_sev_attest.osc import firmware
from nova_sev_attest.osc import launch
from tests.unit.osc import fakes
from tests.unit.osc import test_timeline

ID = '0d6a1f0e-4f0e-4e6c-9a52-0d9d1a7c2f11'
SERVER = '5b1d8b8e-0f36-4f6e-9e52-7d1c1a7c2f22'
WHERE = f'{fakes.URL}/v1/launches/{ID}'


def members(status, **more):
    return {'id': ID, 'server_id': SERVER, 'host': 'host-1', 'reason': None,
            'status': status, **more}


@pytest.fixture
def steps(requests_mock, monkeypatch):
    """A launch that goes on while it is watched."""
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    requests_mock.get(WHERE, [
        {'json': {'launch': members('awaiting_session',
                                    waiting_for='session', expires_in=55)}},
        {'json': {'launch': members('session_issued')}},
        {'json': {'launch': members('running')}}])
    requests_mock.get(f'{WHERE}/events', [
        {'json': {'events': test_timeline.OVER[:count]}}
        for count in (1, 2, 7)])


def test_watch_off_a_terminal_tells_each_step_once(steps):
    app = fakes.App()
    assert app.run(launch.Watch, ID) == 0
    lines = app.stdout.getvalue().splitlines()
    assert lines[:2] == [
        '15:04:05.123  +  0.000 s  begun; waits for the owner\'s session',
        'awaiting session; waits for your session']
    assert [line.rpartition(' s  ')[2] for line in lines[2:]] == [
        'session issued', 'session issued', 'evidence received',
        'waits for the owner\'s release', 'approved', 'released', 'running',
        'running']


def test_watch_on_a_terminal_draws_anew(steps):
    app = fakes.App(stdout=fakes.Terminal())
    assert app.run(launch.Watch, ID) == 0
    first, second, third = app.stdout.getvalue().split('\x1b[J')
    assert 'waits for your session, for 55 s more' in first
    # As many lines up as were drawn.
    drawn = first.removesuffix('\x1b[6F').count('\n')
    assert first.endswith(f'\x1b[{drawn}F')
    assert third.endswith('running\n') and 'host injects' in third


def test_watch_is_interrupted(requests_mock, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr('time.sleep', interrupt)
    requests_mock.get(WHERE, json={'launch': members('session_issued')})
    requests_mock.get(f'{WHERE}/events', json={'events': []})
    assert fakes.App().run(launch.Watch, ID) == 2


def test_watch_asks_until_the_time_is_over(requests_mock, monkeypatch):
    now = [0.0]
    monkeypatch.setattr('time.monotonic', lambda: now[0])
    monkeypatch.setattr('time.sleep', lambda seconds: now.__setitem__(
        0, now[0] + seconds))
    requests_mock.get(WHERE, json={'launch': members('session_issued')})
    requests_mock.get(f'{WHERE}/events', status_code=403, json={})
    assert fakes.App().run(launch.Watch, ID, '--timeout', 10,
                           '--interval', 3) == 2
    assert now[0] == 10.0
    assert requests_mock.call_count == 2 * 5


def test_a_server_whose_launch_waits(requests_mock):
    requests_mock.get(f'{fakes.URL}/v1/launches', json={'launches': [
        members('superseded') | {'id': 'new'},
        members('awaiting_release', waiting_for='approval')]})
    requests_mock.put(f'{WHERE}/decision',
                      json={'launch': members('released')})
    app = fakes.App(servers={'web': SERVER})
    assert app.run(launch.Approve, 'web', '--reason', 'looked at it') == 0
    assert requests_mock.last_request.json() == {'decision': {
        'action': 'approve', 'reason': 'looked at it'}}


def test_no_launch_that_waits(requests_mock):
    requests_mock.get(f'{fakes.URL}/v1/launches',
                      json={'launches': [members('running')]})
    app = fakes.App(servers={'web': SERVER})
    with pytest.raises(Exception, match='No launch of server web waits for '
                                        'your approval; the newest one'):
        app.run(launch.Approve, 'web')


@pytest.mark.parametrize('argv', [
    (), ('--none', '--header', 'x'), ('--header', 'x'), ('--payload', 'x')])
def test_secret_set_wants_both_files_or_none(argv):
    with pytest.raises(Exception, match='Give --header and --payload, or'):
        fakes.App().run(launch.SetSecret, ID, *argv)


def test_save_writes_beside_nothing_else(requests_mock, tmp_path):
    requests_mock.get(WHERE, json={'launch': members('awaiting_session')})
    requests_mock.get(f'{WHERE}/certificates', json={'certificates': {
        'pdh': 'AAAA', 'cert_chain': 'AAAA', 'signed_cek': 'AAAA'}})
    app = fakes.App()
    save = (launch.SaveCertificates, ID, '--directory', tmp_path)
    assert app.run(*save, '--name', 'web') == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        'web_pdh.cert', 'web_cert_chain.cert', 'web_cek.cert'}
    with pytest.raises(Exception, match='web_pdh.cert exists'):
        app.run(*save, '--name', 'web')
    with pytest.raises(Exception, match='a name without a slash'):
        app.run(*save, '--name', '../web')


def test_the_bar_of_an_upload():
    stream = fakes.Terminal()
    draw = firmware.bar(stream, 'OVMF.fd', 1000)
    for done in (0, 500, 1000):
        draw(done)
    states = stream.getvalue().split('\r')[1:]
    assert [state.count('=') for state in states] == [0, 20, 40]
    assert states[-1] == f'OVMF.fd [{"=" * 40}] 100%\n'
    assert firmware.bar(io.StringIO(), 'OVMF.fd', 1000) is None
