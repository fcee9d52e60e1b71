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

"""The encrypted disk: a LUKS2 volume in the one partition of a small disk.

The volume is made without device-mapper, which a container may not have:
cryptsetup writes the header for a volume key that is chosen here, and the
payload is encrypted here the way dm-crypt would (aes-xts-plain64).

The disk is partitioned because Nova and Glance refuse an image that begins
with a LUKS header: their inspection knows LUKS as a format of QEMU's, and of
that only version 1.
"""

import os
import secrets
import struct

from cryptography.hazmat.primitives import ciphers
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers import modes

SECTOR = 512
# /init copies as much as this into memory as the header.
HEADER_SIZE = 1 << 20
_PARTITION_START = 1 << 20
_LINUX = 0x83
_KEY_SIZE = 64
# The passphrase is 256 random bits, so stretching it adds nothing but boot
# time; this is the least that cryptsetup accepts.
_ITERATIONS = 1000


def encrypt_sectors(key, plaintext):
    """Encrypt as dm-crypt's ``aes-xts-plain64`` with sectors of 512 bytes.

    The tweak of a sector is its number, 64 bits little-endian, from 0 at the
    start of the payload (cryptsetup's "On-Disk Format" for LUKS2, field
    ``iv_tweak`` 0).

    :param key: 64 bytes, both keys of AES-256-XTS.
    :param plaintext: a whole number of sectors.
    :raises ValueError: for any other key or length.
    """
    if len(key) != _KEY_SIZE:
        raise ValueError(f'AES-256-XTS has a key of {_KEY_SIZE} bytes, not '
                         f'{len(key)}')
    if len(plaintext) % SECTOR:
        raise ValueError(f'{len(plaintext)} bytes are no whole number of '
                         f'{SECTOR}-byte sectors')
    algorithm = algorithms.AES(key)
    ciphertext = bytearray()
    for number in range(len(plaintext) // SECTOR):
        tweak = struct.pack('<QQ', number, 0)
        encryptor = ciphers.Cipher(algorithm, modes.XTS(tweak)).encryptor()
        start = number * SECTOR
        ciphertext += encryptor.update(plaintext[start:start + SECTOR])
        ciphertext += encryptor.finalize()
    return bytes(ciphertext)


def make_volume(tools, payload, passphrase, scratch):
    """Make a LUKS2 volume that holds a payload.

    :param tools: runs programs of the guest's tree (:class:`tree.Tree`).
    :param payload: bytes, a whole number of sectors.
    :param passphrase: bytes.
    :param scratch: path of a file to make the volume in.
    :returns: the volume's bytes: header, then the encrypted payload.
    """
    key = secrets.token_bytes(_KEY_SIZE)
    scratch.write_bytes(bytes(HEADER_SIZE + len(payload)))
    # The key reaches cryptsetup through memory that has no name.
    key_file = os.memfd_create('volume-key')
    try:
        os.write(key_file, key)
        tools.run(
            'usr/sbin/cryptsetup', 'luksFormat', '--batch-mode',
            '--type', 'luks2', '--cipher', 'aes-xts-plain64',
            '--key-size', str(8 * _KEY_SIZE), '--hash', 'sha256',
            '--sector-size', str(SECTOR),
            '--pbkdf', 'pbkdf2', '--pbkdf-force-iterations',
            str(_ITERATIONS),
            '--luks2-metadata-size', '16k', '--luks2-keyslots-size', '512k',
            '--offset', str(HEADER_SIZE // SECTOR),
            '--volume-key-file', f'/proc/self/fd/{key_file}',
            '--key-file', '-', str(scratch),
            stdin=passphrase, keep=(key_file,))
    finally:
        os.close(key_file)
    header = scratch.read_bytes()[:HEADER_SIZE]
    return header + encrypt_sectors(key, payload)


def make_disk(volume):
    """Make a disk whose one partition is the volume.

    :param volume: bytes, a whole number of sectors.
    :returns: the disk's bytes: an MBR, a gap up to 1 MiB, the volume.
    """
    entry = struct.pack('<B3BB3BII', 0, 0xfe, 0xff, 0xff, _LINUX,
                        0xfe, 0xff, 0xff, _PARTITION_START // SECTOR,
                        len(volume) // SECTOR)
    mbr = bytes(446) + entry + bytes(48) + b'\x55\xaa'
    return mbr + bytes(_PARTITION_START - len(mbr)) + volume
