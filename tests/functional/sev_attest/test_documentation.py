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

"""The commands of doc/source/sev_attest.rst, run in order.

tests/unit/doc/test_commands.py sees to it that none is left out.
"""

import base64
import hashlib
import json
import subprocess

import pytest

from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import vmsa
from tests import documented
from tests.functional.sev_attest import test_script
from tests.unit.launch import platforms

PAGE = 'doc/source/sev_attest.rst'
_CHIP = bytes(range(64)).hex()
# What the page stands for with "..." and with a variable of the shell, and
# the root of the tests' platforms in place of AMD's.
_VALUES = {'ask_ark_milan.cert': ['--anchor', 'emulated=ask_ark_milan.cert'],
           '$CPU0_ID': [_CHIP]}


def commands():
    """Each as its words after the program's name, as they can be run."""
    evidence = []
    for command in documented.of('sev-attest', page=PAGE):
        words = []
        for word in command.words[1:]:
            words += evidence if word == '...' else _VALUES.get(word, [word])
        if words[:2] == ['measurement', 'verify'] and not evidence:
            evidence = words[2:]
        yield words


@pytest.fixture
def folder(tmp_path):
    """What the owner has before the first command."""
    platform = platforms.platform()
    rules = {'trusted_roots': ['emulated'], 'min_api_version': '1.51',
             'min_build': 3, 'allowed_owners': None,
             'allowed_chips': [hashlib.sha256(platform.cek).hexdigest()]}
    files = {
        'pdh.cert': platform.pdh, 'cert-chain.bin': platform.cert_chain,
        'cek.cert': platform.cek, 'ask_ark_milan.cert': platforms.ask_ark(),
        'OVMF.amdsev.fd': platforms.firmware(),
        'OVMF.fd': platforms.firmware(), 'vmlinuz': b'kernel',
        'initrd.img': b'initrd', 'initrd-old.img': b'old initrd',
        'passphrase': b'open sesame', 'other_tik.bin': bytes(16),
        'rules.json': json.dumps(rules).encode()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / 'chips').mkdir()
    (tmp_path / 'chips' / f'{_CHIP}.cert').write_bytes(platform.cek)
    return tmp_path


class _Guest:
    """The guest that the host starts with the page's session."""

    def __init__(self, folder):
        self._folder = folder
        self._guest = platforms.platform().launch(*(
            base64.b64decode((folder / f'web_{name}.b64').read_bytes())
            for name in ('godh', 'session')), 0x3f)

    def measure(self, initrd):
        """Start it with an initrd; the file has the measurement."""
        image = platforms.firmware()
        self.measurement = self._guest.measure(
            image, kernel_hashes.KernelHashes.from_bytes(
                b'kernel', initrd, 'root=LABEL=root ro').table(),
            *vmsa.save_areas(
                vmsa.INIT2, 2, vmsa.cpu_signature(23, 1, 2),
                firmware.Firmware.parse(image).reset_eip))
        (self._folder / 'measurement.b64').write_bytes(
            base64.b64encode(self.measurement))

    def read_secrets(self):
        header, data = (
            base64.b64decode((self._folder / name).read_bytes())
            for name in ('header.b64', 'secret.b64'))
        table = self._guest.inject(header, data, self.measurement[:32])
        return [secret for _, secret in platforms.read_secret_table(table)]


def test_the_page(folder):
    guest = None
    done = []
    for words in commands():
        explained = words[:2] == ['launch', 'explain']
        if explained:
            guest.measure(b'old initrd')
        found = subprocess.run(
            [test_script.SCRIPT, *words, '-f', 'json'], cwd=folder,
            capture_output=True, timeout=60)
        assert found.returncode == (1 if explained else 0), (
            words, found.stderr)
        if words[:2] == ['session', 'create'] and guest is None:
            guest = _Guest(folder)
            guest.measure(b'initrd')
        if explained:
            assert json.loads(
                found.stdout)['category'] == 'initrd_not_allowed'
            guest.measure(b'initrd')
        if words[:2] == ['secret', 'pack']:
            assert guest.read_secrets() == [b'open sesame']
        done.append(' '.join(words[:2]))
    assert set(done) >= {'platform verify', 'session create',
                         'measurement verify', 'secret pack',
                         'launch explain', 'digest compute',
                         'firmware inspect'}
