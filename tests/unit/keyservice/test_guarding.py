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
import datetime

import hypothesis
from hypothesis import strategies
import pytest

from nova_sev_attest.keyservice import guarding
from nova_sev_attest.keyservice.objects import policies

NOW = datetime.datetime(2026, 1, 31)
A, B = 'a' * 64, 'b' * 64
SECRET = '0a1b2c3d-0000-4000-8000-00000000000f'
STRICT = policies.Content(
    name='strict', technologies=['amd-sev-es'], trusted_roots=['amd-milan'],
    firmwares=[A], kernels=[A], initrds=[A], command_lines=['quiet'],
    vcpus=[1], firmware_boot=False, min_api_version='1.51',
    secrets={'guid': SECRET}, is_default=False, cpu_models=['EPYC-v4'],
    launch_profiles=['qemu-legacy-1'], min_build=3, allowed_chips=[A],
    allowed_owners=[A], approval='owner', limits={
        'servers': [SECRET], 'host_aggregates': ['a'],
        'not_before': '2026-01-01T00:00:00Z',
        'not_after': '2026-02-01T00:00:00Z', 'max_releases': 3})


def policy(revoked_at=None, release_count=0, **changes):
    content = dataclasses.replace(STRICT, **changes)
    return policies.Policy(
        id=f'id-of-{content.name}', revision=1, project_id='p',
        content=content, content_sha256=A, created_at=NOW, updated_at=NOW,
        revoked_at=revoked_at, release_count=release_count)


def limited(**changes):
    found = STRICT.limits | changes
    return {'limits': {name: value for name, value in found.items()
                       if value is not None}}


def warnings(found, sharing):
    return guarding.warnings([found], {found.id: sharing})[found.id]


#: Content that guards less than STRICT in one way each, and how that is told.
WEAKER = [
    ({'technologies': ['amd-sev', 'amd-sev-es']}, 'allows more technologies'),
    ({'technologies': ['amd-sev']}, 'allows more technologies'),
    ({'trusted_roots': ['amd-milan', 'emulated']},
     'allows more platform roots'),
    ({'allowed_chips': None}, 'allows more chips'),
    ({'allowed_chips': [A, B]}, 'allows more chips'),
    ({'allowed_owners': None}, 'allows more owners of platforms'),
    ({'firmwares': [B]}, 'allows more firmwares'),
    ({'kernels': [A, B]}, 'allows more kernels'),
    ({'initrds': [A, B]}, 'allows more initrds'),
    ({'initrds': []}, 'allows more initrds'),
    ({'command_lines': ['quiet', 'debug']}, 'allows more command lines'),
    ({'vcpus': [1, 2]}, 'allows more numbers of vCPUs'),
    ({'cpu_signatures': [7]}, 'allows more CPU models'),
    ({'launch_profiles': ['qemu-legacy-1', 'qemu-init2-1']},
     'allows more launch profiles'),
    ({'firmware_boot': True}, 'boots what the firmware finds on the disks'),
    ({'min_api_version': '1.50'}, 'allows older firmware of the platform'),
    ({'min_api_version': None, 'min_build': None},
     'allows older firmware of the platform'),
    ({'min_build': 2}, 'allows older firmware of the platform'),
    ({'approval': 'automatic'}, 'releases without its owner\'s approval'),
    (limited(servers=None), 'allows more servers'),
    (limited(servers=[SECRET, A]), 'allows more servers'),
    (limited(host_aggregates=None), 'allows more host aggregates'),
    (limited(host_aggregates=['b']), 'allows more host aggregates'),
    (limited(not_before=None), 'releases earlier'),
    (limited(not_before='2025-12-31T00:00:00Z'), 'releases earlier'),
    (limited(not_after=None), 'releases later'),
    (limited(not_after='2026-02-01T00:00:00.1Z'), 'releases later'),
    (limited(max_releases=None), 'releases more often'),
    (limited(max_releases=4), 'releases more often'),
    ({'is_default': True}, 'is the project\'s default'),
]


