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

"""The CEK that AMD signed for a chip.

A host's own copy of its CEK is usually not signed by AMD. The signed one is
looked for by the chip's id in the operator's folder, in the cache, and last
on AMD's key server. Each candidate is verified before it is used or kept:
an ASK signed it, and its key signed the PEK that the host shows. The host
chooses which chip it names; it cannot choose what is found under that name.

The cache's files are laid out like the operator's, so a cache can be carried
to a site without a network. Certificates in it do not expire.
"""

import hashlib
import logging
import pathlib
import time

import filelock

from nova_sev_attest.launch import bundle
from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import errors
from nova_sev_attest.trust import files
from nova_sev_attest.trust import kds

LOG = logging.getLogger(__name__)

CHIP_ID_SIZES = range(8, 65)
_SUFFIXES = ('.cert', '.cek')
_NOTE = '.refused'
_NOTE_SIZE = 1000


class ChipRefused(errors.VerificationError):
    """No CEK that fits is to be had for a chip.

    :ivar code: ``chip_refused``.
    """

    code = 'chip_refused'


class ChipStoreUnusable(errors.LaunchError):
    """A folder of CEKs cannot be read or written.

    :ivar code: ``chip_store_unusable``.
    """

    code = 'chip_store_unusable'


class ChipCertificates:
    """Finds signed CEKs; safe for several threads and processes.

    :param anchors: chain.Anchor objects whose ASKs may have signed a CEK
    :param store: the operator's folder, with one or more CEKs of each chip
        as ``<chip id in hexadecimal>.cert`` or ``.cek``; None
    :param cache: a folder to write to; None: nothing is asked of the server
    :param server: kds.HttpServer of the key server; None
    :param remember_refusal: seconds for which the server is not asked again
        about a chip that it has no fitting CEK for
    """

    def __init__(self, anchors, *, store=None, cache=None, server=None,
                 remember_refusal=60.0):
        self._anchors = list(anchors)
        self._store = store and pathlib.Path(store)
        self._cache = cache and pathlib.Path(cache)
        self._server = server if cache else None
        self._remember_refusal = remember_refusal

    def get(self, chip_id, pek, may_ask=True):
        """The signed CEK of a chip.

        :param chip_id: 8 to 64 bytes
        :param pek: the PEK that the host shows, a SevCertificate
        :param may_ask: whether the server may be asked, too
        :returns: SevCertificate
        :raises ChipRefused: there is none, or what is there does not fit
        :raises ChipStoreUnusable: a folder cannot be used
        :raises kds.KeyServerUnavailable: the server gives no answer now
        """
        if len(chip_id) not in CHIP_ID_SIZES:
            raise ChipRefused(
                f'a chip id has 8 to 64 bytes, this has {len(chip_id)}')
        name = chip_id.hex()
        for folder in filter(None, (self._store, self._cache)):
            found = self._look_up(folder, name, pek)
            if found is not None:
                return found
        if self._server is None or not may_ask:
            raise ChipRefused(
                f'the platform\'s CEK is not known here with AMD\'s '
                f'signature. Put it into the folder [trust] '
                f'chip_certificates as {name}.cert, or let [trust] '
                f'key_server name AMD\'s key server')
        try:
            return self._ask_once(chip_id, pek)
        except OSError as exc:
            raise ChipStoreUnusable(
                f'the cache of chip certificates cannot be used: '
                f'{exc}') from exc

    def _look_up(self, folder, name, pek):
        """A CEK of a folder; None when it has none of that name."""
        refusals = []
        for suffix in _SUFFIXES:
            path = folder / (name + suffix)
            try:
                data = files.read(path, bundle.MAX_FILE_SIZE)
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise ChipStoreUnusable(f'{path}: {exc}') from exc
            try:
                cek = _read_cek(path, data)
                self._check(cek, pek, str(path))
                return cek
            except (errors.FormatError, ChipRefused) as exc:
                refusals.append(str(exc))
        if refusals:
            raise ChipRefused(
                f'{"; ".join(refusals)}. Nothing else is tried for chip '
                f'{name} until the file is replaced or removed')
        return None

    def _check(self, cek, pek, origin):
        """Hold a CEK to AMD's signature and to the host's PEK."""
        if not any(_signed(cek, anchor.ask) for anchor in self._anchors):
            raise ChipRefused(
                f'{origin}: the certificate is no CEK signed by the ASK of a '
                f'trusted root')
        if not _signed(pek, cek):
            raise ChipRefused(
                f'{origin}: this CEK did not sign the host\'s PEK: the host '
                f'names another chip\'s id, or the file is another chip\'s')

    def _ask_once(self, chip_id, pek):
        """Ask the server, unless another process has done so meanwhile."""
        self._cache.mkdir(mode=0o755, parents=True, exist_ok=True)
        name = chip_id.hex()
        try:
            with self._lock(chip_id):
                found = self._look_up(self._cache, name, pek)
                if found is None:
                    self._heed_note(name)
                    found = self._ask(chip_id, pek)
                return found
        except filelock.Timeout as exc:
            raise kds.KeyServerUnavailable(
                f'others are still asking for the CEK of chip {name}; try '
                f'again later') from exc

    def _lock(self, chip_id):
        # A chip has one lock always, but there are only so many: hosts that
        # make up ids cannot fill the disk with locks.
        number = hashlib.sha256(chip_id).digest()[0]
        return filelock.FileLock(self._cache / f'{number:02x}.lock',
                                 timeout=2 * self._server.deadline)

    def _ask(self, chip_id, pek):
        name = chip_id.hex()
        try:
            cek = kds.fetch_cek(self._server, chip_id)
            self._check(cek, pek, f'{self._server.url}, chip {name}')
        except (kds.KeyServerRefusal, ChipRefused) as exc:
            self._prune_notes()
            files.write(self._cache / (name + _NOTE),
                        str(exc).encode()[:_NOTE_SIZE])
            raise ChipRefused(str(exc)) from exc
        files.write(self._cache / (name + _SUFFIXES[0]), cek.to_bytes())
        LOG.info('The CEK of chip %s was had from %s; its SHA-256 is %s.',
                 name, self._server.url, cek.sha256.hex())
        return cek

    def _heed_note(self, name):
        path = self._cache / (name + _NOTE)
        try:
            text = files.read(path, _NOTE_SIZE).decode(errors='replace')
            age = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            return
        if 0 <= age < self._remember_refusal:
            raise ChipRefused(
                f'{text} (asked {age:.0f} s ago; asked again after '
                f'{self._remember_refusal:.0f} s)')

    def _prune_notes(self):
        oldest = time.time() - self._remember_refusal
        for path in self._cache.glob('*' + _NOTE):
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
            except FileNotFoundError:
                continue  # another process pruned it


def from_conf(conf, anchors):
    """ChipCertificates as the group [trust] of the configuration says.

    :param conf: that group
    :param anchors: chain.Anchor objects whose ASKs may have signed a CEK
    """
    server = None
    if conf.key_server:
        pathlib.Path(conf.chip_cache).mkdir(
            mode=0o755, parents=True, exist_ok=True)
        server = kds.HttpServer(
            conf.key_server, proxy=conf.key_server_proxy,
            ca_file=conf.key_server_ca_file, timeout=conf.key_server_timeout,
            deadline=conf.key_server_deadline,
            pause=kds.Pause(pathlib.Path(conf.chip_cache) / 'pause'))
    return ChipCertificates(anchors, store=conf.chip_certificates,
                            cache=conf.chip_cache, server=server)


def _read_cek(path, data):
    found = bundle.Bundle.read({str(path): data})
    try:
        return found.get(certificates.Usage.CEK)
    except bundle.BundleIncomplete:
        raise ChipRefused(
            f'{path} holds {found.recognised[str(path)]}, expected a '
            f'CEK') from None


def _signed(certificate, issuer):
    try:
        certificate.verify_issued_by(issuer)
    except errors.CertificateVerificationError:
        return False
    return True
