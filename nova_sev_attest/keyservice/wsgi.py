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

"""WSGI module: ``nova_sev_attest.keyservice.wsgi:application``.

For any WSGI server (uWSGI, cheroot, mod_wsgi). The configuration is read from
the file that the environment variable NOVA_SEV_ATTEST_CONFIG_FILE names
(several: separated by colons), else from nova-sev-attest.conf where
oslo.config looks by default. Loading connects to nothing, so that a server may
fork after it; a fault in the configuration ends the server at once.
"""

import os

from oslo_log import log as logging

from nova_sev_attest.keyservice import app

_FILES = os.environ.get('NOVA_SEV_ATTEST_CONFIG_FILE')

try:
    application = app.load(_FILES.split(':') if _FILES else None)
except Exception as exc:
    # WSGI servers tend to keep the reason to themselves.
    logging.getLogger(__name__).critical('The key service cannot start: %s',
                                         exc)
    raise
