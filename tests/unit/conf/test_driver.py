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

from oslo_config import cfg
import pytest

from nova_sev_attest.conf import driver
from nova_sev_attest.conf import opts


@pytest.fixture
def group():
    conf = cfg.ConfigOpts()
    conf([])
    driver.register_opts(conf)
    return conf.sev_attest


def test_fails_closed_and_in_time_by_default(group):
    assert group.mode == 'required'
    assert group.transport == 'http'
    assert group.launch_timeout == 60
    assert group.timeout == 10


def test_finds_the_service_in_the_catalog(group):
    assert group.service_type == 'attestation'
    assert group.valid_interfaces == ['internal', 'public']
    assert group.endpoint_override is None


def test_offers_no_second_kind_of_retries(group):
    for name in ('connect_retries', 'status_code_retries', 'min_version'):
        with pytest.raises(cfg.NoSuchOptError):
            group[name]


def test_listed_for_the_sample_configuration():
    ((group, options),) = opts.list_driver_opts()
    assert group.name == 'sev_attest'
    names = [option.dest for option in options]
    assert len(names) == len(set(names))
    assert {'mode', 'auth_type', 'username', 'cafile', 'region_name',
            'launch_timeout'} <= set(names)
    assert all(option.help for option in options)
