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

# devstack's plugin: the key service where attestation-api (or
# attestation-rpc) is enabled, the driver wherever n-cpu is. Variables are in
# settings; doc/source/devstack.rst is the guide.

# Save trace setting
_XTRACE_ATTESTATION=$(set +o | grep xtrace)
set +o xtrace

ATTESTATION_SEALING_KEYS=${ATTESTATION_SEALING_KEYS:-$ATTESTATION_CONF_DIR/sealing-keys}
ATTESTATION_AUDIT_KEYS=${ATTESTATION_AUDIT_KEYS:-$ATTESTATION_CONF_DIR/audit-keys}
ATTESTATION_AMD_CERTIFICATES=$ATTESTATION_CONF_DIR/amd
ATTESTATION_UWSGI_CONF=$ATTESTATION_CONF_DIR/uwsgi.ini

# The emulated platform: an unpacked hypervisor, and what its programs keep.
ATTESTATION_ROOT=$ATTESTATION_DATA_DIR/root
ATTESTATION_PLATFORM_KEYS=${ATTESTATION_PLATFORM_KEYS:-$ATTESTATION_DATA_DIR/platform}
# Of sockets, whose paths must be short.
ATTESTATION_RUN_DIR=${ATTESTATION_RUN_DIR:-/run/nova-sev-attest}
ATTESTATION_DROP_IN=${ATTESTATION_DROP_IN:-/etc/systemd/system/devstack@n-cpu.service.d/sev.conf}


# Helpers
# -------

# is_attestation_enabled - whether this node runs a part of the key service
function is_attestation_enabled {
    [[ ,$ENABLED_SERVICES, =~ ,attestation-(api|rpc), ]]
}

function _attestation_is_emulated {
    case $ATTESTATION_PLATFORM in
        emulated) return 0 ;;
        host) return 1 ;;
        *) die $LINENO "ATTESTATION_PLATFORM is '$ATTESTATION_PLATFORM'," \
            "not 'host' or 'emulated'" ;;
    esac
}

function _attestation_bin {
    echo "$(get_python_exec_prefix)/$1"
}

# _attestation_credential FILE SECTION USER PASSWORD - options of keystoneauth
function _attestation_credential {
    local file=$1 section=$2
    iniset "$file" "$section" auth_type password
    iniset "$file" "$section" auth_url "$KEYSTONE_SERVICE_URI"
    iniset "$file" "$section" username "$3"
    iniset "$file" "$section" password "$4"
    iniset "$file" "$section" project_name "$SERVICE_PROJECT_NAME"
    iniset "$file" "$section" user_domain_name "$SERVICE_DOMAIN_NAME"
    iniset "$file" "$section" project_domain_name "$SERVICE_DOMAIN_NAME"
    iniset "$file" "$section" region_name "$REGION_NAME"
}


# install
# -------

function install_attestation {
    local extras=()

    is_attestation_enabled && extras+=(keyservice postgresql)
    # As a package and not in place: an editable install cannot put the few
    # lines that Nova loads into the package nova.virt.
    setup_install "$ATTESTATION_DIR" "$(IFS=,; echo "${extras[*]}")"
    if is_attestation_enabled; then
        pip_install pyuwsgi
    fi
    if is_service_enabled n-cpu && _attestation_is_emulated; then
        install_package gcc libc6-dev
        sudo mkdir -p "$ATTESTATION_DATA_DIR"
        sudo "$PYTHON" "$ATTESTATION_DIR/devstack/lab/compute_root.py" build \
            --root "$ATTESTATION_ROOT" \
            --cache "$ATTESTATION_DATA_DIR/cache"
    fi
}


# configure
# ---------

