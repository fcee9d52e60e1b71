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

"""Small files that several processes read and write."""

import os
import tempfile


def write(path, data, mode=0o644):
    """Replace a file at once: readers see the old content or the new.

    Run by root it gives the file to the folder's owner.

    :param path: pathlib.Path; its folder exists
    :param data: bytes
    :param mode: of the file; it has no more while it is written
    :raises OSError: the file is as it was
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent,
                                         prefix=f'.{path.name[:32]}.')
    try:
        with os.fdopen(handle, 'wb') as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        owner = os.stat(path.parent)
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.chown(temporary, owner.st_uid, owner.st_gid)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path, limit):
    """The first ``limit`` + 1 bytes of a file; raises OSError."""
    with open(path, 'rb') as stream:
        return stream.read(limit + 1)
