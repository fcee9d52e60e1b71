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
DATA = {}


def load(data):
    image = firmware.Firmware.parse(data)
    DATA[image.sha256] = data
    return image


IMAGE = load(platforms.firmware())
OTHER_IMAGE = load(platforms.firmware(size=12288))


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
    memory = [DATA[image.sha256]]
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
    assert found.text == (
        'this measurement was presented before, by launch-3: measure and '
        'nonce are the same. A host that shows an old measurement has not '
        'measured this launch')


def test_replayed_nonce():
    old, evidence = measured(), measured(kernel=b'old')
    assert old.mnonce != evidence.mnonce
    shown = dataclasses.replace(evidence, mnonce=old.mnonce)
    known = dataclasses.replace(KNOWN, measurements={
        evidence.measure + bytes(16): 'launch-2',
        old.measure + old.mnonce: 'launch-3'})
    found = diagnose(shown, known=known)
    assert (found.category, found.checked) == ('measurement_replayed', 0)
    assert found.text == (
        'the nonce of this measurement was presented before, by launch-3, '
        'with another measure. A platform makes a new nonce each time: what '
        'the host shows is put together from two measurements, or made up')
    # The same measure is nothing by itself.
    assert diagnose(evidence, known=known).category == 'kernel_not_allowed'


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
    poor = load(platforms.firmware(hash_table=None))
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


# How many candidates KNOWN makes of LISTS: policy words that are one flag or
# any flags away, inputs of which one or any number differ.
ONE_FLAG, ANY_FLAGS, ONE_INPUT, ANY_INPUT = 6, 63, 7, 37
EVERYTHING = (1 + 1 + ONE_FLAG + ANY_INPUT + ANY_FLAGS +
              ONE_FLAG * ONE_INPUT + (1 + ANY_FLAGS) * (1 + ONE_INPUT))


class TestOrder:
    """How many were tried says what was tried before."""

    @pytest.mark.parametrize(('launched', 'checked'), [
        ({}, 1),
        ({'keys': OTHER_KEYS}, 2),
        ({'word': 0x3a}, 3),
        ({'word': 0x1b}, 2 + ONE_FLAG),
        ({'kernel': b'old'}, 3 + ONE_FLAG),
        ({'initrd': b'old'}, 4 + ONE_FLAG),
        ({'kernel': None}, 2 + ONE_FLAG + ONE_INPUT),
        # Each flag alone comes again.
        ({'word': 0x38}, 3 + ONE_FLAG + ONE_INPUT + ONE_FLAG),
        ({'word': 0x04}, 2 + ONE_FLAG + ONE_INPUT + ANY_FLAGS),
        ({'kernel': b'old', 'initrd': b'old'},
         3 + ONE_FLAG + ONE_INPUT + ANY_FLAGS),
        ({'kernel': b'old', 'word': 0x3a},
         3 + ONE_FLAG + ANY_INPUT + ANY_FLAGS),
        ({'keys': OTHER_KEYS, 'word': 0x04, 'kernel': None}, EVERYTHING),
        ({'kernel': b'stranger'}, EVERYTHING),
    ])
    def test_nearest_first(self, launched, checked):
        found = diagnose(measured(**launched))
        assert (found.checked, found.complete) == (checked, True)

    def test_nothing_is_tried_twice(self):
        known = diagnosis.Known(vcpus=(8,), cpu_signatures=(),
                                initial_states=())
        twice = dataclasses.replace(known, vcpus=(8, 8))
        evidence = measured(kernel=b'stranger', word=0x3f)
        assert diagnose(evidence, ES_LISTS, 0x3f, twice).checked == (
            diagnose(evidence, ES_LISTS, 0x3f, known).checked)

    def test_more_allowed_than_are_tried_first(self, monkeypatch):
        monkeypatch.setattr(expectation, 'MAX_DIGESTS', 1)
        lists = dataclasses.replace(LISTS, kernels=(KERNEL, sha256(b'old')))
        assert diagnose(measured(), lists).checked == 1
        found = diagnose(measured(kernel=b'old'), lists)
        assert (found.category, found.checked) == ('allowed', 3 + ONE_FLAG)

    def test_firmware_that_is_not_at_hand(self):
        found = diagnosis.diagnose(
            KEYS, launch_policy.LaunchPolicy.parse(0x3b),
            measured(image=OTHER_IMAGE), LISTS, [OTHER_IMAGE], KNOWN)
        assert (found.category, found.checked) == ('firmware_not_allowed', 1)


