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

from concurrent import futures
import hashlib
import os
import threading

from nova_sev_attest.client import deadline as deadlines
from nova_sev_attest.virt import claims
from nova_sev_attest.virt import domain_xml
from tests.unit.virt import fakes

NO_HURRY = deadlines.Deadline(24 * 3600)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def domain(tmp_path):
    (tmp_path / 'kernel').write_bytes(b'k' * 3000000)
    (tmp_path / 'ramdisk').write_bytes(b'r')
    (tmp_path / 'firmware').write_bytes(b'f')
    return domain_xml.parse(
        fakes.DOMAIN.replace('/i/', f'{tmp_path}/').replace(
            '<loader secure="no" stateless="yes"/>',
            f'<loader>{tmp_path}/firmware</loader>'))


def test_all(tmp_path):
    assert claims.gather(domain(tmp_path), NO_HURRY, {}) == {
        'vcpus': 2,
        'firmware_sha256': sha256(b'f'),
        'kernel_sha256': sha256(b'k' * 3000000),
        'initrd_sha256': sha256(b'r'),
        'command_line_sha256': sha256(b'console=ttyS0\0'),
    }


def test_what_is_hashed_meanwhile_is_what_was_there(tmp_path):
    given = domain(tmp_path)
    begun = claims.begin(given, NO_HURRY)
    futures.wait(begun.values(), 30)
    (tmp_path / 'kernel').write_bytes(b'changed')
    found = claims.gather(given, NO_HURRY, begun)
    assert found['kernel_sha256'] == sha256(b'k' * 3000000)
    assert found['initrd_sha256'] == sha256(b'r')
    # Only an active domain names its firmware.
    assert found['firmware_sha256'] == sha256(b'f')


def test_what_could_not_be_hashed_meanwhile_is_left_out(tmp_path):
    given = domain(tmp_path)
    (tmp_path / 'kernel').unlink()
    begun = claims.begin(given, NO_HURRY)
    assert set(claims.gather(given, NO_HURRY, begun)) == {
        'vcpus', 'firmware_sha256', 'initrd_sha256', 'command_line_sha256'}


def test_nothing_to_hash_without_a_kernel(tmp_path):
    given = domain(tmp_path)
    for name in ('kernel', 'initrd'):
        given.find('os').remove(given.find(f'os/{name}'))
    assert claims.begin(given, NO_HURRY) == {}


def test_without_a_thread_all_is_hashed_later(tmp_path, monkeypatch):
    given = domain(tmp_path)

    def refuse(*_):
        raise RuntimeError('no more threads')

    monkeypatch.setattr(threading.Thread, 'start', refuse)
    begun = claims.begin(given, NO_HURRY)
    assert begun == {}
    assert claims.gather(given, NO_HURRY, begun)['kernel_sha256'] == (
        sha256(b'k' * 3000000))


def test_no_kernel_no_claims_about_one(tmp_path):
    given = domain(tmp_path)
    given.find('os').remove(given.find('os/kernel'))
    assert set(claims.gather(given, NO_HURRY, {})) == {
        'vcpus', 'firmware_sha256'}


def test_no_command_line_is_an_empty_one(tmp_path):
    given = domain(tmp_path)
    given.find('os').remove(given.find('os/cmdline'))
    assert claims.gather(given, NO_HURRY, {})['command_line_sha256'] == (
        sha256(b'\0'))


def test_files_that_cannot_be_read_are_left_out(tmp_path):
    given = domain(tmp_path)
    (tmp_path / 'kernel').unlink()
    (tmp_path / 'ramdisk').unlink()
    os.mkfifo(tmp_path / 'ramdisk')
    assert set(claims.gather(given, NO_HURRY, {})) == {
        'vcpus', 'firmware_sha256', 'command_line_sha256'}


def test_file_that_is_too_large_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, 'MAX_FILE', 2000000)
    found = claims.gather(domain(tmp_path), NO_HURRY, {})
    assert 'kernel_sha256' not in found and 'initrd_sha256' in found


def test_no_time_left(tmp_path):
    given = domain(tmp_path)
    assert set(claims.gather(given, deadlines.Deadline(0), {})) == {
        'vcpus', 'command_line_sha256'}
