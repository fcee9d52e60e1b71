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

"""The table of kernel hashes that QEMU adds to the launch digest.

With ``kernel-hashes=on`` QEMU puts the SHA-256 of kernel, initrd and command
line into a table in the firmware's hash-table area and has it measured; the
firmware then refuses other ones. QEMU ``target/i386/sev.c``,
``sev_add_kernel_loader_hashes``. Table: GUID, u16 length 168, then an entry
for each hash: GUID, u16 length 50, 32 bytes. GUIDs have the EFI (mixed)
byte order. 8 zero bytes pad it to 176.
"""

import dataclasses
import hashlib
import struct
import uuid

from nova_sev_attest.launch import errors

TABLE_SIZE = 176

_TABLE = uuid.UUID('9438d606-4f22-4cc9-b479-a793d411fd21')
_COMMAND_LINE = uuid.UUID('97d02dd8-bd20-4c94-aa78-e7714d36ab2a')
_INITRD = uuid.UUID('44baf731-3a2f-4bd7-9af1-41e29169781d')
_KERNEL = uuid.UUID('4de79437-abd2-427f-b835-d5b172d2045b')

_HASH_SIZE = 32
_HEADER = struct.Struct('<16sH')

#: What stands for a kernel without an initrd.
NO_INITRD_SHA256 = hashlib.sha256(b'').digest()


def command_line_sha256(text):
    """Hash a kernel command line as QEMU does, with its closing NUL.

    :param text: str. The empty one stands for no command line, too.
    :returns: 32 bytes.
    :raises KernelHashesMalformed: the text holds a NUL or is no Unicode.
    """
    if '\0' in text:
        raise errors.KernelHashesMalformed(
            'a kernel command line cannot hold a NUL character')
    try:
        data = text.encode('utf-8')
    except UnicodeEncodeError:
        raise errors.KernelHashesMalformed(
            'the kernel command line cannot be written as UTF-8') from None
    return hashlib.sha256(data + b'\0').digest()


@dataclasses.dataclass(frozen=True)
class KernelHashes:
    """The three hashes, each 32 bytes.

    :ivar kernel_sha256: of the kernel file.
    :ivar initrd_sha256: of the initrd; without one, of nothing.
    :ivar command_line_sha256: see :func:`command_line_sha256`.
    """

    kernel_sha256: bytes
    initrd_sha256: bytes
    command_line_sha256: bytes

    def __post_init__(self):
        for field in dataclasses.fields(self):
            size = len(getattr(self, field.name))
            if size != _HASH_SIZE:
                raise errors.KernelHashesMalformed(
                    f'{field.name} has {_HASH_SIZE} bytes, got {size}')

    @classmethod
    def from_bytes(cls, kernel, initrd=None, command_line=''):
        """Hash a kernel.

        :param kernel: the kernel file's bytes.
        :param initrd: the initrd's bytes, or None.
        :param command_line: str.
        """
        return cls(hashlib.sha256(kernel).digest(),
                   hashlib.sha256(initrd or b'').digest(),
                   command_line_sha256(command_line))

    @classmethod
    def from_digests(cls, kernel_sha256, initrd_sha256=None, command_line=''):
        """Use hashes made elsewhere.

        :param kernel_sha256: of the kernel's file, 32 bytes.
        :param initrd_sha256: of the initrd's file, 32 bytes; None: there is
            no initrd.
        :param command_line: text, exactly as the guest gets it.
        :raises KernelHashesMalformed: a hash of another size, or a command
            line that has no hash.
        """
        return cls(kernel_sha256,
                   NO_INITRD_SHA256 if initrd_sha256 is None
                   else initrd_sha256,
                   command_line_sha256(command_line))

    def table(self):
        """The padded table, 176 bytes."""
        entries = b''.join(
            _HEADER.pack(guid.bytes_le, _HEADER.size + _HASH_SIZE) + value
            for guid, value in (
                (_COMMAND_LINE, self.command_line_sha256),
                (_INITRD, self.initrd_sha256),
                (_KERNEL, self.kernel_sha256)))
        table = _HEADER.pack(_TABLE.bytes_le,
                             _HEADER.size + len(entries)) + entries
        return table.ljust(TABLE_SIZE, b'\0')
