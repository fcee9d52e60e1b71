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

"""The identity of an emulated platform: its keys and certificates.

As on real platforms a root (ARK) signs a signing key (ASK), which signs the
key of each chip (CEK); chip and owner (OCA) sign the platform's endorsement
key (PEK), and that signs the Diffie-Hellman key (PDH) of which sessions are
made. All of it is made on first use and is worth nothing elsewhere. Keys
whose work is done are forgotten: only the ASK's (for further chips) and the
PDH's are stored, readable by root only.

A folder of keys holds::

    ask_ark.cert         ASK then ARK, AMD's format: the anchor to name
    ask.pem
    chips/<name>/        pdh.cert  cert_chain.cert  chip_id  pdh.pem
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import shutil
import tempfile

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives import serialization

from nova_sev_attest.emulator import certificates

# What the emulated firmware says it is.
API = (1, 51)
BUILD = 3
_RSA_BITS = 4096
_ANCHOR = 'ask_ark.cert'
_Usage = certificates.Usage


@dataclasses.dataclass(frozen=True)
class Platform:
    """One chip, ready to launch guests.

    :ivar pdh: certificate of the Diffie-Hellman key, 2084 bytes.
    :ivar cert_chain: certificates of PEK, OCA and CEK, 6252 bytes.
    :ivar chip_id: 64 bytes.
    """

    pdh: bytes
    cert_chain: bytes
    chip_id: bytes
    key: ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)


def open_platform(folder, chip='chip0'):
    """Read a chip's identity; make it, and the root, when missing.

    :param folder: where keys are kept; made when missing.
    :param chip: name of the chip: hosts with the same folder and other
        names are chips of the same root.
    """
    folder = pathlib.Path(folder)
    home = folder / 'chips' / chip
    (folder / 'chips').mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if not (folder / _ANCHOR).exists():
            _make_root(folder)
        if not home.exists():
            _make_chip(folder, home)
    return Platform(
        pdh=(home / 'pdh.cert').read_bytes(),
        cert_chain=(home / 'cert_chain.cert').read_bytes(),
        chip_id=(home / 'chip_id').read_bytes(),
        key=_load_key(home / 'pdh.pem'))


def _make_root(folder):
    ark, ask = (rsa.generate_private_key(65537, _RSA_BITS)
                for _ in range(2))
    ark_id, ask_id = os.urandom(16), os.urandom(16)
    anchor = (
        certificates.amd_certificate(_Usage.ASK, ask.public_key(), ask_id,
                                     ark_id, ark)
        + certificates.amd_certificate(_Usage.ARK, ark.public_key(), ark_id,
                                       ark_id, ark))
    _store_key(folder / 'ask.pem', ask)
    # Last, and at once: its presence says that the root is complete.
    fresh = folder / f'.{_ANCHOR}'
    fresh.write_bytes(anchor)
    fresh.rename(folder / _ANCHOR)


def _make_chip(folder, home):
    ask = _load_key(folder / 'ask.pem')
    cek, oca, pek, pdh = (ec.generate_private_key(ec.SECP384R1())
                          for _ in range(4))

    def certificate(usage, private, *signers):
        return certificates.sev_certificate(usage, private.public_key(), API,
                                            signers)

    chain = (
        certificate(_Usage.PEK, pek, (_Usage.OCA, oca), (_Usage.CEK, cek))
        + certificate(_Usage.OCA, oca, (_Usage.OCA, oca))
        + certificate(_Usage.CEK, cek, (_Usage.ASK, ask)))
    fresh = pathlib.Path(tempfile.mkdtemp(dir=home.parent, prefix='.'))
    try:
        (fresh / 'pdh.cert').write_bytes(
            certificate(_Usage.PDH, pdh, (_Usage.PEK, pek)))
        (fresh / 'cert_chain.cert').write_bytes(chain)
        (fresh / 'chip_id').write_bytes(os.urandom(64))
        _store_key(fresh / 'pdh.pem', pdh)
        fresh.chmod(0o755)
        fresh.rename(home)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _store_key(path, key):
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption())
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, 'wb') as out:
        out.write(data)


def _load_key(path):
    return serialization.load_pem_private_key(path.read_bytes(), None)


@contextlib.contextmanager
def _locked(folder):
    with (folder / '.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
