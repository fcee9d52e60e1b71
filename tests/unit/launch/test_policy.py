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

import hypothesis
from hypothesis import strategies
import pytest

from nova_sev_attest.launch import errors
from nova_sev_attest.launch import policy

LaunchPolicy = policy.LaunchPolicy


@pytest.mark.parametrize(('technology', 'word'), [
    ('amd-sev', 0x3b), ('amd-sev-es', 0x3f)])
def test_words_of_attested_guests(technology, word):
    assert LaunchPolicy.for_technology(technology).word == word
    assert LaunchPolicy.for_technology(technology, (1, 51)).word == (
        0x33010000 | word)


def test_minimum_version_is_in_bytes_two_and_three():
    parsed = LaunchPolicy.parse(0x37010005)
    assert parsed.min_api == (1, 0x37)
    assert parsed.flags == policy.Flag.NODBG | policy.Flag.ES
    assert parsed.to_bytes() == b'\x05\x00\x01\x37'


def test_no_minimum_version_unless_asked_for():
    assert LaunchPolicy(policy.Flag.NODBG).word == 1


@pytest.mark.parametrize('technology', ('amd-sev-snp', 'intel-tdx', ''))
def test_unknown_technology(technology):
    with pytest.raises(errors.PolicyMalformed,
                       match=f"^technology '{technology}' has no SEV guest "
                             f'policy; expected one of amd-sev, amd-sev-es$'):
        LaunchPolicy.for_technology(technology)


@pytest.mark.parametrize('word', (-1, 1 << 32))
def test_word_out_of_range(word):
    with pytest.raises(errors.PolicyMalformed, match='32 bits'):
        LaunchPolicy.parse(word)


@pytest.mark.parametrize('bit', range(6, 16))
def test_reserved_bits(bit):
    with pytest.raises(errors.PolicyMalformed, match='reserved'):
        LaunchPolicy.parse(0x3b | 1 << bit)


def test_largest_words():
    assert LaunchPolicy.parse(0xffff003f).min_api == (255, 255)
    with pytest.raises(errors.PolicyMalformed, match='reserved'):
        LaunchPolicy.parse(0xffffffff)


@pytest.mark.parametrize('version', ((256, 0), (0, -1), (1,), (1, 2, 3)))
def test_version_out_of_range(version):
    with pytest.raises(errors.PolicyMalformed, match='from 0 to 255'):
        LaunchPolicy.for_technology('amd-sev', version)


@hypothesis.given(strategies.integers(0, 0xffffffff))
def test_words_round_trip(word):
    try:
        parsed = LaunchPolicy.parse(word)
    except errors.PolicyMalformed:
        assert word & 0xffc0
        return
    assert parsed.word == word
    assert parsed.to_bytes() == word.to_bytes(4, 'little')
