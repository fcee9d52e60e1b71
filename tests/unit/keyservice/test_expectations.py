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

import hashlib

import hypothesis
from hypothesis import strategies
import pytest

from nova_sev_attest.keyservice import expectations
from nova_sev_attest.keyservice.objects import policies
from nova_sev_attest.launch import expectation
from nova_sev_attest.launch import firmware as launch_firmware
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import vmsa
from tests.unit.launch import platforms

IMAGE = platforms.firmware()
FIRMWARE = hashlib.sha256(IMAGE).hexdigest()
OTHER_IMAGE = platforms.firmware(size=12288)
OTHER_FIRMWARE = hashlib.sha256(OTHER_IMAGE).hexdigest()
IMAGES = {FIRMWARE: launch_firmware.Firmware.parse(IMAGE),
          OTHER_FIRMWARE: launch_firmware.Firmware.parse(OTHER_IMAGE)}
KERNELS = ['%064x' % number for number in range(2)]
INITRDS = ['%064x' % number for number in range(2, 5)]


def content(**changes):
    return policies.Content(**({
        'name': 'x', 'technologies': ['amd-sev'], 'trusted_roots': [],
        'firmwares': [FIRMWARE], 'kernels': KERNELS, 'initrds': INITRDS,
        'command_lines': ['a', 'b'], 'vcpus': None, 'firmware_boot': False,
        'min_api_version': None, 'secrets': {}, 'is_default': False,
    } | changes))


def digest(image, kernel=None, initrd=None, command_line=''):
    """A launch digest from first principles."""
    table = b''
    if kernel is not None:
        table = kernel_hashes.KernelHashes(
            bytes.fromhex(kernel),
            bytes.fromhex(initrd) if initrd else hashlib.sha256(b'').digest(),
            hashlib.sha256(command_line.encode() + b'\0').digest()).table()
    return hashlib.sha256(image + table).digest()


def sev_es(**changes):
    """Content that allows SEV-ES launches of one kernel."""
    return content(**({
        'technologies': ['amd-sev-es'], 'kernels': KERNELS[:1],
        'initrds': [], 'command_lines': ['a'], 'vcpus': [1, 2],
        'cpu_models': ['EPYC-Milan'], 'cpu_signatures': [0x60fb1],
        'launch_profiles': ['qemu-legacy-1']} | changes))


def allowed(content, technology='amd-sev', images=IMAGES):
    return expectation.expected_digests(
        expectations.lists(content, technology), images.values())


def test_every_combination_and_no_other():
    every = content(firmwares=[FIRMWARE, OTHER_FIRMWARE], firmware_boot=True)
    expected = {digest(image) for image in (IMAGE, OTHER_IMAGE)} | {
        digest(image, kernel, initrd, line)
        for image in (IMAGE, OTHER_IMAGE) for kernel in KERNELS
        for initrd in INITRDS for line in 'ab'}
    assert set(allowed(every)) == expected
    assert len(expected) == 26 == expectations.count(every)
    found = allowed(every)[digest(IMAGE, KERNELS[1], INITRDS[0], 'b')]
    assert found == expectation.Inputs(
        FIRMWARE, KERNELS[1], INITRDS[0],
        hashlib.sha256(b'b\0').hexdigest())


@pytest.mark.parametrize('changes', [
    {'kernels': []}, {'kernels': [], 'initrds': [], 'command_lines': []},
    {'firmwares': []}, {'firmwares': ['0' * 64]}])
def test_nothing_is_allowed(changes):
    assert allowed(content(**changes)) == {}


def test_no_initrds_means_none():
    without = content(initrds=[], kernels=KERNELS[:1], command_lines=[''])
    assert set(allowed(without)) == {digest(IMAGE, KERNELS[0])}


def save_areas(vcpus, signature, state='qemu-legacy-1'):
    return vmsa.save_areas(vmsa.PROFILES[state], vcpus, signature,
                           IMAGES[FIRMWARE].reset_eip)


def es_digest(vcpus, signature, state='qemu-legacy-1', kernel=KERNELS[0]):
    table = kernel_hashes.KernelHashes(
        bytes.fromhex(kernel), hashlib.sha256(b'').digest(),
        hashlib.sha256(b'a\0').digest()).table()
    return hashlib.sha256(
        IMAGE + table
        + b''.join(save_areas(vcpus, signature, state))).digest()


