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

"""Stores of the owners' secrets."""

from stevedore import driver

from nova_sev_attest.keyservice.stores import reader

NAMESPACE = 'nova_sev_attest.secret_stores'


def load(conf):
    """The store that the configuration names, held to its bounds.

    :returns: SecretReader
    """
    store = driver.DriverManager(
        NAMESPACE, conf.secret_store.driver, invoke_on_load=True,
        invoke_args=(conf,)).driver
    return reader.SecretReader(store, conf.secret_store)
