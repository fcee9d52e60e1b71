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

"""Heads that were kept outside the database.

Each commit of the service writes its head into the log and the notifications.
Whatever file those end up in can be read here: a head is found by its form
(chain.POINT), the text around it does not matter.
"""

import sqlite3

from nova_sev_attest.keyservice.audit import chain

# Of a line; what is longer is read in pieces.
_MAX_LINE = 1024 * 1024


class KeptHeads:
    """Any number of heads, in a temporary file that has no name.

    A context manager; the file is gone at its end.
    """

    def __init__(self):
        # SQLite's name for a database on the disk that nobody else opens.
        self._db = sqlite3.connect('')
        self._db.execute(
            'CREATE TABLE heads (project_id TEXT, sequence INTEGER, '
            'text TEXT, PRIMARY KEY (project_id, sequence, text)) '
            'WITHOUT ROWID')

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._db.close()

    def add(self, point):
        """Add one head, a Point."""
        self._db.execute(
            'INSERT OR IGNORE INTO heads VALUES (?, ?, ?)',
            (point.project_id, point.sequence, str(point)))

    def read(self, stream):
        """Add the heads of a text stream.

        :returns: how many were found
        :raises ChainError: one is not as it is written
        """
        count = 0
        while line := stream.readline(_MAX_LINE):
            for match in chain.POINT.finditer(line):
                self.add(chain.Point.from_match(match))
                count += 1
        return count

    def projects(self):
        """Ids of the projects that there are heads of."""
        for project_id, in self._db.execute(
                'SELECT DISTINCT project_id FROM heads'):
            yield project_id

    def of(self, project_id):
        """The heads of a project as Points, lowest sequence first."""
        for text, in self._db.execute(
                'SELECT text FROM heads WHERE project_id = ? '
                'ORDER BY sequence', (project_id,)):
            yield chain.Point.from_match(chain.POINT.fullmatch(text))