def test_every_vcpu_is_in_the_digests_of_sev_es():
    expected = {es_digest(vcpus, signature)
                for vcpus in (1, 2) for signature in (0xa00f11, 0x60fb1)}
    assert set(allowed(sev_es(), 'amd-sev-es')) == expected
    assert expectations.count(sev_es()) == 4
    assert expectations.count_save_areas(sev_es()) == 6


def test_each_technology_has_digests_of_its_own():
    both = sev_es(technologies=['amd-sev', 'amd-sev-es'])
    plain = allowed(both)
    assert set(plain) == {digest(IMAGE, KERNELS[0], None, 'a')}
    assert not set(plain) & set(allowed(both, 'amd-sev-es'))
    assert expectations.count(both) == 5
    assert expectations.count_save_areas(both) == 6
    assert expectations.count_save_areas(content()) == 0


@pytest.mark.parametrize('changes', [
    {'vcpus': None}, {'vcpus': []}, {'launch_profiles': []},
    {'cpu_models': [], 'cpu_signatures': []}])
def test_what_is_not_listed_allows_no_sev_es(changes):
    assert allowed(sev_es(**changes), 'amd-sev-es') == {}
    assert expectations.count(sev_es(**changes)) == 0


def test_revisions_from_before_sev_es_allow_none():
    assert allowed(content(), 'amd-sev-es') == {}


def candidates(claims, images=IMAGES):
    return expectations.candidates(content(), 'amd-sev', claims, images)


def test_candidates_from_claims():
    claims = {'firmware_sha256': FIRMWARE, 'kernel_sha256': KERNELS[0]}
    assert set(candidates(claims)) == {digest(IMAGE, KERNELS[0])}
    assert set(candidates({})) == {digest(IMAGE), digest(OTHER_IMAGE)}
    claims['firmware_sha256'] = '0' * 64
    assert set(candidates(claims)) == {
        digest(IMAGE, KERNELS[0]), digest(OTHER_IMAGE, KERNELS[0])}


def test_candidates_with_firmware_that_measures_no_kernel():
    image = platforms.firmware(hash_table=None)
    images = {'0' * 64: launch_firmware.Firmware.parse(image)}
    assert candidates({'kernel_sha256': KERNELS[0]}, images) == {}


_ES_CLAIMS = {
    'firmware_sha256': FIRMWARE, 'kernel_sha256': KERNELS[0],
    'command_line_sha256': hashlib.sha256(b'a\0').hexdigest()}


def es_word(digest, claims, **changes):
    """What a launch with a digest is denied for, None if unexplained."""
    policy = sev_es(**changes)
    found = expectations.candidates(
        policy, 'amd-sev-es', _ES_CLAIMS | claims, IMAGES)
    return digest in found and expectations.difference(
        policy, found[digest]).word


def test_claimed_vcpus_explain():
    measured = es_digest(4, 0xa00f11)
    assert es_word(measured, {'vcpus': 4}) == 'vcpus_not_allowed'
    assert not es_word(measured, {'vcpus': 3})
    # Not claimed: those that the policy allows are tried.
    assert not es_word(measured, {})
    assert es_word(es_digest(2, 0xa00f11), {},
                   vcpus=[2]) == 'measurement_mismatch'


def test_cpu_models_and_profiles_are_tried():
    assert es_word(es_digest(1, 0x800f12),
                   {'vcpus': 1}) == 'cpu_model_not_allowed'
    assert es_word(es_digest(1, 0x60fb1, 'qemu-init2-1'),
                   {'vcpus': 1}) == 'launch_profile_not_allowed'
    # The first that differs is named.
    assert es_word(es_digest(4, 0x800f12, 'qemu-init2-1'),
                   {'vcpus': 4}) == 'vcpus_not_allowed'


def test_differences_of_sev_es_are_for_the_owner():
    policy = sev_es()
    found = expectations.candidates(
        policy, 'amd-sev-es', _ES_CLAIMS | {'vcpus': 4}, IMAGES)
    denial = expectations.difference(
        policy, found[es_digest(4, 0x800f12)])
    assert denial.owner == {'allowed': {
        'vcpus': [1, 2], 'cpu_signatures': [0xa00f11, 0x60fb1]}}
    assert 'number of vCPUs' in denial.detail
    assert '[1, 2]' not in denial.detail


