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


# Holds the shell scripts to shellcheck and to OpenStack's style.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# devstack names its plugins' files; they have no ending, and no first line.
scripts=(
    .ci/run tools/lab tools/*.sh
    devstack/settings devstack/plugin.sh devstack/lab/functions.sh
)
shellcheck --external-sources "${scripts[@]}"
# Long lines (E006) are judged by eye, and devstack asks for E005's endings in
# none of its own files either.
bashate -i E005,E006 "${scripts[@]}"
