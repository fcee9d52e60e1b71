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

import hypothesis

# The machines that run these are busy: slow is not wrong. And mutmut runs the
# tests more than once in one process.
hypothesis.settings.register_profile(
    'patient', deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.differing_executors])
hypothesis.settings.load_profile('patient')
