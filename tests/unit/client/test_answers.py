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

import base64

import pytest

from nova_sev_attest.client import answers
from nova_sev_attest.client import exceptions


def test_member_of_the_right_type():
    assert answers.member({'a': 'b'}, 'a', str) == 'b'


@pytest.mark.parametrize('answer, kind', [
    (None, dict), ([], dict), ('a', str), ({}, str), ({'a': 1}, str),
    ({'a': None}, dict), ({'a': True}, int), ({'a': 1}, bool),
])
def test_member_of_any_other_shape(answer, kind):
    with pytest.raises(exceptions.InvalidResponse, match='"a"'):
        answers.member(answer, 'a', kind)


@pytest.mark.parametrize('value', [-1, 11, 5.0, '5', None, True])
def test_integer_out_of_bounds(value):
    with pytest.raises(exceptions.InvalidResponse):
        answers.integer({'a': value}, 'a', 0, 10)


def test_integer_on_its_bounds():
    assert [answers.integer({'a': value}, 'a', 0, 10)
            for value in (0, 10)] == [0, 10]


def test_octets_round():
    data = bytes(range(48))
    assert answers.octets({'a': answers.encode(data)}, 'a', 48, 48) == data


@pytest.mark.parametrize('text', [
    'AAA', '!!!!', 'AAAA\n', 'AA==AA==', 'é===', base64.b64encode(
        b'x' * 3).decode(), base64.b64encode(b'x' * 5).decode(),
    'A' * 1000000])
def test_octets_malformed_or_of_another_size(text):
    with pytest.raises(exceptions.InvalidResponse) as caught:
        answers.octets({'a': text}, 'a', 4, 4)
    assert text not in str(caught.value)
