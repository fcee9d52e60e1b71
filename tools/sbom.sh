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


# Writes a software bill of materials, CycloneDX in JSON, to standard output:
# the package and all that pip installs with it, in the pinned versions.
#
#   tools/sbom.sh [EXTRA...]      such as: tools/sbom.sh keyservice postgresql
#
# Needs the network: both environments, the one that is described and the one
# that describes it, are made anew.

set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$checkout/.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$checkout/tools/build.sh" "$work/dist" >&2
version=$(basename "$work"/dist/*.tar.gz .tar.gz)
extras=$(IFS=,; echo "$*")
"$python" -m venv "$work/described"
"$work/described/bin/pip" install --quiet --require-virtualenv \
    --constraint "$checkout/requirements-lock.txt" \
    --find-links "$work/dist" \
    "nova-sev-attest${extras:+[$extras]}==${version##*-}" >&2
# Not a part of what is installed with it.
"$work/described/bin/python" -m pip uninstall --quiet --yes pip setuptools >&2
"$python" -m venv "$work/describing"
"$work/describing/bin/pip" install --quiet cyclonedx-bom==7.5.0 >&2
"$work/describing/bin/cyclonedx-py" environment \
    --output-reproducible --output-format JSON "$work/described/bin/python"
