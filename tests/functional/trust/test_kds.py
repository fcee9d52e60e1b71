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

import datetime
import email.utils
import socket
import time

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization
from cryptography import x509
import pytest

from nova_sev_attest.launch import errors
from nova_sev_attest.trust import kds
from nova_sev_attest.trust import roots
from tests.unit.launch import platforms
from tests import vectors

PATH = '/file'


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def server(amd, clock, tmp_path):
    amd.files[PATH] = b'contents'
    return make(amd, clock, tmp_path)


def make(amd, clock, tmp_path, **changes):
    return kds.HttpServer(amd.url + '/', **{
        'timeout': 0.5, 'sleep': clock.sleep, 'clock': clock,
        'pause': kds.Pause(tmp_path / 'pause', clock)} | changes)


def fails(server, error, message, max_size=100):
    with pytest.raises(error, match=message) as exc:
        server.get(PATH, max_size)
    assert isinstance(exc.value, errors.LaunchError)
    return exc.value


def test_file(amd, server, clock):
    assert server.get(PATH, 8) == b'contents'
    assert amd.requests == [PATH]
    assert clock.slept == []
    assert amd.headers[0]['Accept-Encoding'] == 'identity'


@pytest.mark.parametrize('status', (429, 500, 503))
def test_short_throttling_is_waited_for(amd, server, clock, status):
    amd.next = [(status, {'Retry-After': '7'})]
    assert server.get(PATH, 100) == b'contents'
    assert clock.slept == [7]
    assert len(amd.requests) == 2


def test_time_as_a_date(amd, server, clock):
    moment = email.utils.formatdate(time.time() + 9, usegmt=True)
    amd.next = [(429, {'Retry-After': moment})]
    assert server.get(PATH, 100) == b'contents'
    assert 7 <= clock.slept[0] <= 9


@pytest.mark.parametrize('text', ('0', 'soon', '-5', ''))
def test_back_off_without_a_usable_time(amd, server, clock, text):
    amd.next = [(503, {'Retry-After': text})] * 3
    assert server.get(PATH, 100) == b'contents'
    for slept, least in zip(clock.slept, (1, 2, 4), strict=True):
        assert least <= slept <= 1.25 * least


def test_long_throttling_is_heeded_by_all(amd, server, clock, tmp_path):
    amd.next = [(429, {'Retry-After': '300'})]
    exc = fails(server, kds.KeyServerUnavailable,
                'answers 429; the server is not asked again for 300 s')
    assert exc.code == 'key_server_unavailable'
    assert clock.slept == []
    other = make(amd, clock, tmp_path)
    clock.now += 100
    fails(other, kds.KeyServerUnavailable, 'not asked again for 200 s')
    assert len(amd.requests) == 1
    clock.now += 195
    assert other.get(PATH, 100) == b'contents'
    assert clock.slept == [pytest.approx(5)]


def test_endless_throttling_is_an_hour(amd, server, clock):
    amd.next = [(429, {'Retry-After': '9' * 60})]
    fails(server, kds.KeyServerUnavailable, 'again for 3600 s')
    clock.now += 3600
    assert server.get(PATH, 100) == b'contents'


def test_gives_up_after_four_attempts(amd, server, clock):
    amd.next = [500] * 9
    fails(server, kds.KeyServerUnavailable, 'not asked again for 30 s')
    assert len(amd.requests) == 4
    fails(server, kds.KeyServerUnavailable, 'not asked again')
    assert len(amd.requests) == 4


def test_gives_up_at_the_deadline(amd, clock, tmp_path):
    server = make(amd, clock, tmp_path, deadline=2)
    amd.next = [500] * 9
    fails(server, kds.KeyServerUnavailable, 'answers 500')
    assert len(amd.requests) == 2
    assert clock.now <= 1002


def test_pause_without_a_file(amd, clock):
    server = kds.HttpServer(amd.url, sleep=clock.sleep, clock=clock,
                            pause=kds.Pause(clock=clock))
    amd.next = [(429, {'Retry-After': '300'})]
    fails(server, kds.KeyServerUnavailable, '300 s')
    fails(server, kds.KeyServerUnavailable, '300 s')
    assert len(amd.requests) == 1


@pytest.mark.parametrize('content', (b'', b'soon', b'\xff', b'9' * 30))
def test_damaged_pause_is_none(server, tmp_path, content):
    (tmp_path / 'pause').write_bytes(content)
    assert server.get(PATH, 100) == b'contents'


def test_pause_that_cannot_be_kept_holds_here(amd, clock, tmp_path):
    (tmp_path / 'file').write_text('')
    server = kds.HttpServer(
        amd.url, sleep=clock.sleep, clock=clock,
        pause=kds.Pause(tmp_path / 'file' / 'pause', clock))
    amd.next = [(429, {'Retry-After': '300'})]
    fails(server, kds.KeyServerUnavailable, '300 s')
    fails(server, kds.KeyServerUnavailable, '300 s')
    assert len(amd.requests) == 1


@pytest.mark.parametrize('status', (400, 404, 410))
def test_what_the_server_does_not_have(amd, server, clock, status):
    amd.next = [status]
    exc = fails(server, kds.KeyServerRefusal, f'{status}: it does not have')
    assert exc.code == 'key_server_refusal'
    assert clock.slept == []


@pytest.mark.parametrize('status', (204, 301, 401, 403, 407))
def test_other_answers(amd, server, status):
    amd.next = [(status, {'Location': amd.url + PATH,
                          'Content-Length': '0'})]
    fails(server, kds.KeyServerUnavailable,
          f'got {status}.*URL and proxy; .* for 30 s')
    assert len(amd.requests) == 1


