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

"""A whole OpenStack over an emulated SEV platform, on one machine.

``tools/lab up`` starts it, ``tools/lab down`` removes every trace of it.
Nothing of the machine's own is used or changed: the servers are unpacked
into folders, listen on loopback ports of their own, and run in a process
and mount namespace that takes everything with it when it ends.
"""
