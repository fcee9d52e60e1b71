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

"""Launch digests against PyPI's sev-snp-measure, in its SEV modes.

It fills MXCSR and FCW in the save areas, as the newer KVM interface does:
the profile INIT2.
"""

import collections

import pytest
from sevsnpmeasure import guest
from sevsnpmeasure import sev_mode
from sevsnpmeasure import vcpu_types

from nova_sev_attest.launch import errors
from nova_sev_attest.launch import vmsa
from tests.differential import cases

SEED = 20260301
COUNT = 1000
# The named models of sev-snp-measure as their makers' numbers; their
# signatures are compared, too.
MODELS = {
    'EPYC-v4': (23, 1, 2),
    'EPYC-Rome-v2': (23, 49, 0),
    'EPYC-Milan-v2': (25, 1, 1),
    'EPYC-Genoa-v1': (25, 17, 0),
    'EPYC-Turin': (26, 0, 0),
}
MODES = {'sev': sev_mode.SevMode.SEV, 'seves': sev_mode.SevMode.SEV_ES}

# Who refuses where the other does not, and why.
NO_RESET = ('sev-snp-measure wants to know where application processors '
            'start even for one vCPU, whose start is fixed')
RESET_ZERO = ('sev-snp-measure takes the address 0 for none and has no save '
              'area for application processors then')
SMALL_TABLE = ('sev-snp-measure looks at the base of the hash table only; '
               'QEMU refuses one that is too small for the hashes')


def difference(case):
    """(who alone refuses, why), or (None, None)."""
    kind, mode = case.image.kind, case.mode
    if case.kernel is not None and kind in ('stock', 'no hash table',
                                            'no table'):
        return None, None  # both refuse
    if kind == 'small hash table' and case.kernel is not None:
        return 'ours', SMALL_TABLE
    if mode == 'seves' and case.vcpus == 1 and kind in ('no reset entry',
                                                        'no table'):
        return 'theirs', NO_RESET
    if mode == 'seves' and case.vcpus > 1 and kind == 'reset at 0':
        return 'theirs', RESET_ZERO
    return None, None


class Files:
    """The files that sev-snp-measure reads, each image written once."""

    def __init__(self, folder):
        self._folder = folder
        self._images = {}

    def image(self, image):
        if image.number not in self._images:
            self._images[image.number] = self._write(
                f'firmware-{image.number}', image.data)
        return self._images[image.number]

    def _write(self, name, data):
        path = self._folder / name
        path.write_bytes(data)
        return str(path)

    def optional(self, name, data):
        return '' if data is None else self._write(name, data)


def theirs(case, files):
    return guest.calc_launch_digest(
        MODES[case.mode], case.vcpus, vcpu_types.cpu_sig(*case.cpu),
        files.image(case.image), files.optional('kernel', case.kernel),
        files.optional('initrd', case.initrd), case.command_line or '', 0)


def outcome(function, refusals):
    try:
        return function()
    except refusals:
        return None


@pytest.mark.parametrize('mode', MODES)
def test_random_launches(mode, tmp_path):
    files = Files(tmp_path)
    seen = collections.Counter()
    for case in cases.cases(SEED, COUNT, mode, list(MODELS.values())):
        what = f'seed {SEED}, case {case.number}: {case.image.kind}'
        mine = outcome(lambda: case.digest(vmsa.INIT2), errors.LaunchError)
        other = outcome(lambda: theirs(case, files),
                        (RuntimeError, AttributeError))
        who, why = difference(case)
        if who is not None:
            assert (mine is None) == (who == 'ours'), f'{what}, not: {why}'
            assert (other is None) == (who == 'theirs'), f'{what}, not: {why}'
            seen[why] += 1
        else:
            assert mine == other, what
            seen['refused' if mine is None else 'equal'] += 1
    print(f'{mode}, seed {SEED}: {dict(seen)}')
    assert seen['equal'] >= COUNT * 0.85 and seen['refused']
    assert set(seen) - {'equal', 'refused'} == {
        'sev': {SMALL_TABLE},
        'seves': {SMALL_TABLE, NO_RESET, RESET_ZERO}}[mode]


@pytest.mark.parametrize('name', MODELS)
def test_signatures_of_named_models(name):
    assert (vmsa.cpu_signature(*MODELS[name]) ==
            vcpu_types.CPU_SIGS[name])


def test_the_profile_matters(tmp_path):
    # Or the test above would compare nothing of the save areas.
    files = Files(tmp_path)
    case = next(case for case in cases.cases(SEED, COUNT, 'seves')
                if case.image.kind == 'whole')
    assert case.digest(vmsa.LEGACY) != theirs(case, files)
