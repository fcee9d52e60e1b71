# shellcheck shell=bash disable=SC2034
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

# Stands in for devstack, as far as the plugin asks it for anything: what it
# would do to a file is done, and what it would do to keystone, systemd, pip or
# apt is written to the file STANDIN_CALLS, a line for each call: the function
# and its arguments, separated by tabs. The lab and the plugin's tests run the
# plugin's phases with it.

: "${STANDIN_CALLS:?}" "${ENABLED_SERVICES?}" "${DEST:?}" "${DATA_DIR:?}" \
    "${DATABASE_URL:?}" "${SERVICE_PASSWORD:?}"

PYTHON=${PYTHON:-python3}
STACK_USER=${STACK_USER:-$(id -un)}
REGION_NAME=${REGION_NAME:-RegionOne}
SERVICE_HOST=${SERVICE_HOST:-127.0.0.1}
SERVICE_LISTEN_ADDRESS=${SERVICE_LISTEN_ADDRESS:-$SERVICE_HOST}
SERVICE_PROJECT_NAME=${SERVICE_PROJECT_NAME:-service}
SERVICE_DOMAIN_NAME=${SERVICE_DOMAIN_NAME:-Default}
SERVICE_TIMEOUT=${SERVICE_TIMEOUT:-60}
KEYSTONE_SERVICE_URI=${KEYSTONE_SERVICE_URI:-http://$SERVICE_HOST/identity}
ENABLE_DEBUG_LOG_LEVEL=${ENABLE_DEBUG_LOG_LEVEL:-False}

_standin() {
    local IFS=$'\t'
    printf '%s\n' "$*" >>"$STANDIN_CALLS"
}

# What is only written down.
for _name in setup_install pip_install install_package get_or_create_user \
        get_or_add_user_project_role get_or_create_endpoint run_process \
        stop_process wait_for_service recreate_database openstack; do
    eval "$_name() { _standin $_name \"\$@\"; }"
done
unset _name

get_or_create_service() {
    _standin get_or_create_service "$@"
    # The id that keystone would give it.
    echo "$1"
}

create_service_user() {
    local role
    get_or_create_user "$1" "$SERVICE_PASSWORD" "$SERVICE_DOMAIN_NAME"
    for role in service ${2:+"$2"}; do
        get_or_add_user_project_role "$role" "$1" "$SERVICE_PROJECT_NAME" \
            "$SERVICE_DOMAIN_NAME" "$SERVICE_DOMAIN_NAME"
    done
}

define_plugin() {
    :
}

plugin_requires() {
    :
}

enable_service() {
    local name
    for name in "$@"; do
        is_service_enabled "$name" || ENABLED_SERVICES+=",$name"
    done
}

is_service_enabled() {
    [[ ,$ENABLED_SERVICES, == *,$1,* ]]
}

echo_summary() {
    printf '%s\n' "$*"
}

die() {
    local line=$1
    shift
    printf 'line %s: %s\n' "$line" "$*" >&2
    exit 1
}

# trueorfalse DEFAULT NAME
trueorfalse() {
    case ${!2:-$1} in
        1|[Yy]es|YES|[Tt]rue|TRUE) echo True ;;
        0|[Nn]o|NO|[Ff]alse|FALSE) echo False ;;
        *) die "$LINENO" "$2 is '${!2}', neither True nor False" ;;
    esac
}

# Without it where there is no sudo, and nothing to become.
sudo() {
    if [ "$(id -u)" = 0 ] || ! command -v sudo >/dev/null; then
        "$@"
    else
        command sudo "$@"
    fi
}

get_python_exec_prefix() {
    dirname "$PYTHON"
}

# DATABASE_URL has %s where the database's name goes.
database_connection_url() {
    printf '%s\n' "${DATABASE_URL/\%s/$1}"
}

# iniset_rpc_backend SERVICE FILE [SECTION]
iniset_rpc_backend() {
    iniset "$2" "${3:-DEFAULT}" transport_url "$TRANSPORT_URL"
}

configure_keystone_authtoken_middleware() {
    local file=$1 section=${3:-keystone_authtoken}
    iniset "$file" "$section" auth_type password
    iniset "$file" "$section" www_authenticate_uri "$KEYSTONE_SERVICE_URI"
    iniset "$file" "$section" auth_url "$KEYSTONE_SERVICE_URI"
    iniset "$file" "$section" username "$2"
    iniset "$file" "$section" password "$SERVICE_PASSWORD"
    iniset "$file" "$section" project_name "$SERVICE_PROJECT_NAME"
    iniset "$file" "$section" user_domain_name "$SERVICE_DOMAIN_NAME"
    iniset "$file" "$section" project_domain_name "$SERVICE_DOMAIN_NAME"
}

# iniset FILE SECTION OPTION VALUE: in the shell alone, for values may be
# passwords, which no command line should show.
iniset() (
    umask 077
    file=$1 section=$2 option=$3 value=$4 current='' written='' lines=()
    [ ! -e "$file" ] || mapfile -t lines <"$file"
    {
        for line in "${lines[@]}"; do
            if [[ $line == \[*\] ]]; then
                if [ "$current" = "$section" ] && [ -z "$written" ]; then
                    printf '%s = %s\n' "$option" "$value"
                    written=yes
                fi
                current=${line#[} current=${current%]}
            elif [[ $current/$line =~ ^"$section/$option"[[:space:]]*= ]]; then
                line="$option = $value" written=yes
            fi
            printf '%s\n' "$line"
        done
        if [ -z "$written" ]; then
            [ "$current" = "$section" ] || printf '[%s]\n' "$section"
            printf '%s = %s\n' "$option" "$value"
        fi
    } >"$file.new"
    # Not moved: the file's own mode and owner stay.
    cat "$file.new" >"$file"
    rm "$file.new"
)
