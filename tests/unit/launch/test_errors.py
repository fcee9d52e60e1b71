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

import inspect
import pickle
import re

import pytest

from nova_sev_attest.launch import errors

ALL = [value for _name, value in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize('error', ALL)
def test_every_error_has_a_code_of_its_own(error):
    assert issubclass(error, errors.LaunchError)
    assert re.fullmatch('[a-z_]+', error.code)
    assert [other for other in ALL if other.code == error.code] == [error]


@pytest.mark.parametrize('error', [
    errors.ChainVerificationError('PEK', 'OCA', 'why'),
    errors.ChainVerificationError('PDH', None, 'why'),
    errors.SecretTooLarge(3088, 3072),
    errors.MeasurementMismatch('why')])
def test_errors_cross_process_borders(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
