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

"""The guest by itself, under plain QEMU: what it does with a bad world.

No OpenStack, libvirt or emulated platform: the test puts the launch secret
where the secure processor would, in the guest's memory before it runs.
"""

import hashlib
import json
import socket
import struct
import subprocess
import time
import uuid

import pytest

from devstack.lab import demo
from devstack.lab.guest import build as guest_build
from devstack.lab.guest import disk
from devstack.lab.guest import tree
from devstack.lab import owner as lab_owner
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import secret

_SECRET_AREA = 0x810000
_SECRET_SIZE = 0xc00
_HASH_TABLE = 0x810c00
_PARTITION = 1 << 20
_SECONDS = 60
# QEMU's own files for its virtual devices.
_DATA = ('usr/share/qemu', 'usr/share/seabios')


class Machine:
    """One boot of a guest.

    :ivar console: what it printed until it was off or ready.
    :ivar off: whether it switched itself off.
    :ivar secret_area: bytes at the secret's place, at the end.
    """

    def __init__(self, layout, guest, image, table, folder):
        self._hypervisor = tree.Tree(layout.compute_root)
        self._memory = folder / 'memory'
        self._log = folder / 'console'
        (folder / 'line').write_bytes(guest.command_line.encode() + b'\0')
        self._log.touch()
        ours, theirs = socket.socketpair()
        root = layout.compute_root
        qemu = self._hypervisor.command(
            'usr/bin/qemu-system-x86_64', '-nodefaults', '-S', '-no-reboot',
            '-display', 'none', '-m', '256', '-cpu', 'max',
            '-machine', 'q35,memory-backend=ram,accel=tcg',
            '-object', f'memory-backend-file,id=ram,size=256M,share=on,'
                       f'mem-path={self._memory}',
            '-drive', f'if=pflash,format=raw,readonly=on,'
                      f'file={demo.firmware_path(layout)}',
            '-drive', f'if=none,id=disk,format=raw,snapshot=on,file={image}',
            '-device', 'virtio-blk-pci,drive=disk',
            '-fw_cfg', f'name=etc/boot/kernel,file={guest.kernel}',
            '-fw_cfg', f'name=etc/boot/initrd,file={guest.initramfs}',
            '-fw_cfg', f'name=etc/boot/cmdline,file={folder / "line"}',
            '-serial', f'file:{self._log}',
            '-chardev', f'socket,id=qmp,fd={theirs.fileno()}',
            '-mon', 'chardev=qmp,mode=control',
            *(part for place in _DATA for part in ('-L', root / place)))
        with ours, subprocess.Popen(
                qemu, pass_fds=[theirs.fileno()],
                stderr=subprocess.PIPE) as process:
            theirs.close()
            try:
                self._boot(ours, guest, table)
                self._wait(process)
            finally:
                if process.poll() is None:
                    process.kill()
        with self._memory.open('rb') as memory:
            memory.seek(_SECRET_AREA)
            self.secret_area = memory.read(_SECRET_SIZE)
        self._memory.unlink()

    def _boot(self, monitor, guest, table):
        hashes = kernel_hashes.KernelHashes.from_bytes(
            guest.kernel.read_bytes(), guest.initramfs.read_bytes(),
            guest.command_line).table()
        monitor.settimeout(_SECONDS)
        with monitor.makefile('rw') as stream:
            assert 'QMP' in json.loads(stream.readline())
            for command in ('qmp_capabilities', 'cont'):
                if command == 'cont':
                    with self._memory.open('r+b') as memory:
                        for place, data in ((_HASH_TABLE, hashes),
                                            (_SECRET_AREA, table)):
                            memory.seek(place)
                            memory.write(data)
                stream.write(json.dumps({'execute': command}))
                stream.flush()
                answer = json.loads(stream.readline())
                assert 'error' not in answer, answer

    def _wait(self, process):
        deadline = time.monotonic() + _SECONDS
        while process.poll() is None:
            self.console = self._log.read_text(errors='replace')
            if 'marker-sha256: ' in self.console.rpartition('\n')[0]:
                self.off = False
                return
            assert time.monotonic() < deadline, self.console
            time.sleep(0.1)
        self.console = self._log.read_text(errors='replace')
        self.off = process.returncode == 0


