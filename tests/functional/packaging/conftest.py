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

"""A release, built once."""

import os
import subprocess
import sys

import pytest

from tests import documented


@pytest.fixture(scope='session')
def built(tmp_path_factory):
    """The folder of an sdist and a wheel."""
    if not (documented.CHECKOUT / '.git').exists():
        pytest.skip('a release is built from a git checkout')
    return build(tmp_path_factory.mktemp('first'))


def build(folder):
    """Build the sdist and the wheel into a folder; returns it."""
    subprocess.run([documented.CHECKOUT / 'tools' / 'build.sh', folder],
                   check=True, env=os.environ | {'PYTHON': sys.executable},
                   stdout=subprocess.DEVNULL, timeout=300)
    return folder