def test_what_is_hashed_for_claims_is_bounded(monkeypatch):
    hashed = []
    compute = expectation.Inputs.digest
    monkeypatch.setattr(
        expectation.Inputs, 'digest', lambda inputs, firmware: (
            hashed.append(inputs.profile.vcpus), compute(inputs, firmware)
        )[1])
    many = sev_es(cpu_signatures=list(range(1, 65)))
    expectations.candidates(many, 'amd-sev-es',
                            _ES_CLAIMS | {'vcpus': 4096}, IMAGES)
    assert 0 < sum(hashed) <= expectations.MAX_SAVE_AREAS


def test_difference_names_the_first():
    def word(**changes):
        inputs = {'firmware_sha256': FIRMWARE, 'kernel_sha256': KERNELS[0],
                  'initrd_sha256': INITRDS[0],
                  'command_line_sha256': hashlib.sha256(b'a\0').hexdigest()}
        return expectations.difference(
            content(), expectation.Inputs(**(inputs | changes))).word

    assert word() == 'measurement_mismatch'
    other = 'f' * 64
    assert word(command_line_sha256=other) == 'command_line_not_allowed'
    assert word(command_line_sha256=other,
                initrd_sha256=other) == 'initrd_not_allowed'
    assert word(initrd_sha256=other,
                kernel_sha256=other) == 'kernel_not_allowed'
    assert word(kernel_sha256=other,
                firmware_sha256=other) == 'firmware_not_allowed'
    assert word(kernel_sha256=None) == 'kernel_not_allowed'


def _lists_of(values):
    return strategies.lists(strategies.sampled_from(values), unique=True,
                            max_size=2)


PARTS = strategies.builds(
    policies.Rescue, kernels=strategies.none() | _lists_of(KERNELS),
    initrds=strategies.none() | _lists_of(INITRDS),
    command_lines=strategies.none() | _lists_of(['a', 'b', '']),
    secrets=strategies.dictionaries(
        strategies.sampled_from(['g', 'h']),
        strategies.sampled_from(['one', 'two'])))
CONTENTS = strategies.builds(
    content, kernels=_lists_of(KERNELS), initrds=_lists_of(INITRDS),
    command_lines=_lists_of(['a', 'b', '']),
    firmwares=strategies.sampled_from([[], [FIRMWARE]]),
    firmware_boot=strategies.booleans(),
    secrets=strategies.dictionaries(
        strategies.sampled_from(['g', 'i']),
        strategies.sampled_from(['two', 'three'])),
    rescue=strategies.none() | PARTS,
    technologies=strategies.sampled_from(
        [['amd-sev'], ['amd-sev-es'], ['amd-sev', 'amd-sev-es']]),
    vcpus=strategies.sampled_from([None, [1]]),
    cpu_models=strategies.just(['EPYC-v4']),
    launch_profiles=strategies.just(['qemu-legacy-1']))


@hypothesis.given(CONTENTS)
def test_what_is_said_of_each_purpose(content):
    boot, rescue = (content.of(purpose)
                    for purpose in (policies.BOOT, policies.RESCUE))
    part = content.rescue or policies.Rescue()
    assert boot == content
    # Its own secrets only, and everything else that is not its own.
    assert rescue.secrets == part.secrets
    for name in ('kernels', 'initrds', 'command_lines'):
        own = getattr(part, name)
        assert getattr(rescue, name) == (
            getattr(content, name) if own is None else own)
    for name in ('firmwares', 'firmware_boot', 'trusted_roots', 'limits',
                 'technologies', 'approval', 'verifier', 'allowed_chips'):
        assert getattr(rescue, name) == getattr(content, name)
    assert content.secret_ids() == {
        *boot.secrets.values(), *rescue.secrets.values()}
    # What is no boot gets nothing of a boot's, whatever it is called.
    assert content.of('anything').secrets == part.secrets
    assert policies.Content._from_body(content._body()) == content


@hypothesis.given(CONTENTS)
def test_what_coincides(content):
    """Held to the sets of launches themselves."""
    rescue = content.of(policies.RESCUE)
    both = [set(expectations.lists(content, technology).inputs())
            & set(expectations.lists(rescue, technology).inputs())
            for technology in content.technologies]
    assert expectations.coincide(content, rescue) == any(both)
