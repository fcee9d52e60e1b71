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

"""AMD's servers: signed CEKs by chip id, and the ASK and ARK of a generation.

What they answer is not trusted here: whoever asks verifies the certificates.
The servers throttle, so an answer of 429 or 5xx is not asked again before the
time that it names, and a pause that does not fit into the request's own
deadline is written down for all processes of the service.

Sources: ``GET {url}/cek/id/{chip id in hexadecimal}`` as sevctl (virtee) uses
it; the names of the ASK and ARK files as AMD's SEV page lists them.
"""

import email.utils
import logging
import pathlib
import random
import time

import requests
import urllib3

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import errors
from nova_sev_attest.trust import files

LOG = logging.getLogger(__name__)

#: AMD's key server.
KEY_SERVER = 'https://kdsintf.amd.com'
#: Where AMD publishes the ASK and ARK of each generation.
ROOT_SERVER = 'https://download.amd.com/developer/eula/sev'

_ROOT_FILES = {generation: f'ask_ark_{generation}.cert'
               for generation in ('naples', 'rome', 'milan', 'genoa')}
_ROOT_FILES['turin'] = 'ask_ark_prod_turin.cert'
_MAX_ROOT_SIZE = 2 * 1600

_ATTEMPTS = 4
_BACK_OFF = 1.0  # seconds before the second attempt, doubled for each later
_PAUSE = 30.0  # seconds for a server that fails without naming a time
_MAX_PAUSE = 3600.0
_THROTTLED = frozenset((408, 425, 429, 500, 502, 503, 504))
_UNKNOWN = frozenset((400, 404, 410))
_CHUNK = 4096


class KeyServerUnavailable(errors.LaunchError):
    """AMD's server gives no answer now; later it may.

    :ivar code: ``key_server_unavailable``.
    """

    code = 'key_server_unavailable'


class KeyServerRefusal(errors.LaunchError):
    """AMD's server does not have what was asked for, or sends no such thing.

    :ivar code: ``key_server_refusal``.
    """

    code = 'key_server_refusal'


class _Failed(Exception):
    """An attempt failed.

    :ivar delay: seconds that the server asked for; None
    :ivar final: whether another attempt would fail alike
    """

    def __init__(self, what, delay=None, final=False):
        super().__init__(what)
        self.delay = delay
        self.final = final


class Pause:
    """The moment before which a server is not asked, for all processes.

    :param path: file that keeps it; None: it is kept in this object
    :param clock: seconds of wall-clock time, which processes share
    """

    def __init__(self, path=None, clock=time.time):
        self._path = path and pathlib.Path(path)
        self._clock = clock
        self._until = 0.0

    def remaining(self):
        """Seconds that the pause still lasts, at most an hour; 0.0: none."""
        if self._path is not None:
            try:
                self._until = float(files.read(self._path, 32))
            except FileNotFoundError:
                return 0.0
            except (OSError, ValueError) as exc:
                LOG.warning('%s is ignored: %s', self._path, exc)
        left = self._until - self._clock()
        # A clock that was set back must not pause for years.
        return left if 0.0 < left <= _MAX_PAUSE else 0.0

    def set(self, seconds):
        """Begin a pause of so many seconds."""
        self._until = self._clock() + seconds
        if self._path is not None:
            try:
                files.write(self._path, f'{self._until:.3f}'.encode())
            except OSError as exc:
                LOG.warning('Other processes do not learn of the pause: %s',
                            exc)


