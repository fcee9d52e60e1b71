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

"""Launches of SEV-ES guests: their vCPUs are measured, too."""

import pytest

from nova_sev_attest.launch import firmware as launch_firmware
from nova_sev_attest.launch import vmsa
from tests.functional.keyservice import harness
from tests.functional.keyservice.harness import error
from tests.unit.launch import platforms

_MILAN = vmsa.cpu_signature(25, 1, 1)
_QEMU64 = vmsa.cpu_signature(15, 107, 1)
_EPYC = vmsa.cpu_signature(23, 1, 2)
_POLICY = {'technologies': ['amd-sev-es'], 'vcpus': [1, 2],
           'cpu_models': ['EPYC-Milan'], 'cpu_signatures': [_QEMU64],
           'launch_profiles': ['qemu-legacy-1']}


def save_areas(vcpus, signature=_MILAN, state=vmsa.LEGACY):
    image = launch_firmware.Firmware.parse(platforms.firmware())
    return vmsa.save_areas(state, vcpus, signature, image.reset_eip)


@pytest.fixture
def start(keyservice):
    """Start a guest of a technology under a policy; returns its host."""
    def begin(technology='amd-sev-es', **changes):
        keyservice.policy(**_POLICY | changes)
        host = harness.Host(keyservice, technology=technology)
        host.launch()
        return host

    return begin


@pytest.mark.parametrize('vcpus, signature', [(1, _MILAN), (2, _QEMU64)])
def test_what_is_allowed_is_released(start, vcpus, signature):
    host = start()
    assert host.guest.policy_word == 0x3f
    evidence = host.measure(save_areas=save_areas(vcpus, signature))
    response = host.send(evidence, host.claims())
    assert response.status_code == 200, response.text
    assert list(host.inject(response.json()['release'],
                            evidence).values()) == [harness.PASSPHRASE]
    verdict = host.show()['verdict']
    assert {name: verdict[name] for name in (
        'technology', 'policy_word', 'vcpus', 'cpu_signature',
        'launch_profile')} == {
            'technology': 'amd-sev-es', 'policy_word': 63, 'vcpus': vcpus,
            'cpu_signature': signature, 'launch_profile': 'qemu-legacy-1'}


@pytest.mark.parametrize('measured, claimed, code, allowed', [
    ((4,), 4, 'vcpus_not_allowed', {'vcpus': [1, 2]}),
    ((2, _EPYC), 2, 'cpu_model_not_allowed',
     {'cpu_signatures': [_MILAN, _QEMU64]}),
    ((2, _MILAN, vmsa.INIT2), 2, 'launch_profile_not_allowed',
     {'launch_profiles': ['qemu-legacy-1']}),
    # Only what the measurement confirms counts, not the claim.
    ((4,), 2, 'vcpus_not_allowed', None),
    ((4,), 3, 'vcpus_not_allowed', None),
])
def test_denial_says_what_differs(start, measured, claimed, code, allowed):
    host = start()
    evidence = host.measure(save_areas=save_areas(*measured))
    detail = error(host.send(evidence, host.claims() | {'vcpus': claimed}),
                   403, code)
    assert str(_MILAN) not in detail and '[1, 2]' not in detail
    reason = host.show()['reason']
    assert reason['claimed']['vcpus'] == claimed
    assert reason.get('allowed') == allowed


def test_without_its_vcpus_nothing_verifies(start):
    host = start()
    error(host.send(host.measure(), host.claims()), 403,
          'measurement_mismatch')


def test_each_technology_has_its_own_digests(start):
    both = ['amd-sev', 'amd-sev-es']
    host = start(technologies=both)
    plain = harness.Host(host.keyservice)
    plain.launch()
    assert plain.send(plain.measure()).status_code == 200
    assert plain.show()['verdict']['technology'] == 'amd-sev'
    assert host.send(host.measure(
        save_areas=save_areas(2))).status_code == 200
    # The registers are not part of what an SEV guest may be.
    other = harness.Host(host.keyservice)
    other.launch()
    error(other.send(other.measure(save_areas=save_areas(2))), 403,
          'measurement_mismatch')


@pytest.mark.parametrize('listed, launched', [
    ('amd-sev', 'amd-sev-es'), ('amd-sev-es', 'amd-sev')])
def test_technology_that_the_policy_does_not_list(keyservice, listed,
                                                  launched):
    keyservice.policy(**_POLICY | {'technologies': [listed]})
    host = harness.Host(keyservice, technology=launched)
    detail = error(host.create(), 403, 'technology_not_allowed')
    assert launched in detail


def test_evidence_of_the_other_technology(start):
    host = start()
    error(host.send(host.measure(save_areas=save_areas(1),
                                 technology='amd-sev')), 400,
          'evidence_malformed')