class TestBounds:

    def test_last_candidate(self):
        evidence = measured(initrd=b'old')
        enough = 4 + ONE_FLAG
        assert diagnose(evidence, max_candidates=enough).category == (
            'initrd_not_allowed')
        found = diagnose(evidence, max_candidates=enough - 1)
        assert found.category == 'measurement_mismatch'
        assert found.checked == enough - 1
        assert found.complete is False
        assert f'checked {enough - 1}, and there were more. ' in found.text

    def test_end_of_the_search(self):
        found = diagnose(measured(kernel=b'stranger'),
                         max_candidates=EVERYTHING)
        assert found.complete is True
        assert f'checked {EVERYTHING}. ' in found.text

    def test_looks_at_the_clock_now_and_then(self):
        times = iter((0, 0, 1.9, 2))
        found = diagnose(measured(kernel=b'stranger'),
                         clock=lambda: next(times), seconds=2)
        assert (found.checked, found.complete) == (128, False)
        assert next(times, None) is None

    def test_two_seconds(self):
        for now, complete in ((1.999, True), (2, False)):
            times = iter((0, now))
            found = diagnose(measured(), clock=lambda: next(times))
            assert (found.category == 'allowed') is complete
            assert found.complete is complete


class TestText:
    """What the guest's owner reads, and works with."""

    def test_allowed(self):
        assert diagnose(measured()).text == (
            'the measurement is of what the policy allows')

    def test_nothing_known(self):
        assert diagnose(measured(), known=None).category == 'allowed'
        found = diagnose(measured(initrd=b''), known=None)
        assert found.text == (
            f'the initrd is none but the policy allows {INITRD}')

    def test_what_has_no_name(self):
        found = diagnose(measured(kernel=b'old'))
        assert found.differences == (diagnosis.Difference(
            'kernel', f'vmlinuz-old (SHA-256 {sha256(b"old")})', (KERNEL,)),)

    def test_no_initrd_but_another_empty_file(self):
        empty = sha256(b'')
        found = diagnose(
            measured(kernel=b''),
            known=dataclasses.replace(KNOWN, kernels={empty: 'nothing'}))
        assert found.differences[0].found == f'nothing (SHA-256 {empty})'

    def test_nothing_allowed(self):
        difference = diagnosis.Difference('vcpus', '5', ())
        assert str(difference).endswith('is 5 but the policy allows none')
        difference = diagnosis.Difference('vcpus', '5', ('2', '4'))
        assert str(difference).endswith('is 5 but the policy allows 2 or 4')

    def test_every_difference_in_its_order(self):
        made = profile.LaunchProfile.sev_es(8, 'EPYC-Milan')
        found = diagnose(measured(word=0x3f, initrd=b'old', made=made),
                         ES_LISTS, 0x3f)
        assert [each.input for each in found.differences] == [
            'initrd', 'vcpus']
        assert found.text == '; '.join(map(str, found.differences))

    def test_profile_of_no_full_product(self):
        made = [profile.LaunchProfile.sev_es(1, 'EPYC-Milan', 'qemu-legacy'),
                profile.LaunchProfile.sev_es(2, 'EPYC-Milan', 'qemu-init2'),
                profile.LaunchProfile.sev_es(2, 'EPYC-Milan', 'qemu-legacy')]
        lists = dataclasses.replace(LISTS, profiles=tuple(made[:2]))
        difference, = diagnose(measured(made=made[2]), lists).differences
        assert difference == diagnosis.Difference(
            'launch_profile', str(made[2].claims()),
            (str(made[0].claims()), str(made[1].claims())))

    @pytest.mark.parametrize(('word', 'flags'), [
        (0x3a, 'NODBG is not set'), (0x3f, 'ES is set'),
        (0x3c, 'NODBG is not set, NOKS is not set, ES is set')])
    def test_policy_word(self, word, flags):
        assert diagnose(measured(word=word)).text == (
            f'the guest was launched with the policy word {word:#x} but the '
            f'session asks for 0x3b: {flags}')

    def test_flags_of_a_policy_with_a_minimum(self):
        found = diagnose(measured(word=0x3301003a), word=0x3301003b)
        assert found.text.endswith(
            'word 0x3301003a but the session asks for 0x3301003b: NODBG is '
            'not set')
        found = diagnose(measured(word=0x3a), word=0x3301003b)
        assert found.text.endswith(
            ': NODBG is not set, the minimum API version is 0.0')

    def test_old_api(self):
        word = 0x3301003b
        assert diagnose(measured(word=word, api=(1, 51)),
                        word=word).category == 'allowed'
        assert diagnose(measured(word=word, api=(1, 50)),
                        word=word).text == (
            'everything measured is allowed, but the platform runs SEV API '
            'version 1.50 and the policy asks for 1.51 or later')
