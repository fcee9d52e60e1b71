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

"""SEV-ES in the lab: the vCPUs are measured, and held to the policy."""

import pytest

# What libvirt makes of Nova's host-model under QEMU's CPU emulation.
_MODEL, _CPU = 'EPYC', 0x800f12
# The emulated platform has KVM's first SEV-ES interface.
_PROFILE = 'qemu-legacy-1'


@pytest.fixture
def make_es_policy(make_policy):
    def make(**changes):
        return make_policy(**{
            'technologies': ['amd-sev-es'], 'vcpus': [1],
            'cpu_models': [_MODEL], 'launch_profiles': [_PROFILE],
            **changes})
    return make


def _assert_attested(owner, host, guest, server, vcpus):
    assert owner.wait(server, 'ACTIVE').status == 'ACTIVE'
    printed = owner.wait_for_console(server, 'marker-sha256: ')
    assert f'marker-sha256: {guest.marker_sha256}' in printed.splitlines()
    launch, = owner.launches(server)
    assert launch['status'] == 'running'
    assert launch['technology'] == 'amd-sev-es'
    expected = {'technology': 'amd-sev-es', 'policy_word': 63,
                'vcpus': vcpus, 'cpu_signature': _CPU,
                'launch_profile': _PROFILE, 'emulated': True}
    assert {name: launch['verdict'][name] for name in expected} == expected
    seen, = host.launches(server)
    assert seen['technology'] == 'amd-sev-es' and seen['policy'] == 63
    assert seen['vcpus'] == vcpus and seen['instructions_run']
    assert seen['digest'] == launch['verdict']['launch_digest']


@pytest.mark.parametrize('flavor, vcpus', [
    ('m1.sev-es', 1), ('m1.sev-es2', 2)])
def test_server_boots_attested(owner, host, guest, make_es_policy, boot,
                               flavor, vcpus):
    policy = make_es_policy(vcpus=[vcpus])
    _assert_attested(owner, host, guest, boot(policy, flavor=flavor), vcpus)


def test_more_vcpus_than_allowed(owner, make_es_policy, boot,
                                 assert_refused):
    server = boot(make_es_policy(), flavor='m1.sev-es2')
    assert_refused(server, 'number of vCPUs', 'policy')
    launch, = owner.launches(server)
    assert launch['status'] == 'denied'
    assert launch['reason']['code'] == 'attestation.vcpus_not_allowed'
    assert launch['reason']['claimed']['vcpus'] == 2
    assert launch['reason']['allowed'] == {'vcpus': [1]}


@pytest.mark.parametrize('changes, words', [
    ({'cpu_models': ['EPYC-Milan'], 'cpu_signatures': [1]}, 'CPU model'),
    ({'launch_profiles': ['qemu-init2-1']}, 'launch profile')])
def test_other_registers_than_allowed(make_es_policy, boot, assert_refused,
                                      changes, words):
    server = boot(make_es_policy(**changes), flavor='m1.sev-es')
    assert_refused(server, words, 'policy')


def test_policy_for_the_other_technology_only(make_policy, make_es_policy,
                                              boot, assert_refused):
    assert_refused(boot(make_policy(), flavor='m1.sev-es'), 'amd-sev-es')
    assert_refused(boot(make_es_policy()), 'does not allow amd-sev')


def test_one_policy_for_both(owner, host, guest, make_es_policy, boot):
    policy = make_es_policy(technologies=['amd-sev', 'amd-sev-es'])
    plain = boot(policy)
    assert owner.wait(plain, 'ACTIVE').status == 'ACTIVE'
    launch, = owner.launches(plain)
    assert launch['verdict']['technology'] == 'amd-sev'
    assert launch['verdict']['policy_word'] == 59
    _assert_attested(owner, host, guest, boot(policy, flavor='m1.sev-es'), 1)
