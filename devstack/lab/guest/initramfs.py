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

"""Initial RAM disks as Linux reads them: a cpio archive, "newc" format.

The format is described in the kernel's
``Documentation/driver-api/early-userspace/buffer-format.rst``. Equal trees
give equal bytes: entries are sorted, times are zero, everything is root's.
"""

import gzip

_FOLDER = 0o040755
_PROGRAM = 0o100755
_FILE = 0o100644
_LINK = 0o120777
_TRAILER = 'TRAILER!!!'


def pack(files, programs=(), links=None, folders=()):
    """Make a compressed initramfs.

    :param files: path in the archive (relative) -> bytes; the folders on the
        way to it are made.
    :param programs: the paths that are executable.
    :param links: path of a symbolic link -> where it leads.
    :param folders: empty folders to make.
    :returns: the gzip-compressed archive.
    :raises ValueError: for a path that is absolute or leaves the archive.
    """
    unknown = set(programs) - set(files)
    if unknown:
        raise ValueError(f'programs that are not among the files: {unknown}')
    entries = {}
    for path, data in files.items():
        _check(path)
        mode = _PROGRAM if path in programs else _FILE
        entries[path] = (mode, data)
    for path, target in (links or {}).items():
        _check(path)
        entries[path] = (_LINK, target.encode())
    for path in folders:
        _check(path)
        entries.setdefault(path, (_FOLDER, b''))
    for path in list(entries):
        parts = path.split('/')
        for depth in range(1, len(parts)):
            entries.setdefault('/'.join(parts[:depth]), (_FOLDER, b''))
    archive = bytearray()
    # Sorting puts a folder before what is in it.
    for number, path in enumerate(sorted(entries), start=1):
        archive += _entry(number, path, *entries[path])
    archive += _entry(0, _TRAILER, 0, b'')
    return gzip.compress(bytes(archive), compresslevel=6, mtime=0)


def _check(path):
    parts = path.split('/')
    if not path or any(part in ('', '.', '..') for part in parts):
        raise ValueError(f'{path!r} is not a plain relative path')


def _entry(number, path, mode, data):
    name = path.encode() + b'\0'
    links = 2 if mode == _FOLDER else 1
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name),
              0)
    header = b'070701' + b''.join(b'%08X' % field for field in fields)
    return _padded(header + name) + _padded(data)


def _padded(data):
    return data + bytes(-len(data) % 4)
