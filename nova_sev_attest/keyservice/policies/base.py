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

"""Check strings that the rules share, and the scopes that go with them."""

PROJECT_READER = ('(role:reader or role:member or role:admin) and '
                  'project_id:%(project_id)s')
PROJECT_MEMBER = '(role:member or role:admin) and project_id:%(project_id)s'
#: The operator: a reader of the system, whatever the project.
SYSTEM_READER = 'role:reader and system_scope:all'
#: nova-compute, by its own credential.
SERVICE = 'role:service'

PROJECT = ['project']
#: For rules that an operator may want to give to an administrator's project.
ANY = ['system', 'project']
