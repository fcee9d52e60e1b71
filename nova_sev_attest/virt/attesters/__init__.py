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

"""One attester for each technology of hw:mem_encryption_model."""

import stevedore

NAMESPACE = 'nova_sev_attest.attesters'


def load():
    """The attesters of all entry points, by technology.

    :raises RuntimeError: one cannot be loaded; a host that would silently
        lack it could no longer attest what it did before
    """
    manager = stevedore.ExtensionManager(
        NAMESPACE, invoke_on_load=True,
        on_load_failure_callback=_refuse)
    return {extension.name: extension.obj for extension in manager}


def _refuse(manager, entry_point, error):
    raise RuntimeError(
        f'The attester {entry_point.name} ({entry_point.value}) cannot be '
        f'loaded: {error}') from error
