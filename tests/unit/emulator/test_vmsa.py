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

import pytest

from nova_sev_attest.emulator import vmsa
from tests import vectors

_MILAN = 0xa00f11


@pytest.mark.parametrize('number, start', [
    (0, vmsa.RESET_VECTOR), (1, 0x80b004)])
def test_page_of_a_real_guest(number, start):
    real = vectors.read(f'virtee-sevctl/tests/data/vmsa{number}.bin')
    assert vmsa.save_area(start, _MILAN) == real


def test_signature_is_in_rdx_only():
    one, other = (vmsa.save_area(vmsa.RESET_VECTOR, value)
                  for value in (0, 0xffffffff))
    differing = {at for at in range(vmsa.SIZE) if one[at] != other[at]}
    assert differing == set(range(0x310, 0x314))
