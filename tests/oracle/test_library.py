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

"""Launches whose owner is virtee's sev library, the one that sevctl uses.

It and ours share no code, and neither does the emulated platform with either:
what all three agree on about chain, ECDH, key derivation, GODH certificate,
session, measurement and launch secret is no belief of one.
"""

import os
import random
import subprocess

import pytest

from devstack.lab import layout as lab_layout
from nova_sev_attest.emulator import launch as emulated_launch
from nova_sev_attest.emulator import platform as emulated_platform
from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import owner as owner_uploads
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import secret
from nova_sev_attest.launch import session
from nova_sev_attest.trust import roots
from tests.differential import cases
from tests.oracle import library

SEED = 20260303
#: As large as edk2's builds have it.
AREA = firmware.Area(0x810000, 0xc00)
COUNT = int(os.environ.get('NOVA_SEV_ATTEST_ORACLE_LAUNCHES', '200'))


class Owner:
    """The Rust program, kept running."""

    def __init__(self, program):
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True)

    def ask(self, *words):
        """The answer's words, bytes; None when it refused."""
        self._process.stdin.write(' '.join(
            word.hex() if isinstance(word, bytes) else str(word)
            for word in words) + '\n')
        self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        assert answer, 'the owner ended'
        if answer[0] == 'error':
            return None
        return [bytes.fromhex(word) for word in answer]

    def start(self, policy, whole_chain):
        return self.ask('start', int(policy.flags), *policy.min_api,
                        whole_chain)

    def close(self):
        self._process.stdin.close()
        assert self._process.wait(10) == 0
        self._process.stdout.close()


@pytest.fixture(scope='module')
def owner():
    lab = lab_layout.Layout.from_environment()
    try:
        program = library.build(lab.lab_dir / 'oracle',
                                lab.cache / 'oracle')
    except library.OracleError as error:
        pytest.skip(f'the oracle cannot be built here: {error}')
    made = Owner(program)
    yield made
    made.close()


@pytest.fixture(scope='module')
def platforms(tmp_path_factory):
    """Three chips: a leading zero of Z comes with one in 256 launches."""
    folder = tmp_path_factory.mktemp('keys')
    return [(folder / 'ask_ark.cert',
             emulated_platform.open_platform(folder, f'chip{number}'))
            for number in range(3)]


def whole_chain(anchor, platform):
    return platform.pdh + platform.cert_chain + anchor.read_bytes()


def random_policy(rng):
    return launch_policy.LaunchPolicy(
        launch_policy.Flag(rng.randrange(64)),
        rng.choice(((0, 0), (0, 24), (1, 0), (1, rng.randrange(52)))))


def test_launches_of_the_librarys(owner, platforms):
    rng = random.Random(SEED)
    for number in range(COUNT):
        what = f'seed {SEED}, launch {number}'
        anchor, platform = rng.choice(platforms)
        policy = random_policy(rng)
        godh, buffer, tek, tik = owner.start(
            policy, whole_chain(anchor, platform))
        # The GODH certificate is one that ours would make, but for what it
        # does not set: the room that an RSA key would take holds whatever
        # was in its memory, most often in the first one of a process, and
        # sevctl makes one in each. What goes to the host has zeros there.
        given = owner_uploads.read_session(godh, buffer)
        parsed = certificates.SevCertificate.parse(given.godh_certificate)
        assert certificates.SevCertificate.for_exchange(
            parsed.public_key()) == parsed, what
        guest = emulated_launch.Launch(platform.key, emulated_platform.API,
                                       emulated_platform.BUILD)
        # The platform takes either.
        guest.start(policy.word, rng.choice((godh, given.godh_certificate)),
                    given.session)
        guest.update(rng.randbytes(4096))
        blob = guest.measure()
        # Ours verifies the same evidence under the library's keys.
        keys = session.TransportKeys(tek, tik)
        evidence = measurement.Evidence.parse(
            blob, *emulated_platform.API, emulated_platform.BUILD)
        assert measurement.verify_measurement(
            keys, policy, evidence, [guest.digest]) == guest.digest, what
        entries = cases.secrets(rng, secret.LUKS_PASSPHRASE_GUID)
        entries = {guid: data[:1024] for guid, data in entries.items()}
        table = secret.build_secret_table(entries)
        header, ciphertext = owner.ask(
            'finish', guest.digest, *emulated_platform.API,
            emulated_platform.BUILD, blob, table)
        ours = secret._encrypt(keys, evidence.measure, table,
                               iv=header[4:20])
        assert (ours.header, ours.data) == (header, ciphertext), what
        assert owner_uploads.read_secret(header, ciphertext, AREA) == ours
        assert guest.secret(header, ciphertext) == table, what
    print(f'{COUNT} launches, seed {SEED}')


def test_the_library_refuses_what_ours_refuses(owner, platforms):
    (anchor, platform), (_, other), _ = platforms
    policy = launch_policy.LaunchPolicy.for_technology('amd-sev')
    good = whole_chain(anchor, platform)
    anchors = roots.load_anchors(extra=[f'emulated={anchor}'])
    assert owner.start(policy, good) is not None
    for bad in (other.pdh + good[len(other.pdh):],
                good[:3000] + bytes([good[3000] ^ 1]) + good[3001:],
                platform.pdh + other.cert_chain + anchor.read_bytes()):
        assert owner.start(policy, bad) is None
        with pytest.raises(errors.LaunchError):
            chain.PlatformCertificates.from_libvirt(
                bad[:2084], bad[2084:4 * 2084]).verify(anchors)


def test_a_wrong_measurement_gets_no_packet(owner, platforms):
    anchor, platform = platforms[0]
    policy = launch_policy.LaunchPolicy.for_technology('amd-sev')
    godh, buffer, *_ = owner.start(policy, whole_chain(anchor, platform))
    guest = emulated_launch.Launch(platform.key, emulated_platform.API,
                                   emulated_platform.BUILD)
    guest.start(policy.word, godh, buffer)
    guest.update(bytes(4096))
    assert owner.ask('finish', bytes(32), *emulated_platform.API,
                     emulated_platform.BUILD, guest.measure(),
                     bytes(16)) is None
