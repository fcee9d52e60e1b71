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

import dataclasses
import hashlib

import pytest

from nova_sev_attest.launch import diagnosis
from nova_sev_attest.launch import expectation
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import profile
from nova_sev_attest.launch import session
from tests.unit.launch import platforms

KEYS = session.TransportKeys(b'e' * 16, b'i' * 16)
OTHER_KEYS = session.TransportKeys(b'E' * 16, b'I' * 16)
IMAGE = firmware.Firmware.parse(platforms.firmware())
OTHER_IMAGE = firmware.Firmware.parse(platforms.firmware(size=12288))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


KERNEL, INITRD = sha256(b'kernel'), sha256(b'initrd')
KNOWN = diagnosis.Known(
    firmwares={OTHER_IMAGE.sha256.hex(): 'OVMF-2.fd'},
    kernels={sha256(b'old'): 'vmlinuz-old'},
    initrds={INITRD: 'initrd-new', sha256(b'old'): 'initrd-old'},
    command_lines=('debug',),
    sessions={'launch-7': OTHER_KEYS})
LISTS = expectation.Lists((IMAGE.sha256.hex(),), (KERNEL,), (INITRD,),
                          ('quiet',))
ES_LISTS = dataclasses.replace(
    LISTS, profiles=profile.combinations('amd-sev-es', (2, 4),
                                         ('EPYC-Milan',)))


def measured(keys=KEYS, word=0x3b, image=IMAGE, kernel=b'kernel',
             initrd=b'initrd', line='quiet', made=None, api=(1, 51)):
    """Evidence of a platform that launched this."""
    memory = [image.data]
    if kernel is not None:
        memory.append(kernel_hashes.KernelHashes.from_bytes(
            kernel, initrd, line).table())
    memory += [] if made is None else made.save_areas(image)
    guest = platforms.Guest(keys.tek, keys.tik, word)
    return measurement.Evidence.parse(guest.measure(*memory, api=api),
                                      *api, 3)


def diagnose(evidence, lists=LISTS, word=0x3b, known=KNOWN, **bounds):
    return diagnosis.diagnose(
        KEYS, launch_policy.LaunchPolicy.parse(word), evidence, lists,
        [IMAGE, OTHER_IMAGE], known, **bounds)


def test_initrd_by_name():
    found = diagnose(measured(initrd=b'old'))
    assert found.category == 'initrd_not_allowed'
    assert found.summary == 'initrd not allowed by the policy'
    assert found.text == (
        f'the initrd is initrd-old (SHA-256 {sha256(b"old")}) but the policy '
        f'allows initrd-new (SHA-256 {INITRD})')
    assert [each.input for each in found.differences] == ['initrd']
    assert found.checked > 1 and found.complete


@pytest.mark.parametrize(('launched', 'category', 'text'), [
    ({'image': OTHER_IMAGE}, 'firmware_not_allowed', 'OVMF-2.fd'),
    ({'kernel': b'old'}, 'kernel_not_allowed', 'vmlinuz-old'),
    ({'kernel': None}, 'kernel_not_allowed', 'no measured kernel'),
    ({'initrd': b''}, 'initrd_not_allowed', 'the initrd is none'),
    ({'line': 'debug'}, 'command_line_not_allowed', "is 'debug' but"),
    ({'line': ''}, 'command_line_not_allowed', "is '' but"),
    ({'word': 0x33}, 'policy_word_mismatch', 'NOSEND is not set'),
    ({'word': 0x1}, 'policy_word_mismatch', 'SEV is not set'),
    ({'word': 0x3f}, 'policy_word_mismatch', 'ES is set'),
    ({'keys': OTHER_KEYS}, 'wrong_session', 'launch-7'),
    ({'keys': OTHER_KEYS, 'word': 0x33}, 'wrong_session', 'launch-7'),
    ({'kernel': b'old', 'initrd': b'old'}, 'kernel_not_allowed',
     'initrd-old'),
    ({'image': OTHER_IMAGE, 'kernel': None}, 'firmware_not_allowed',
     'no measured kernel'),
    ({'initrd': b'old', 'word': 0x3a}, 'initrd_not_allowed',
     'NODBG is not set'),
])
def test_one_or_two_things_differ(launched, category, text):
    found = diagnose(measured(**launched))
    assert found.category == category
    assert text in found.text


@pytest.mark.parametrize(('made', 'category', 'text'), [
    ((8, 'EPYC-Milan'), 'vcpus_not_allowed', 'is 8 but'),
    ((2, 'EPYC-Rome'), 'cpu_signature_not_allowed', 'EPYC-Rome'),
    ((4, 'EPYC-Milan', 'qemu-legacy'), 'launch_profile_not_allowed',
     'is qemu-legacy-1 but the policy allows qemu-init2-1'),
    ((3, 'EPYC-Milan', 'qemu-legacy'), 'vcpus_not_allowed', 'qemu-legacy-1'),
])
def test_sev_es(made, category, text):
    found = diagnose(measured(word=0x3f,
                              made=profile.LaunchProfile.sev_es(*made)),
                     ES_LISTS, 0x3f)
    assert found.category == category
    assert text in found.text


