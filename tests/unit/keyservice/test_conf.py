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

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.conf import opts


def test_defaults():
    conf = conf_keyservice.load(config_files=[])
    assert conf.api.max_firmware_size == 16 * 1024 * 1024
    assert conf.launches.expiry == 120
    assert conf.trust.extra_anchors == []
    assert conf.trust.amd_certificates is None
    assert conf.nova.service_type == 'compute'
    assert conf.barbican.service_type == 'key-manager'
    assert conf.nova.timeout == conf.barbican.timeout == 10
    assert conf.database.connection.startswith('sqlite:')


def test_two_services_share_no_values():
    first = conf_keyservice.load(config_files=[])
    second = conf_keyservice.load(config_files=[])
    first.set_override('expiry', 5, group='launches')
    assert second.launches.expiry == 120


def test_sample_lists_every_group():
    groups = {getattr(group, 'name', group)
              for group, _options in opts.list_keyservice_opts()}
    assert groups == {'api', 'launches', 'quotas', 'sealing', 'audit',
                      'secret_store', 'rpc', 'notifications', 'metrics',
                      'trust', 'nova', 'barbican'}
