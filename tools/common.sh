# shellcheck shell=bash
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

# What tools/demo.sh, tools/test.sh and tools/lab share: sourced, not run.
#
# prepare_python makes the Python environment of the checkout: the system
# packages that building it needs, a virtual environment with every version
# of requirements-lock.txt, and this tree's own wheel. Done already, it takes
# well under a second.
#
#   LAB_VENV     the virtual environment, default <checkout>/.venv
#   LAB_PYTHON   the interpreter to make it with, default: the first of
#                python3.11, python3.12, python3.13 and python3 that will do

CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${LAB_VENV:-$CHECKOUT/.venv}
export CHECKOUT VENV

# say WORDS...: one line of progress, with the seconds since the start.
say() {
    printf '[%4d s] %s\n' "$SECONDS" "$*"
}

# die WORDS...: what went wrong and what to do about it.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# quietly LOG COMMAND...: keeps a long command's output in a file and shows
# its end only when the command fails.
quietly() {
    local log=$1
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        die "failed: $* (the whole output is in $log)"
    fi
}

choose_python() {
    local candidate
    for candidate in ${LAB_PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if "$candidate" -c \
            'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
        then
            # The interpreter itself: a version manager's shim depends on
            # the directory and the environment it is called in.
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    die "Python 3.11 or later is needed, and none was found; install" \
        "python3 (Debian 12 or later has it) or set LAB_PYTHON"
}

# missing_packages PYTHON: the Debian packages without which the environment
# cannot be built. libvirt-python and a few others are built from source.
missing_packages() {
    local python=$1
    command -v gcc >/dev/null || echo gcc
    if ! command -v pkg-config >/dev/null; then
        echo pkg-config libvirt-dev
    elif ! pkg-config --exists libvirt; then
        echo libvirt-dev
    fi
    # nova-compute asks it for the host's load.
    command -v uptime >/dev/null || echo procps
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    "$python" -c '
import os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not os.path.exists(header))' || echo python3-dev
}

install_packages() {
    local log=$1
    shift
    command -v apt-get >/dev/null ||
        die "these Debian packages are needed: $*"
    [ "$(id -u)" = 0 ] ||
        die "these packages are needed: $*; run as root once, or:" \
            "apt-get install --no-install-recommends $*"
    say "installing Debian packages: $*"
    export DEBIAN_FRONTEND=noninteractive
    # A foreign source that is out of order does not matter as long as the
    # packages can be had.
    apt-get -q -o DPkg::Lock::Timeout=300 update >"$log" 2>&1 ||
        say "apt-get update complains ($log); going on"
    quietly "$log" apt-get -q -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends "$@"
}

# tree_hash: of everything that goes into the wheel, committed or not.
tree_hash() {
    (
        cd "$CHECKOUT" || exit
        find etc nova nova_sev_attest requirements.txt setup.cfg setup.py \
            pyproject.toml -type f -not -name '*.pyc' -print0 |
            LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum
    )
}

# install_project: builds the wheel from a copy of the tree, so that files
# deleted since the last build cannot come back from a build directory and
# none is left behind here.
install_project() {
    local copy
    copy=$(mktemp -d)
    tar -C "$CHECKOUT" -cf - --exclude='*.pyc' --exclude=__pycache__ etc nova \
        nova_sev_attest README.rst LICENSE requirements.txt setup.cfg \
        setup.py pyproject.toml |
        tar -C "$copy" -xf -
    (
        cd "$copy" || exit
        # pbr asks git for the version and for the files that are not Python.
        if [ -e "$CHECKOUT/.git" ]; then
            GIT_DIR=$(git -c safe.directory="$CHECKOUT" -C "$CHECKOUT" \
                rev-parse --absolute-git-dir)
            GIT_WORK_TREE=$copy
            GIT_CONFIG_COUNT=1
            GIT_CONFIG_KEY_0=safe.directory
            GIT_CONFIG_VALUE_0='*'
            export GIT_DIR GIT_WORK_TREE
            export GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0
        else
            export PBR_VERSION=0.0.0
        fi
        quietly "$VENV/wheel.log" "$VENV/bin/python" -I -m pip install \
            --no-build-isolation --no-deps --no-index --force-reinstall .
    )
    rm -rf "$copy"
}

prepare_python() {
    local python missing wanted

    mkdir -p "$(dirname "$VENV")"
    # Two commands started at once build one environment, not half of each.
    exec 9>"$VENV.lock"
    flock 9

    wanted=$(sha256sum <"$CHECKOUT/requirements-lock.txt")
    if [ "$(cat "$VENV/lock.stamp" 2>/dev/null)" != "$wanted" ]; then
        python=$(choose_python)
        missing=$(missing_packages "$python")
        if [ -n "$missing" ]; then
            # shellcheck disable=SC2086
            install_packages "$VENV.apt.log" $missing
        fi
        if ! [ -x "$VENV/bin/python" ]; then
            say "making a virtual environment with $python"
            quietly "$VENV.make.log" "$python" -m venv "$VENV"
        fi
        say "installing $(grep -c '==' "$CHECKOUT/requirements-lock.txt")" \
            "Python packages (one to two minutes)"
        # The lock is whole, so there is nothing to resolve.
        quietly "$VENV/pip.log" "$VENV/bin/python" -I -m pip install \
            --no-deps --no-input -r "$CHECKOUT/requirements-lock.txt"
        echo "$wanted" >"$VENV/lock.stamp"
        rm -f "$VENV/tree.stamp"
    fi

    wanted=$(tree_hash)
    if [ "$(cat "$VENV/tree.stamp" 2>/dev/null)" != "$wanted" ]; then
        say "installing nova-sev-attest itself"
        install_project
        echo "$wanted" >"$VENV/tree.stamp"
    fi

    exec 9>&-
}
