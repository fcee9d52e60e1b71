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

from nova_sev_attest.virt import exceptions
from tests.unit.virt import fakes


def test_short_reason_stays_whole():
    error = exceptions.AttestationRefused(fakes.UUID, 'No  such\npolicy.',
                                          'See x.')
    assert error.format_message() == (
        f'Build of instance {fakes.UUID} aborted: No such policy. See x.')


@pytest.mark.parametrize('tail', ['', 'See launch ' + 'x' * 36 + '.'])
def test_long_reason_is_cut_and_the_tail_kept(tail):
    message = exceptions.AttestationRefused(
        fakes.UUID, 'word ' * 200, tail).format_message()
    assert len(message) == 255
    assert message.endswith(tail or '...')
    assert '...' in message
