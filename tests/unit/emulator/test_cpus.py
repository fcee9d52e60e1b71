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

from nova_sev_attest.emulator import cpus


@pytest.mark.parametrize('model, signature', [
    ('EPYC', 0x800f12), ('EPYC-v4', 0x800f12), ('EPYC-Rome', 0x830f10),
    ('EPYC-Milan-v2', 0xa00f11), ('EPYC-Genoa', 0xa10f10),
    ('qemu64', 0x60fb1), ('host', 0xa00f11), ('max', 0xa00f11)])
def test_signature_of_a_model(model, signature):
    assert cpus.signature(model, {}) == signature


def test_properties_override():
    features = {'cpu': 'EPYC', 'family': '0x19', 'model': '17',
                'stepping': '3', '+avx': 'on'}
    assert cpus.signature('EPYC', features) == 0xa10f13
    assert cpus.signature('EPYC', {'family': '6', 'model': '0x5e',
                                   'stepping': '3'}) == 0x506e3


@pytest.mark.parametrize('features, text', [
    ({'family': '271'}, 'out of range'), ({'model': '256'}, 'out of range'),
    ({'stepping': '-1'}, 'out of range'), ({'model': 'on'}, "'on'")])
def test_malformed_properties(features, text):
    with pytest.raises(cpus.UnknownModel, match=text):
        cpus.signature('EPYC', features)


@pytest.mark.parametrize('model', ['Skylake-Server', 'EPYC-v', '', 'epyc'])
def test_unknown_model(model):
    with pytest.raises(cpus.UnknownModel, match='knows .*EPYC-Milan'):
        cpus.signature(model, {})
