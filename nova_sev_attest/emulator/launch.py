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

"""The launch commands of the secure processor, for one guest.

AMD "Secure Encrypted Virtualization API", chapter 6. No files, sockets or
clocks: bytes in, bytes out.

The order is that of the guest's states, and nothing can be done out of it::

    start -> update, update_vmsa -> measure -> secret... -> finish
             LAUNCH_UPDATE          LAUNCH_SECRET           RUNNING
"""

import enum
import hashlib
import hmac
import os
import struct

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers import modes

from nova_sev_attest.emulator import certificates

SESSION_SIZE = 128
SECRET_HEADER_SIZE = 52
# The longest packet that LAUNCH_SECRET takes, in bytes.
SECRET_LIMIT = 16384
_SECRET_UNIT = 16
_KEY_SIZE = 16
_SESSION = struct.Struct('<16s32s16s32s32s')
_SECRET_HEADER = struct.Struct('<I16s32s')
_LAUNCH_MEASURE = b'\x04'
_LAUNCH_SECRET = b'\x01'
VMSA_SIZE = 4096


class State(enum.StrEnum):
    """States of a guest, in QEMU's words."""

    UNINIT = 'uninit'
    LAUNCH_UPDATE = 'launch-update'
    LAUNCH_SECRET = 'launch-secret'
    RUNNING = 'running'


class Policy(enum.IntFlag):
    """The low bits of a guest's policy word."""

    NODBG = 1 << 0
    NOKS = 1 << 1
    ES = 1 << 2
    NOSEND = 1 << 3
    DOMAIN = 1 << 4
    SEV = 1 << 5


class Status(enum.IntEnum):
    """The status codes that a command fails with."""

    INVALID_GUEST_STATE = 0x02
    INVALID_LENGTH = 0x04
    INVALID_CERTIFICATE = 0x06
    POLICY_FAILURE = 0x07
    BAD_MEASUREMENT = 0x0B
    UNSUPPORTED = 0x15
    INVALID_PARAM = 0x16


class CommandError(Exception):
    """The secure processor refused a command.

    :ivar status: a :class:`Status`.
    """

    def __init__(self, status, why):
        super().__init__(f'{status.name} ({status:#x}): {why}')
        self.status = status


def derive(key, label, context=b'', size=_KEY_SIZE):
    """SP 800-108 in counter mode with HMAC-SHA256.

    :param size: bytes to derive, at most 32 (one block). Counter and length
        (in bits) are 32-bit and little-endian, which is AMD's reading.
    """
    block = (struct.pack('<I', 1) + label + b'\0' + context
             + struct.pack('<I', size * 8))
    return _mac(key, block)[:size]


def _mac(key, *parts):
    return hmac.new(key, b''.join(parts), hashlib.sha256).digest()


def _aes_ctr(key, iv, data):
    # A counter's stream is the same in both directions.
    stream = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
    return stream.update(data) + stream.finalize()


