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

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).with_name('_ext')))

project = 'nova-sev-attest'
author = 'nova-sev-attest developers'
copyright = 'nova-sev-attest developers'

extensions = [
    'api_reference',
    'cliff.sphinxext',
    'openstackdocstheme',
    'oslo_config.sphinxext',
    'oslo_policy.sphinxext',
    'sphinx.ext.autodoc',
]

openstackdocs_auto_name = False
openstackdocs_bug_project = 'nova-sev-attest'
openstackdocs_bug_tag = 'doc'
html_theme = 'openstackdocs'
pygments_style = 'native'
exclude_patterns = []
