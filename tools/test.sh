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

# Sets up what the tests need and runs them.
#
#   tools/test.sh               every tier: style, unit, functional, upstream
#                               (Nova's own tests, with our driver), lab
#   tools/test.sh --fast        without the last two
#   tools/test.sh --only TIER   one of them
#
# The lab tier needs root: it unpacks a hypervisor and runs OpenStack in
# namespaces of its own. Without it, --fast needs no root once the system
# packages are there.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/common.sh
source "$here/common.sh"
cd "$CHECKOUT"

tiers="style unit functional upstream lab"
case "${1:-}" in
    --fast) tiers="style unit functional"; shift ;;
    --only) tiers=${2:?--only takes a tier}; shift 2 ;;
    -h|--help) sed -n '16,25s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac

export PYTHONDONTWRITEBYTECODE=1
failed=""

# run NAME COMMAND...: a tier's step; the rest still runs after a failure, so
# that one run shows all that is wrong.
run() {
    local name=$1 started=$SECONDS
    shift
    printf '\n=== %s\n' "$name"
    if "$@"; then
        printf '=== %s: passed in %d s\n' "$name" $((SECONDS - started))
    else
        printf '=== %s: FAILED after %d s\n' "$name" $((SECONDS - started))
        failed="$failed $name"
    fi
}

prepare_python

for tier in $tiers; do
    case $tier in
        style)
            run flake8 "$VENV/bin/python" -m flake8 \
                nova nova_sev_attest tests benchmarks devstack tools \
                doc/source/conf.py doc/source/_ext
            run shell-style env PATH="$VENV/bin:$PATH" tools/shell-style.sh
            run import-rules env PYTHONPATH="$CHECKOUT" \
                "$VENV/bin/lint-imports" --no-cache
            run docs "$VENV/bin/python" -m sphinx -q -W --keep-going \
                -b html doc/source doc/build/html
            ;;
        unit)
            run unit "$VENV/bin/python" -m pytest -q -n auto tests/unit "$@"
            ;;
        functional)
            # Nova's test base patches what it imports: apart from the rest.
            run functional "$VENV/bin/python" -m pytest -q -n auto \
                tests/functional --ignore tests/functional/virt "$@"
            run functional-virt "$VENV/bin/python" -m pytest -q -n auto \
                tests/functional/virt "$@"
            ;;
        upstream)
            run nova-upstream "$VENV/bin/python" -m tests.upstream
            ;;
        lab)
            run lab "$VENV/bin/python" -m pytest -q tests/lab "$@"
            ;;
        *)
            echo "tools/test.sh: no tier called '$tier'" >&2
            exit 2
            ;;
    esac
done

if [ -n "$failed" ]; then
    printf '\nfailed:%s\n' "$failed"
    exit 1
fi
printf '\nall tiers passed: %s (%d s)\n' "$tiers" "$SECONDS"