function configure_attestation_keyservice {
    sudo install -d -m 755 -o "$STACK_USER" "$ATTESTATION_CONF_DIR"
    : >"$ATTESTATION_CONF"
    # It holds passwords.
    chmod 600 "$ATTESTATION_CONF"

    iniset "$ATTESTATION_CONF" DEFAULT debug "$ENABLE_DEBUG_LOG_LEVEL"
    iniset "$ATTESTATION_CONF" database connection \
        "$(database_connection_url attestation)"
    configure_keystone_authtoken_middleware "$ATTESTATION_CONF" attestation
    _attestation_credential "$ATTESTATION_CONF" nova attestation \
        "$SERVICE_PASSWORD"
    _attestation_credential "$ATTESTATION_CONF" barbican attestation \
        "$SERVICE_PASSWORD"
    iniset "$ATTESTATION_CONF" sealing key_repository \
        "$ATTESTATION_SEALING_KEYS"
    iniset "$ATTESTATION_CONF" audit key_repository "$ATTESTATION_AUDIT_KEYS"
    if is_service_enabled attestation-rpc; then
        iniset_rpc_backend nova "$ATTESTATION_CONF"
    fi
    if [ "$(trueorfalse False ATTESTATION_NOTIFICATIONS)" = True ]; then
        iniset_rpc_backend nova "$ATTESTATION_CONF" \
            oslo_messaging_notifications
        iniset "$ATTESTATION_CONF" oslo_messaging_notifications driver \
            messagingv2
    fi
    if _attestation_is_emulated; then
        iniset "$ATTESTATION_CONF" trust extra_anchors \
            "emulated=$ATTESTATION_PLATFORM_KEYS/ask_ark.cert"
    else
        iniset "$ATTESTATION_CONF" trust amd_certificates \
            "$ATTESTATION_AMD_CERTIFICATES"
    fi

    cp "$ATTESTATION_DIR/etc/nova-sev-attest/uwsgi.ini" \
        "$ATTESTATION_UWSGI_CONF"
}

function configure_attestation_compute {
    iniset "$NOVA_CONF" DEFAULT compute_driver sev_attest.LibvirtDriver
    iniset "$NOVA_CONF" sev_attest mode "$ATTESTATION_MODE"
    iniset "$NOVA_CONF" sev_attest transport "$ATTESTATION_TRANSPORT"
    _attestation_credential "$NOVA_CONF" sev_attest \
        "$ATTESTATION_HOST_USER" "$ATTESTATION_HOST_PASSWORD"
    if _attestation_is_emulated; then
        iniset "$NOVA_CONF" libvirt connection_uri \
            "qemu+unix:///system?socket=$ATTESTATION_RUN_DIR/libvirt/libvirt-sock"
        iniset "$NOVA_CONF" libvirt virt_type qemu
        iniset "$NOVA_CONF" libvirt hw_machine_type x86_64=q35
        _attestation_write_drop_in
    fi
}

# Nova looks below /sys/module for what the kernel can do: the emulated
# platform's nova-compute gets a view of it in which there is SEV. Only root
# can give it that, and only root reaches the emulated platform's libvirt.
function _attestation_write_drop_in {
    sudo mkdir -p "$(dirname "$ATTESTATION_DROP_IN")"
    sudo tee "$ATTESTATION_DROP_IN" >/dev/null <<UNIT
[Service]
ExecStart=
ExecStart=+$PYTHON $ATTESTATION_DIR/devstack/lab/kvm_amd.py --sev-es -- $(_attestation_bin nova-compute) --config-file $NOVA_CPU_CONF
UNIT
}

# create_attestation_accounts - the users in keystone, and the endpoint
function create_attestation_accounts {
    local service

    # Reads servers and hosts of all projects, which Nova grants to
    # administrators only.
    create_service_user attestation admin
    service=$(get_or_create_service nova-sev-attest attestation \
        "Launch attestation")
    get_or_create_endpoint "$service" "$REGION_NAME" \
        "$ATTESTATION_SERVICE_URL" "$ATTESTATION_SERVICE_URL" \
        "$ATTESTATION_SERVICE_URL"
}

# create_attestation_host_account - this compute host's own user
function create_attestation_host_account {
    get_or_create_user "$ATTESTATION_HOST_USER" "$ATTESTATION_HOST_PASSWORD" \
        "$SERVICE_DOMAIN_NAME"
    get_or_add_user_project_role service "$ATTESTATION_HOST_USER" \
        "$SERVICE_PROJECT_NAME" "$SERVICE_DOMAIN_NAME" "$SERVICE_DOMAIN_NAME"
}


# initialise
# ----------

function init_attestation {
    local manage
    manage="$(_attestation_bin nova-sev-attest-manage)"

    recreate_database attestation
    "$manage" --config-file "$ATTESTATION_CONF" db sync
    if ! [ -d "$ATTESTATION_SEALING_KEYS" ]; then
        "$manage" --config-file "$ATTESTATION_CONF" sealing-key create
    fi
    if ! [ -d "$ATTESTATION_AUDIT_KEYS" ]; then
        "$manage" --config-file "$ATTESTATION_CONF" audit-key create
    fi
    if ! _attestation_is_emulated; then
        mkdir -p "$ATTESTATION_AMD_CERTIFICATES"
        if [ "$(trueorfalse True ATTESTATION_FETCH_ROOTS)" = True ]; then
            "$manage" --config-file "$ATTESTATION_CONF" amd-root fetch \
                ${ATTESTATION_ROOTS_URL:+--url "$ATTESTATION_ROOTS_URL"}
        fi
    fi
}