def test_encoded_answer(amd, server):
    amd.next = [(200, {'Content-Encoding': 'gzip'})]
    fails(server, kds.KeyServerUnavailable, "encoding 'gzip'")


def test_large_answer(server):
    fails(server, kds.KeyServerRefusal, 'at most 7 bytes', max_size=7)


def test_endless_answer_is_cut(amd, server):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(bytes(65536))

    amd.next = [endless]
    fails(server, kds.KeyServerRefusal, 'at most 100 bytes')


def test_answer_that_breaks_off(amd, server):
    def broken(handler):
        handler.send(200, b'cont', {'Content-Length': '8'})
        handler.close_connection = True

    amd.next = [broken]
    assert server.get(PATH, 100) == b'contents'
    assert len(amd.requests) == 2


def test_silent_server(amd, server):
    amd.delay = 0.8
    started = time.monotonic()
    fails(server, kds.KeyServerUnavailable, 'no answer: ReadTimeout')
    assert time.monotonic() - started < 10
    assert len(amd.requests) == 4


def test_byte_by_byte(amd, tmp_path):
    def trickle(handler):
        handler.send_response(200)
        handler.send_header('Content-Length', '1000')
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b'x')
            handler.wfile.flush()
            time.sleep(0.05)

    amd.next = [trickle]
    server = kds.HttpServer(amd.url, timeout=0.5, deadline=0.6)
    started = time.monotonic()
    fails(server, kds.KeyServerUnavailable, 'takes longer than 0.6 s',
          max_size=2000)
    assert time.monotonic() - started < 5


def test_nobody_listens(clock):
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        port = listener.getsockname()[1]
    server = kds.HttpServer(f'http://127.0.0.1:{port}', sleep=clock.sleep,
                            clock=clock)
    fails(server, kds.KeyServerUnavailable, 'no answer: ConnectionError')
    assert len(clock.slept) == 3


def test_proxy_is_the_configured_one(amd, clock, monkeypatch):
    """The fake server stands in for the proxy."""
    monkeypatch.setenv('http_proxy', 'http://127.0.0.1:9')
    url = 'http://kds.invalid'
    amd.files[url + PATH] = b'by proxy'
    server = kds.HttpServer(url, proxy=amd.url, sleep=clock.sleep)
    assert server.get(PATH, 100) == b'by proxy'
    assert amd.requests == [url + PATH]


def test_proxy_of_the_environment_is_not_used(server, monkeypatch):
    monkeypatch.setenv('http_proxy', 'http://127.0.0.1:9')
    assert server.get(PATH, 100) == b'contents'


class TestTls:

    @pytest.fixture
    def ca_file(self, amd, tmp_path):
        """Turn the fake server to TLS; its self-signed certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(
            x509.NameOID.COMMON_NAME, 'localhost')])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name)
            .public_key(key.public_key()).serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(
                [x509.DNSName('localhost')]), critical=False)
            .sign(key, hashes.SHA256()))
        path = tmp_path / 'ca.pem'
        path.write_bytes(certificate.public_bytes(
            serialization.Encoding.PEM))
        keys = tmp_path / 'key.pem'
        keys.write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()))
        amd.files[PATH] = b'contents'
        amd.encrypt(path, keys)
        return str(path)

    def test_configured_ca(self, amd, clock, ca_file):
        server = kds.HttpServer(amd.url, ca_file=ca_file, sleep=clock.sleep)
        assert server.get(PATH, 100) == b'contents'

    def test_no_ca_vouches(self, amd, clock, ca_file):
        server = kds.HttpServer(amd.url, sleep=clock.sleep)
        fails(server, kds.KeyServerUnavailable, 'check the configured CA')
        assert clock.slept == []


class TestAskArk:

    @pytest.mark.parametrize(('generation', 'file'), [
        ('naples', 'ask_ark_naples.cert'), ('rome', 'ask_ark_rome.cert'),
        ('milan', 'ask_ark_milan.cert'), ('genoa', 'ask_ark_genoa.cert'),
        ('turin', 'ask_ark_prod_turin.cert')])
    def test_file_of_a_generation(self, amd, server, generation, file):
        amd.files['/' + file] = b'ask and ark'
        assert kds.fetch_ask_ark(server, generation) == b'ask and ark'

    @pytest.mark.parametrize('generation', roots.GENERATIONS)
    def test_is_refused_without_the_pin(self, amd, server, generation):
        root = f'virtee-sev/src/certs/sev/builtin/{generation}'
        real = b''.join(vectors.read(f'{root}/{name}.cert')
                        for name in ('ask', 'ark'))
        amd.next = [real, real[:-1] + bytes([real[-1] ^ 1]),
                    platforms.ask_ark(bits=4096)]
        assert roots.pinned_anchor(
            generation, kds.fetch_ask_ark(server, generation),
            amd.url).name == f'amd-{generation}'
        for _ in range(2):
            with pytest.raises(roots.AnchorRefused, match='has SHA-256'):
                roots.pinned_anchor(
                    generation, kds.fetch_ask_ark(server, generation),
                    amd.url)

    def test_large_file(self, amd, server):
        amd.files['/ask_ark_rome.cert'] = bytes(3201)
        with pytest.raises(kds.KeyServerRefusal, match='at most 3200'):
            kds.fetch_ask_ark(server, 'rome')
