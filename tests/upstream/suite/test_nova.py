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

"""The modules of Nova's tests that UPSTREAM_MODULES names."""

import importlib
import os
import pkgutil

import swap

swap.swap()


def load_tests(loader, tests, pattern):
    for name in os.environ['UPSTREAM_MODULES'].split():
        for module in _modules(name):
            tests.addTests(loader.loadTestsFromName(module))
    return tests


def _modules(name):
    package = importlib.import_module(name)
    if not hasattr(package, '__path__'):
        yield name
        return
    for found in pkgutil.walk_packages(package.__path__, f'{name}.'):
        if found.name.rpartition('.')[2].startswith('test_'):
            yield found.name