function create_attestation_flavors {
    local model

    for model in amd-sev amd-sev-es; do
        if ! openstack flavor show "m1.${model#amd-}" >/dev/null 2>&1; then
            openstack flavor create --ram 512 --disk 1 --vcpus 1 \
                --property hw:mem_encryption=true \
                --property "hw:mem_encryption_model=$model" \
                "m1.${model#amd-}"
        fi
    done
}


# start and stop
# --------------

function start_attestation_platform {
    local tool=$ATTESTATION_DIR/devstack/lab/compute_root.py

    run_process attestation-platform "$PYTHON $tool platform \
        --root $ATTESTATION_ROOT --run $ATTESTATION_RUN_DIR \
        --keys $ATTESTATION_PLATFORM_KEYS" "" root
    _attestation_await_platform
    run_process attestation-libvirt "$PYTHON $tool libvirtd \
        --root $ATTESTATION_ROOT --run $ATTESTATION_RUN_DIR \
        --state $ATTESTATION_DATA_DIR/libvirt \
        --log $ATTESTATION_DATA_DIR/log --host-name $ATTESTATION_HOST_NAME \
        --host-uuid $(cat /proc/sys/kernel/random/uuid) \
        --bind $NOVA_STATE_PATH" "" root
}

# libvirt remembers the platform that it finds when it starts, and the key
# service reads the platform's root when it does.
function _attestation_await_platform {
    if ! timeout "$ATTESTATION_PLATFORM_TIMEOUT" sh -c "until [ -e '$ATTESTATION_RUN_DIR/sev/platform.sock' ]; do sleep 0.2; done"; then
        die $LINENO "the emulated platform did not start"
    fi
}

function start_attestation_keyservice {
    run_process attestation-api "$(_attestation_bin uwsgi) \
        --ini $ATTESTATION_UWSGI_CONF" "" "" \
        "NOVA_SEV_ATTEST_CONFIG_FILE=$ATTESTATION_CONF NOVA_SEV_ATTEST_LISTEN=$ATTESTATION_SERVICE_LISTEN_ADDRESS:$ATTESTATION_SERVICE_PORT NOVA_SEV_ATTEST_WORKERS=$ATTESTATION_WORKERS NOVA_SEV_ATTEST_THREADS=$ATTESTATION_THREADS"
    run_process attestation-rpc "$(_attestation_bin nova-sev-attest-rpc) \
        --config-file $ATTESTATION_CONF"
    if is_service_enabled attestation-api &&
            ! wait_for_service "$SERVICE_TIMEOUT" \
                "$ATTESTATION_SERVICE_URL/healthcheck"; then
        die $LINENO "the key service did not start"
    fi
}

function stop_attestation {
    stop_process attestation-rpc
    stop_process attestation-api
    stop_process attestation-libvirt
    stop_process attestation-platform
}

# cleanup_attestation - all that was made, but for the database
function cleanup_attestation {
    sudo rm -rf "$ATTESTATION_CONF_DIR" "$ATTESTATION_DATA_DIR" \
        "$ATTESTATION_RUN_DIR"
    sudo rm -f "$ATTESTATION_DROP_IN"
    sudo rmdir --ignore-fail-on-non-empty \
        "$(dirname "$ATTESTATION_DROP_IN")" 2>/dev/null || true
}


# Dispatch
# --------

case $1/$2 in
    stack/install)
        echo_summary "Installing nova-sev-attest"
        install_attestation
        ;;
    stack/post-config)
        echo_summary "Configuring nova-sev-attest"
        if is_attestation_enabled; then
            configure_attestation_keyservice
            if is_service_enabled key; then
                create_attestation_accounts
            fi
        fi
        if is_service_enabled n-cpu; then
            configure_attestation_compute
            create_attestation_host_account
            # Before Nova starts, which asks libvirt what the host can do.
            if _attestation_is_emulated; then
                start_attestation_platform
            fi
        fi
        if is_attestation_enabled; then
            init_attestation
        fi
        ;;
    stack/extra)
        if is_attestation_enabled; then
            echo_summary "Starting the attestation key service"
            start_attestation_keyservice
        fi
        if is_service_enabled n-api &&
                [ "$(trueorfalse True ATTESTATION_FLAVORS)" = True ]; then
            create_attestation_flavors
        fi
        ;;
    unstack/)
        stop_attestation
        ;;
    clean/)
        cleanup_attestation
        ;;
esac

# Restore xtrace
$_XTRACE_ATTESTATION
