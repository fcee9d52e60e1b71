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

"""The API's behaviour as YAML: see gabbits/."""

import hashlib
import os
import pathlib
import sys
import tempfile
from unittest import mock

from gabbi import driver
from gabbi import fixture

from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.unit.launch import platforms

FOLDER = pathlib.Path(__file__).with_name('gabbits')

# pytest runs it once for each test of the YAML files.
test_pytest = driver.test_pytest


class KeyServiceFixture(fixture.GabbiFixture):
    """A key service of its own for each file."""

    def start_fixture(self):
        self._folder = tempfile.TemporaryDirectory()
        self._cloud = fakes.Cloud()
        self._service = harness.KeyService(self._cloud, self._folder.name)
        self._environment = mock.patch.dict(os.environ, {
            'URL': self._service.url,
            'MEMBER_TOKEN': self._service.member('p').token,
            'OTHER_TOKEN': self._service.member('q').token,
            'FIRMWARE_SHA256': hashlib.sha256(
                (FOLDER / 'firmware.bin').read_bytes()).hexdigest(),
            'KERNEL_SHA256': harness.KERNEL.hex(),
            'SECRET_ID': self._service.secret(),
        })
        self._environment.start()

    def stop_fixture(self):
        self._environment.stop()
        self._service.stop()
        self._cloud.stop()
        self._folder.cleanup()


def pytest_generate_tests(metafunc):
    driver.py_test_generator(
        str(FOLDER), host='127.0.0.1', test_loader_name='gabbits',
        fixture_module=sys.modules[__name__], metafunc=metafunc)


def test_image_is_what_the_other_tests_use():
    assert (FOLDER / 'firmware.bin').read_bytes() == platforms.firmware()
