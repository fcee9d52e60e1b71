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

"""Entry points of the namespace oslo.config.opts.

Each function imports only its own modules, so that a compute host needs
nothing of the key service and the other way round.
"""


def list_driver_opts():
    """Options of nova-compute's side, the group [sev_attest]."""
    from nova_sev_attest.conf import driver
    return driver.list_opts()


def list_keyservice_opts():
    """Options of the key service."""
    from nova_sev_attest.conf import keyservice
    return keyservice.list_opts()
