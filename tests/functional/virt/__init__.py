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

"""The driver in Nova's own functional tier.

Nova's tests decide on import whether they run on green threads; nova-compute
34 runs on native ones, so these do too. Set OS_NOVA_DISABLE_EVENTLET_PATCHING
to 0 to run them on green threads.
"""

import os

from nova import monkey_patch

os.environ.setdefault('OS_NOVA_DISABLE_EVENTLET_PATCHING', '1')
os.environ.setdefault('OS_TEST_TIMEOUT', '120')

# Before anything imports eventlet, or it cannot be kept out any more.
monkey_patch.patch()
