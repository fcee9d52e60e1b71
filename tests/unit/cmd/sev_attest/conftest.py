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

import io
import json
import types

import pytest

from nova_sev_attest.cmd.sev_attest import app


class Result(types.SimpleNamespace):
    """What a run of the command gave."""

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def error(self):
        """The one line on standard error."""
        assert self.err.endswith('\n') and self.err.count('\n') == 1, self.err
        assert 'Traceback' not in self.err
        return self.err


@pytest.fixture
def sev_attest(capsys, monkeypatch):
    """Run the command in this process."""

    def run(*argv, stdin=b''):
        monkeypatch.setattr(
            'sys.stdin', types.SimpleNamespace(buffer=io.BytesIO(stdin)))
        try:
            status = app.main([str(word) for word in argv])
        except SystemExit as exc:
            status = exc.code
        out, err = capsys.readouterr()
        return Result(status=status, out=out, err=err)

    return run
