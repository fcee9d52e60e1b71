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

import gzip

import pytest

from devstack.lab.guest import initramfs


def _entries(archive):
    """Read a newc archive: path -> (mode, bytes), in order."""
    data = gzip.decompress(archive)
    found = {}
    offset = 0
    while True:
        assert data[offset:offset + 6] == b'070701'
        fields = [int(data[offset + 6 + 8 * i:offset + 14 + 8 * i], 16)
                  for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        assert fields[2:4] == [0, 0], 'everything is root\'s'
        assert fields[5] == 0, 'no times'
        name = data[offset + 110:offset + 110 + name_size - 1].decode()
        start = (offset + 110 + name_size + 3) & ~3
        offset = (start + size + 3) & ~3
        if name == 'TRAILER!!!':
            assert offset == len(data)
            return found
        found[name] = (mode, data[start:start + size])


def test_what_is_packed_is_in_the_archive():
    archive = initramfs.pack(
        {'init': b'#!/bin/sh\n', 'lib/a/b.so': b'library'},
        programs={'init'}, links={'bin/sh': 'busybox'}, folders=['proc'])
    assert _entries(archive) == {
        'bin': (0o040755, b''),
        'bin/sh': (0o120777, b'busybox'),
        'init': (0o100755, b'#!/bin/sh\n'),
        'lib': (0o040755, b''),
        'lib/a': (0o040755, b''),
        'lib/a/b.so': (0o100644, b'library'),
        'proc': (0o040755, b''),
    }


def test_folders_come_before_what_is_in_them():
    paths = list(_entries(initramfs.pack({'a/b/c': b'', 'a-b': b''})))
    assert paths.index('a') < paths.index('a/b') < paths.index('a/b/c')


def test_equal_content_gives_equal_bytes():
    one = initramfs.pack({'a': b'1', 'b': b'2'}, folders=['c', 'd'])
    other = initramfs.pack({'b': b'2', 'a': b'1'}, folders=['d', 'c'])
    assert one == other


@pytest.mark.parametrize('path', ['/init', '../init', 'a//b', 'a/./b', ''])
def test_paths_that_leave_the_archive_are_refused(path):
    with pytest.raises(ValueError, match='plain relative path'):
        initramfs.pack({path: b''})


def test_a_program_has_to_be_there():
    with pytest.raises(ValueError, match='init'):
        initramfs.pack({}, programs={'init'})
