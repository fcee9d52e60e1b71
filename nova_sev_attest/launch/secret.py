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

"""Launch secrets: the table that the guest reads, and its encryption.

The table's form is that of the Linux ``efi_secret`` module and of libvirt's
``virt-qemu-sev-validate``: GUID (EFI byte order), u32 length, then entries
of GUID, u32 length, data; lengths include their own 20-byte header. The
packet's form is that of LAUNCH_SECRET in the AMD SEV API specification
(publication 55766): a 52-byte header of flags (u32), IV[16] and

    HMAC-SHA256(TIK, 0x01 || flags || IV || guest length (u32) ||
                transport length (u32) || ciphertext || measure)

with the table encrypted by AES-128-CTR under the TEK. Packets are made by
:class:`nova_sev_attest.launch.machine.Verified` only.
"""

import dataclasses
import hashlib
import hmac
import struct
import uuid

from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers import modes

from nova_sev_attest.launch import errors

#: The entry that guest tools take a LUKS passphrase from.
LUKS_PASSPHRASE_GUID = uuid.UUID('736869e5-84f0-4973-92ec-06879ce3da0b')

HEADER_SIZE = 52
IV_SIZE = 16
#: The most that the platform's firmware takes in one packet.
MAX_SIZE = 16384
_ALIGNMENT = 16

_TABLE_GUID = uuid.UUID('1e74f542-71dd-4d66-963e-ef4287ff173b')
_ENTRY_HEADER = struct.Struct('<16sI')


def build_secret_table(secrets):
    """Build the table in clear.

    :param secrets: non-empty mapping of uuid.UUID to the secret's bytes; its
        order is kept.
    :returns: bytes, zero-padded to a multiple of 16.
    :raises SecretMalformed: no secret, an empty one, or a key of another
        type.
    :raises SecretTooLarge: more than 16384 bytes.
    """
    if not secrets:
        raise errors.SecretMalformed('a secret table needs a secret')
    size = _ENTRY_HEADER.size + sum(
        _ENTRY_HEADER.size + len(data) for data in secrets.values())
    padded = -(-size // _ALIGNMENT) * _ALIGNMENT
    if padded > MAX_SIZE:
        raise errors.SecretTooLarge(padded, MAX_SIZE)
    table = [_ENTRY_HEADER.pack(_TABLE_GUID.bytes_le, size)]
    for guid, data in secrets.items():
        if not isinstance(guid, uuid.UUID):
            raise errors.SecretMalformed(
                f'the GUID of a secret is a {type(guid).__name__}, expected '
                f'a uuid.UUID')
        if not data:
            raise errors.SecretMalformed(f'the secret under {guid} is empty')
        table.append(_ENTRY_HEADER.pack(guid.bytes_le,
                                        _ENTRY_HEADER.size + len(data)))
        table.append(data)
    return b''.join(table).ljust(padded, b'\0')


@dataclasses.dataclass(frozen=True)
class LaunchSecret:
    """An encrypted packet, for one launch only.

    :ivar header: 52 bytes; libvirt's ``sev-secret-header``, undecoded.
    :ivar data: ciphertext; libvirt's ``sev-secret``, undecoded.
    """

    header: bytes
    data: bytes

    def __post_init__(self):
        size = len(self.data)
        if (len(self.header) != HEADER_SIZE or size % _ALIGNMENT or
                not 0 < size <= MAX_SIZE):
            raise errors.SecretMalformed(
                f'a launch secret has a header of {HEADER_SIZE} bytes and a '
                f'non-zero multiple of {_ALIGNMENT} of at most {MAX_SIZE} '
                f'bytes of data; got {len(self.header)} and {size}')


def _encrypt(keys, measure, table, iv):
    # Private to the package: machine.Verified is the only caller.
    cipher = Cipher(algorithms.AES(keys.tek), modes.CTR(iv)).encryptor()
    data = cipher.update(table) + cipher.finalize()
    flags = bytes(4)  # not compressed
    size = struct.pack('<I', len(table))
    mac = hmac.digest(
        keys.tik, b'\x01' + flags + iv + size + size + data + measure,
        hashlib.sha256)
    return LaunchSecret(flags + iv + mac, data)
