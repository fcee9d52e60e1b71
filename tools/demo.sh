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

# Boots two servers over an emulated SEV platform in a real OpenStack: one is
# attested and unlocks its encrypted disk, one was tampered with and never
# runs. All set-up is done here; the lab is taken down afterwards.
#
#   tools/demo.sh           the whole demonstration
#   tools/demo.sh --keep    leaves the lab and the servers for a look around
#
# LAB_DIR, LAB_VENV and LAB_PORT_BASE say where; see tools/lab.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/common.sh
source "$here/common.sh"

[ "$(id -u)" = 0 ] || die "root is needed: the lab runs in namespaces of" \
    "its own, with a hypervisor unpacked into a folder"
prepare_python
cd "$CHECKOUT"
exec "$VENV/bin/python" -m devstack.lab.demo "$@"
