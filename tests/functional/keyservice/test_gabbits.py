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
import pathlib
import unittest

from gabbi import driver
import pytest

from tests.functional.keyservice import harness

FOLDER = pathlib.Path(__file__).with_name('gabbits')
FILES = sorted(path.stem for path in FOLDER.glob('*.yaml'))


@pytest.mark.parametrize('name', FILES)
def test_file(name, keyservice, monkeypatch):
    image = (FOLDER / 'firmware.bin').read_bytes()
    for variable, value in {
            'URL': keyservice.url,
            'MEMBER_TOKEN': keyservice.member('p').token,
            'OTHER_TOKEN': keyservice.member('q').token,
            'FIRMWARE_SHA256': hashlib.sha256(image).hexdigest(),
            'KERNEL_SHA256': harness.KERNEL.hex(),
            'SECRET_ID': keyservice.secret(),
    }.items():
        monkeypatch.setenv(variable, value)
    # Gabbi's own pytest plugin takes every test of the whole run whose name
    # has a colon for one of its own.
    suites = {suite._tests[0].__class__.__name__: suite
              for suite in driver.build_tests(
                  str(FOLDER), unittest.TestLoader(), host='127.0.0.1',
                  test_loader_name='gabbits')}
    suite, = (found for key, found in suites.items() if name in key)
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun > 5
    assert not result.skipped
    for test, text in result.failures + result.errors:
        pytest.fail(f'{test}\n{text}')