def test_profiles_that_are_no_full_product():
    lists = dataclasses.replace(LISTS, profiles=(
        profile.LaunchProfile.sev_es(1, 'EPYC-Milan', 'qemu-legacy'),
        profile.LaunchProfile.sev_es(2, 'EPYC-Milan', 'qemu-init2')))
    made = profile.LaunchProfile.sev_es(2, 'EPYC-Milan', 'qemu-legacy')
    found = diagnose(measured(made=made), lists)
    assert found.category == 'launch_profile_not_allowed'


def test_policy_for_both_technologies():
    lists = dataclasses.replace(LISTS, profiles=(
        profile.LaunchProfile.sev(), *ES_LISTS.profiles))
    made = profile.LaunchProfile.sev_es(4, 'EPYC-Milan')
    assert diagnose(measured(), lists).category == 'allowed'
    assert diagnose(measured(made=made), lists).category == 'allowed'
    made = profile.LaunchProfile.sev_es(5, 'EPYC-Milan')
    found = diagnose(measured(made=made), lists)
    assert found.category == 'vcpus_not_allowed'
    assert found.text == (
        'the number of vCPUs is 5 but the policy allows 2 or 4')
    assert diagnose(measured(initrd=b'old'), lists).category == (
        'initrd_not_allowed')


def test_every_category_has_its_summary():
    for category in diagnosis._SUMMARIES:
        found = diagnosis.Diagnosis(category, 'for the owner')
        assert found.summary and 'owner' not in found.summary


def test_allowed():
    found = diagnose(measured())
    assert (found.category, found.checked) == ('allowed', 1)
    assert found.differences == ()


def test_old_api():
    found = diagnose(measured(word=0x3733013b, api=(1, 50)),
                     word=0x3733013b & ~0xff00)
    assert found.category == 'measurement_mismatch'
    word = launch_policy.LaunchPolicy.for_technology('amd-sev', (1, 51)).word
    found = diagnose(measured(word=word, api=(1, 50)), word=word)
    assert found.category == 'api_version_too_old'
    assert '1.50' in found.text and '1.51' in found.text


def test_minimum_that_was_left_out():
    word = launch_policy.LaunchPolicy.for_technology('amd-sev', (1, 51)).word
    found = diagnose(measured(word=0x3b), word=word)
    assert found.category == 'policy_word_mismatch'
    assert 'minimum API version is 0.0' in found.text


def test_replay():
    evidence = measured()
    known = dataclasses.replace(
        KNOWN, measurements={evidence.measure + evidence.mnonce: 'launch-3'})
    found = diagnose(evidence, known=known)
    assert found.category == 'measurement_replayed'
    assert 'launch-3' in found.text


def test_nothing_known_matches():
    found = diagnose(measured(kernel=b'stranger'))
    assert found.category == 'measurement_mismatch'
    assert found.text.startswith('no known combination matches; checked ')
    assert str(found.checked) in found.text and found.checked > 50
    assert found.complete


def test_policy_that_allows_nothing():
    found = diagnose(measured(), expectation.Lists(),
                     known=dataclasses.replace(
                         KNOWN, firmwares={IMAGE.sha256.hex(): 'OVMF.fd'},
                         kernels={KERNEL: 'vmlinuz'},
                         command_lines=('quiet',)))
    assert found.category == 'firmware_not_allowed'
    assert 'allows none' in found.text


def test_bounded_by_number():
    found = diagnose(measured(kernel=b'stranger'), max_candidates=10)
    assert found.checked <= 10
    assert not found.complete
    assert 'and there were more' in found.text


def test_bounded_by_time():
    now = iter(range(1000))
    found = diagnose(measured(kernel=b'stranger'), clock=lambda: next(now),
                     seconds=2)
    assert not found.complete
    assert 0 < found.checked <= 128


def test_firmware_that_cannot_be_launched_so_is_passed_over():
    poor = firmware.Firmware.parse(platforms.firmware(hash_table=None))
    known = dataclasses.replace(KNOWN,
                                firmwares={poor.sha256.hex(): 'poor.fd'})
    found = diagnosis.diagnose(
        KEYS, launch_policy.LaunchPolicy.parse(0x3b),
        measured(image=poor, kernel=None), LISTS, [IMAGE, poor], known)
    assert found.category == 'firmware_not_allowed'
    assert 'poor.fd' in found.text


def test_summary_names_no_value():
    for launched in ({'initrd': b'old'}, {'image': OTHER_IMAGE},
                     {'line': 'debug'}, {'keys': OTHER_KEYS}):
        found = diagnose(measured(**launched))
        for secret in ('initrd-', 'OVMF-2', 'debug', 'launch-7', INITRD,
                       'quiet'):
            assert secret not in found.summary + found.category


def test_keys_are_not_shown():
    assert 'launch-7' not in repr(KNOWN)