class Launch:
    """One guest from LAUNCH_START on.

    :param platform_key: the platform's Diffie-Hellman private key (PDH).
    :param api: (major, minor) of the firmware.
    :param build: build of the firmware.
    """

    def __init__(self, platform_key, api, build):
        self._platform_key = platform_key
        self._api = api
        self._build = build
        self._contents = hashlib.sha256()
        self._transport_key = self._integrity_key = None
        self._measurement = None
        self.state = State.UNINIT
        self.policy = 0

    @property
    def digest(self):
        """SHA-256 of all that was put into the guest so far, 32 bytes."""
        return self._contents.digest()

    @property
    def encrypted_state(self):
        """Whether the guest is an SEV-ES guest."""
        return bool(self.policy & Policy.ES)

    def start(self, policy, owner=None, session=None):
        """LAUNCH_START.

        :param policy: the guest's policy word.
        :param owner: the guest owner's certificate, 2084 bytes. Without it
            and the session the platform makes keys that nobody knows.
        :param session: the owner's session, 128 bytes.
        :raises CommandError: the certificate is no P-384 ECDH key, a MAC of
            the session is wrong, or the platform cannot keep the policy.
        """
        self._expect(State.UNINIT)
        needs = ((policy >> 16) & 0xff, (policy >> 24) & 0xff)
        if needs > self._api:
            raise CommandError(
                Status.POLICY_FAILURE,
                f'the policy wants API {needs[0]}.{needs[1]} or newer, this '
                f'platform has {self._api[0]}.{self._api[1]}')
        if (owner is None) != (session is None):
            raise CommandError(Status.INVALID_PARAM,
                               'certificate and session go together')
        if session is None:
            keys = os.urandom(2 * _KEY_SIZE)
        else:
            keys = self._unwrap(policy, owner, session)
        self._transport_key, self._integrity_key = (keys[:_KEY_SIZE],
                                                    keys[_KEY_SIZE:])
        self.policy = policy
        self.state = State.LAUNCH_UPDATE

    def _unwrap(self, policy, owner, session):
        try:
            public = certificates.owner_key(owner)
        except certificates.CertificateError as error:
            raise CommandError(Status.INVALID_CERTIFICATE,
                               str(error)) from error
        if len(session) != SESSION_SIZE:
            raise CommandError(
                Status.INVALID_LENGTH,
                f'{len(session)} bytes where a session has {SESSION_SIZE}')
        nonce, wrapped, iv, wrap_mac, policy_mac = _SESSION.unpack(session)
        shared = self._platform_key.exchange(ec.ECDH(), public)
        master = derive(shared, b'sev-master-secret', nonce)
        if not hmac.compare_digest(
                _mac(derive(master, b'sev-kik'), wrapped), wrap_mac):
            raise CommandError(
                Status.BAD_MEASUREMENT,
                'the session is damaged, or was made for another platform')
        keys = _aes_ctr(derive(master, b'sev-kek'), iv, wrapped)
        if not hmac.compare_digest(
                _mac(keys[_KEY_SIZE:], struct.pack('<I', policy)),
                policy_mac):
            raise CommandError(
                Status.BAD_MEASUREMENT,
                f'the session was made for another policy than {policy:#x}')
        return keys

    def update(self, data):
        """LAUNCH_UPDATE_DATA: the digest goes on over data."""
        self._expect(State.LAUNCH_UPDATE)
        if not data or len(data) % _SECRET_UNIT:
            raise CommandError(
                Status.INVALID_LENGTH,
                f'{len(data)} bytes are no multiple of {_SECRET_UNIT}')
        self._contents.update(data)

    def update_vmsa(self, page):
        """LAUNCH_UPDATE_VMSA: a vCPU's initial registers, 4096 bytes."""
        self._expect(State.LAUNCH_UPDATE)
        if not self.encrypted_state or len(page) != VMSA_SIZE:
            raise CommandError(Status.INVALID_PARAM,
                               'only SEV-ES guests have VMSAs, of 4096 bytes')
        self._contents.update(page)

    def measure(self):
        """LAUNCH_MEASURE.

        :returns: 48 bytes, the HMAC over the digest and a fresh nonce, and
            the nonce.
        """
        self._expect(State.LAUNCH_UPDATE)
        nonce = os.urandom(16)
        self._measurement = _mac(
            self._integrity_key, _LAUNCH_MEASURE,
            bytes((*self._api, self._build)), struct.pack('<I', self.policy),
            self.digest, nonce)
        self.state = State.LAUNCH_SECRET
        return self._measurement + nonce

    def secret(self, header, data):
        """LAUNCH_SECRET.

        :param header: 52 bytes: flags, IV and MAC.
        :param data: ciphertext, at most 16384 bytes.
        :returns: the plaintext, for the guest's memory only.
        :raises CommandError: the MAC is not by this launch's owner for this
            launch's measurement.
        """
        self._expect(State.LAUNCH_SECRET)
        if (len(header) != SECRET_HEADER_SIZE or not data
                or len(data) > SECRET_LIMIT or len(data) % _SECRET_UNIT):
            raise CommandError(
                Status.INVALID_LENGTH,
                f'a secret has a header of {SECRET_HEADER_SIZE} bytes and up '
                f'to {SECRET_LIMIT} bytes, a multiple of {_SECRET_UNIT}; got '
                f'{len(header)} and {len(data)}')
        flags, iv, mac = _SECRET_HEADER.unpack(header)
        length = struct.pack('<I', len(data))
        expected = _mac(
            self._integrity_key, _LAUNCH_SECRET, struct.pack('<I', flags),
            iv, length, length, data, self._measurement)
        if not hmac.compare_digest(expected, mac):
            raise CommandError(
                Status.BAD_MEASUREMENT,
                "the secret's MAC is not made for this launch")
        if flags:
            raise CommandError(Status.UNSUPPORTED,
                               f'flags {flags:#x}: compressed secrets are '
                               f'not supported')
        return _aes_ctr(self._transport_key, iv, data)

    def finish(self):
        """LAUNCH_FINISH: from now on the guest runs, and takes nothing."""
        self._expect(State.LAUNCH_SECRET)
        self._transport_key = self._integrity_key = None
        self.state = State.RUNNING

    def _expect(self, state):
        if self.state != state:
            raise CommandError(
                Status.INVALID_GUEST_STATE,
                f'the guest is in state {self.state}, the command is for '
                f'{state}')