@pytest.mark.parametrize('changes, how', WEAKER)
def test_each_way_of_guarding_less(changes, how):
    weak, strict = policy(name='weak', **changes), policy()
    assert guarding.weaknesses(weak, strict) == [how]
    if changes != {'technologies': ['amd-sev']}:
        # Which is other, not more: it is weaker in turn.
        assert guarding.weaknesses(strict, weak) in (
            [], [how], ['allows more initrds'])
    told, = warnings(strict, [(weak, [SECRET])])
    assert f"Secret {SECRET} is named by policy 'weak' (id-of-weak) too" in (
        told)
    assert f'which guards less: it {how}.' in told
    told, = warnings(weak, [(strict, [SECRET])])
    assert f'This policy guards less than that one: it {how}.' in told


def test_no_limits_at_all():
    weak, strict = policy(limits=None), policy()
    assert guarding.weaknesses(weak, strict) == [
        'allows more servers', 'allows more host aggregates',
        'releases earlier', 'releases later', 'releases more often']
    assert guarding.weaknesses(strict, weak) == []


def test_what_is_not_measured_is_not_compared():
    """SEV does not measure vCPUs; without a kernel there is no initrd."""
    one = policy(technologies=['amd-sev'], vcpus=[1], kernels=[],
                 firmware_boot=True)
    two = policy(technologies=['amd-sev'], vcpus=[2], kernels=[],
                 firmware_boot=True, initrds=[B], command_lines=[])
    assert guarding.weaknesses(one, two) == []
    assert guarding.weaknesses(two, one) == []


def test_versions_of_a_cpu_model_are_one():
    assert guarding.weaknesses(
        policy(cpu_models=['EPYC-v3']), policy(cpu_models=['EPYC-v4'])) == []


@pytest.mark.parametrize('part, how', [
    ({'kernels': [B]}, ['allows more kernels']),
    ({'initrds': [A, B]}, ['allows more initrds']),
    ({'command_lines': ['single']}, ['allows more command lines']),
    ({}, [])])
def test_part_for_rescues(part, how):
    """It counts where it is what gives the secret to a guest."""
    strict = policy()
    other = {'guid': 'another'}
    names_it = policies.Rescue(**part, secrets={'guid': SECRET})
    assert guarding.weaknesses(
        policy(secrets=other, rescue=names_it), strict) == how
    assert guarding.weaknesses(policy(rescue=names_it), strict) == how
    # A boot's secret is no weaker for what a rescue may have.
    assert guarding.weaknesses(policy(rescue=policies.Rescue(
        **part, secrets=other)), strict) == []
    assert guarding.weaknesses(policy(rescue=policies.Rescue(**part)),
                               strict) == []
    # And the other way round.
    assert guarding.weaknesses(
        policy(kernels=[A, B], secrets=other, rescue=policies.Rescue(
            **{'kernels': [A]} | part, secrets={'guid': SECRET})),
        strict) == how


def test_alike():
    told, = warnings(policy(), [(policy(name='twin'), [SECRET])])
    assert 'guards less' not in told
    assert 'as safe as the weaker' in told


def test_revoked():
    revoked = policy(name='revoked', revoked_at=NOW, limits=None)
    told, = warnings(policy(), [(revoked, [SECRET])])
    assert told.endswith('too, which is revoked.')
    # From the other side, all others are weaker than what releases nothing.
    told, = warnings(revoked, [(policy(), [SECRET])])
    assert 'which guards less: it is not revoked.' in told


def test_several_secrets():
    told, = warnings(policy(), [(policy(name='b'), ['x', 'y'])])
    assert told.startswith("Secret x, y are named by policy 'b'")


def test_the_weaker_ones_come_first_and_all_are_counted():
    sharing = [(policy(name=f'twin-{n}'), [SECRET]) for n in range(20)]
    sharing.append((policy(name='weak', limits=None), [SECRET]))
    told = warnings(policy(), sharing)
    assert "'weak'" in told[0] and "'twin-0'" in told[1]
    assert len(told) == guarding.MAX_TOLD + 1
    assert told[-1] == '5 more policies name secrets of this one.'


@hypothesis.given(strategies.lists(
    strategies.sampled_from([
        pair for pair in WEAKER if pair[0] != {'technologies': ['amd-sev']}]),
    max_size=5, unique_by=lambda pair: next(iter(pair[0]))))
def test_each_of_several_ways_is_told(picked):
    changed = {}
    for changes, _how in picked:
        changed |= changes
    weak = policy(**changed)
    assert set(guarding.weaknesses(weak, policy())) == {
        how for _changes, how in picked}
    assert guarding.weaknesses(weak, weak) == []
