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


# Builds the sdist and, from it, the wheel, into dist/ (or the folder named):
# the same bytes on every machine for the same commit, build tools and Python.
#
#   tools/build.sh [FOLDER]
#
# PYTHON names an interpreter with build, setuptools, pbr and wheel; by
# default the checkout's virtual environment.

set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$(mkdir -p "${1:-$checkout/dist}" && cd "${1:-$checkout/dist}" && pwd)
python=${PYTHON:-$checkout/.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
export LC_ALL=C TZ=UTC

# A clone: what is not committed is no part of a release, and pbr asks git for
# the version, the authors and the changes.
git -c safe.directory="$checkout" clone --quiet --no-hardlinks "$checkout" \
    "$work/tree"
SOURCE_DATE_EPOCH=$(git -C "$work/tree" log -1 --format=%ct)
export SOURCE_DATE_EPOCH
"$python" -m build --no-isolation --sdist --outdir "$work/sdist" \
    "$work/tree" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

# setuptools writes the times and the owner of today into the archive.
archive=$(basename "$work"/sdist/*.tar.gz)
tar -C "$work" -xf "$work/sdist/$archive"
name=${archive%.tar.gz}
tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 \
    --numeric-owner --mode=go=rX,u+rw --format=ustar -cf - "$name" |
    gzip -9n >"$out/$archive"

# From the sdist, as whoever gets it builds it.
rm -rf "${work:?}/$name"
tar -C "$work" -xf "$out/$archive"
"$python" -m build --no-isolation --wheel --outdir "$out" "$work/$name" \
    >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
(cd "$out" && sha256sum "$archive" "$name"-*.whl)
