#!/usr/bin/env bash
#
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

# Resolves tools/lock.in anew into requirements-lock.txt, for Python 3.11 and
# every later one. Needs `uv` (pip install uv).

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
{
    echo "# Every version the tests and the lab run with. Made from tools/lock.in by"
    echo "# tools/lock.sh; tools/demo.sh and tools/test.sh both install from it."
    uv pip compile --universal --python-version 3.11 --no-header \
        --no-annotate --no-emit-index-url --upgrade -q tools/lock.in
} > requirements-lock.txt.new
mv requirements-lock.txt.new requirements-lock.txt
