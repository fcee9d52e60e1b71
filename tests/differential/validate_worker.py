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

"""Runs virt-qemu-sev-validate many times in one process.

Given to the Python of the tree that has the tool, so it uses nothing but the
standard library. Each line that it reads is a JSON list, the arguments of a
run; for each it writes a line with the list of exit code and output.
"""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import sys

TOOL = '/usr/bin/virt-qemu-sev-validate'


def load():
    loader = importlib.machinery.SourceFileLoader('sev_validate', TOOL)
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader('sev_validate', loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def run(module, arguments):
    sys.argv = [TOOL, *arguments]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            module.main()
        except SystemExit as exc:
            return exc.code, said.getvalue()
    return None, said.getvalue()


def main():
    module = load()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(module, json.loads(line))) + '\n')
        sys.stdout.flush()


if __name__ == '__main__':
    main()