@pytest.fixture
def start(layout, guest, tmp_path):
    """Boot the guest of this run; disk and passphrase may be others."""
    def boot(passphrase=guest.passphrase, image=guest.disk):
        table = b'' if passphrase is None else secret.build_secret_table(
            {uuid.UUID(lab_owner.LUKS_GUID): passphrase})
        return Machine(layout, guest, image, table, tmp_path)
    return boot


def _forge(guest, path, change):
    """Copy a guest's disk with another, well-formed LUKS2 header."""
    image = bytearray(guest.disk.read_bytes())
    size, = struct.unpack_from('>Q', image, _PARTITION + 8)
    # Two copies of the header, each with a checksum (LUKS2 On-Disk Format,
    # section 2.1).
    for start in (_PARTITION, _PARTITION + size):
        header = image[start:start + size]
        metadata = json.loads(header[4096:].rstrip(b'\0'))
        change(metadata)
        text = json.dumps(metadata).encode()
        header[4096:] = text.ljust(size - 4096, b'\0')
        header[448:512] = bytes(64)
        header[448:480] = hashlib.sha256(header).digest()
        image[start:start + size] = header
    path.write_bytes(image)
    return path


def _assert_off(machine, reason):
    assert f'guest: refused: {reason}' in machine.console
    assert machine.off
    assert 'marker-sha256' not in machine.console
    assert 'panic' not in machine.console.lower()
    assert machine.secret_area == bytes(_SECRET_SIZE)


def test_it_unlocks_its_disk_and_wipes_the_secret(start, guest):
    machine = start()
    assert f'marker-sha256: {guest.marker_sha256}' in machine.console
    assert machine.secret_area == bytes(_SECRET_SIZE)


def test_the_marker_and_the_passphrase_are_in_clear_nowhere(guest):
    clear = guest.passphrase
    for path in (guest.kernel, guest.initramfs, guest.disk):
        assert clear not in path.read_bytes()
    encrypted = guest.disk.read_bytes()[_PARTITION + disk.HEADER_SIZE:]
    assert b'marker-sha256' not in encrypted
    assert len(set(encrypted)) == 256


def test_without_a_secret_it_switches_off(start):
    _assert_off(start(passphrase=None), 'no disk passphrase')


def test_with_another_passphrase_it_switches_off(start):
    _assert_off(start(passphrase=b'0' * 64), 'the passphrase does not open')


def _null_cipher(metadata):
    metadata['segments']['0']['encryption'] = 'cipher_null-ecb'


def _null_keyslot(metadata):
    metadata['keyslots']['0']['area']['encryption'] = 'cipher_null-ecb'


def _reencryption(metadata):
    metadata['config']['requirements'] = {
        'mandatory': ['online-reencrypt-v2']}


@pytest.mark.parametrize('change, reason', [
    (_null_cipher, 'the LUKS2 header'),
    (_null_keyslot, 'the LUKS2 header'),
    # cryptsetup finds that one inconsistent by itself.
    (_reencryption, '/dev/vda1 is no LUKS2 volume'),
])
def test_with_a_disk_that_the_host_made_it_switches_off(
        start, guest, tmp_path, change, reason):
    image = _forge(guest, tmp_path / 'disk', change)
    _assert_off(start(image=image), reason)


def test_without_a_disk_it_switches_off(start, tmp_path):
    empty = tmp_path / 'disk'
    empty.write_bytes(bytes(1 << 20))
    _assert_off(start(image=empty), 'no disk')


def test_equal_packages_give_an_equal_initramfs(layout, guest, tmp_path):
    again = guest_build.build(layout.lab_dir, tmp_path)
    assert again.initramfs.read_bytes() == guest.initramfs.read_bytes()
    assert again.kernel.read_bytes() == guest.kernel.read_bytes()
    assert again.marker_sha256 != guest.marker_sha256
    assert again.disk.read_bytes() != guest.disk.read_bytes()
