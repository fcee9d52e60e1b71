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

import subprocess
import sys

from nova.api.validation.extra_specs import validators
from nova import exception
import pytest

SPEC = 'sev_attest:mode'


@pytest.mark.parametrize('value', ['required', 'optional'])
def test_accepted(value):
    # Nova found them through the installed entry point.
    validators.validate(SPEC, value)


@pytest.mark.parametrize('name, value', [
    (SPEC, 'true'), (SPEC, ''), (SPEC, 'Required'),
    ('sev_attest:required', 'true'), ('sev_attest:mod', 'required')])
def test_refused(name, value):
    with pytest.raises(exception.ValidationError):
        validators.validate(name, value)


def test_brings_nothing_heavy_into_nova_api():
    loaded = subprocess.run(
        [sys.executable, '-c',
         'import sys; from nova.api.validation.extra_specs import base; '
         'before = set(sys.modules); '
         'import nova_sev_attest.virt.extra_specs; '
         'print(*sorted(set(sys.modules) - before))'],
        check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    assert loaded.stdout.split() == [
        'nova_sev_attest', 'nova_sev_attest.virt',
        'nova_sev_attest.virt.extra_specs']