class HttpServer:
    """GET of small files, with patience and limits.

    Redirects are not followed, and proxy, CA and credentials come from the
    arguments alone, never from the environment.

    :param url: base of the addresses, without a slash at its end
    :param proxy: URL of an HTTP proxy; None
    :param ca_file: PEM file or folder of the CAs that may vouch for the
        server; None: the ones that requests brings
    :param timeout: seconds without a byte after which an attempt fails
    :param deadline: seconds for all attempts at one file; a server that
        dribbles the headers of its answer can exceed it, by ``timeout`` with
        each byte
    :param pause: Pause
    """

    def __init__(self, url, *, proxy=None, ca_file=None, timeout=5.0,
                 deadline=20.0, pause=None, sleep=time.sleep,
                 clock=time.monotonic):
        self.url = url.rstrip('/')
        self.deadline = deadline
        self._timeout = timeout
        self._proxies = {'http': proxy, 'https': proxy} if proxy else {}
        self._verify = ca_file or True
        self._pause = pause or Pause()
        self._sleep = sleep
        self._clock = clock

    def get(self, path, max_size):
        """The file at a path below the URL: bytes, at most ``max_size``.

        :raises KeyServerUnavailable: no usable answer in time, or the server
            asked for a pause that is not over
        :raises KeyServerRefusal: there is no such file; it is too large
        """
        end = self._clock() + self.deadline
        url = self.url + path
        self._sit_out(url, end)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._attempt(url, max_size, end)
            except _Failed as exc:
                delay = max(exc.delay or 0.0, _BACK_OFF * 2 ** (
                    attempt - 1) * random.uniform(1.0, 1.25))
                LOG.warning('%s: %s (attempt %d of %d).', url, exc, attempt,
                            _ATTEMPTS)
                if (exc.final or attempt == _ATTEMPTS
                        or self._clock() + delay >= end):
                    delay = exc.delay or _PAUSE
                    self._pause.set(delay)
                    raise KeyServerUnavailable(
                        f'{url}: {exc}; the server is not asked again for '
                        f'{delay:.0f} s') from exc
                if exc.delay:
                    self._pause.set(delay)
                self._sleep(delay)
        raise AssertionError('the last attempt returns or raises')

    def _sit_out(self, url, end):
        left = self._pause.remaining()
        if self._clock() + left >= end:
            raise KeyServerUnavailable(
                f'{url}: the server failed or asked for a pause; it is not '
                f'asked again for {left:.0f} s')
        if left:
            self._sleep(left)

    def _attempt(self, url, max_size, end):
        with requests.Session() as session:
            session.trust_env = False
            timeout = max(0.1, min(self._timeout, end - self._clock()))
            try:
                response = session.get(
                    url, stream=True, allow_redirects=False, timeout=timeout,
                    proxies=self._proxies, verify=self._verify,
                    headers={'Accept': '*/*', 'Accept-Encoding': 'identity'})
                with response:
                    self._check_status(url, response)
                    return self._read(url, response, max_size, end)
            except requests.exceptions.SSLError as exc:
                raise _Failed(
                    'its TLS certificate is not vouched for; check the '
                    'configured CA file', final=True) from exc
            except (requests.RequestException, OSError,
                    urllib3.exceptions.HTTPError) as exc:
                raise _Failed(f'no answer: {type(exc).__name__}') from exc

    @staticmethod
    def _check_status(url, response):
        status = response.status_code
        if status in _THROTTLED:
            raise _Failed(f'answers {status}', _retry_after(response))
        if status in _UNKNOWN:
            raise KeyServerRefusal(
                f'{url}: the server answers {status}: it does not have it')
        encoding = response.headers.get('Content-Encoding', 'identity')
        if status != 200 or encoding != 'identity':
            raise _Failed(
                f'expected an answer 200 as it is, got {status} in encoding '
                f'{encoding[:32]!r}; check the configured URL and proxy',
                final=True)

    def _read(self, url, response, max_size, end):
        data = bytearray()
        while True:
            # One system call at a time, so that a server that sends byte by
            # byte meets the deadline as well.
            chunk = response.raw.read1(_CHUNK)
            if not chunk:
                break
            data += chunk
            if len(data) > max_size:
                raise KeyServerRefusal(
                    f'{url}: expected at most {max_size} bytes, the server '
                    f'sends more')
            if self._clock() > end:
                raise _Failed(f'takes longer than {self.deadline} s')
        expected = response.headers.get('Content-Length', '')
        if expected.isascii() and expected.isdigit() and (
                int(expected[:9]) != len(data)):
            raise _Failed(f'the answer broke off after {len(data)} bytes')
        return bytes(data)


def _retry_after(response):
    """Seconds of a Retry-After header in either form, or None."""
    text = response.headers.get('Retry-After', '').strip()[:64]
    if text.isascii() and text.isdigit():
        return min(float(text), _MAX_PAUSE)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
    return min(max(moment - time.time(), 0.0), _MAX_PAUSE)


def fetch_cek(server, chip_id):
    """The CEK that AMD signed for a chip, unverified.

    :param server: HttpServer of the key server
    :param chip_id: as GET_ID of the SEV API gives it, 8 to 64 bytes
    :returns: SevCertificate of any usage
    :raises KeyServerUnavailable: no usable answer in time
    :raises KeyServerRefusal: AMD knows no such chip, or sends no certificate
    """
    data = server.get(f'/cek/id/{chip_id.hex()}',
                      certificates.SEV_CERTIFICATE_SIZE)
    try:
        return certificates.SevCertificate.parse(data)
    except errors.CertificateMalformed as exc:
        raise KeyServerRefusal(
            f'{server.url} sends no SEV certificate for chip '
            f'{chip_id.hex()}: {exc}') from exc


def fetch_ask_ark(server, generation):
    """AMD's ASK and ARK of a generation, unverified: ASK then ARK, bytes.

    :param server: HttpServer of AMD's download site
    :param generation: 'naples', 'rome', 'milan', 'genoa' or 'turin'
    :raises KeyServerUnavailable: no usable answer in time
    :raises KeyServerRefusal: there is no such file
    """
    return server.get('/' + _ROOT_FILES[generation], _MAX_ROOT_SIZE)
