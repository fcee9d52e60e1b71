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

# Functions of /init: the launch secret and the shape of a LUKS2 header.
# Written for busybox's ash; bash understands them too.

# What the AmdSev firmware of OVMF publishes: 3072 bytes at 0x810000.
SECRET_BASE=8454144
SECRET_SIZE=3072
MEMORY=/dev/mem
# GUIDs are in memory as in a Windows registry: the first three fields have
# their bytes reversed.
TABLE_GUID=42f5741edd71664d963eef4287ff173b
COCO_FOLDER=/sys/kernel/security/secrets/coco

# $1: a GUID as people write it. Prints its 16 bytes in hex as in memory.
guid_bytes() {
    _guid=$(printf '%s' "$1" | tr -d -)
    printf '%s' "${_guid:6:2}${_guid:4:2}${_guid:2:2}${_guid:0:2}"
    printf '%s' "${_guid:10:2}${_guid:8:2}${_guid:14:2}${_guid:12:2}"
    printf '%s' "${_guid:16}"
}

# $1: eight hex digits. Prints the little-endian number that they spell.
le32() {
    echo "$((0x${1:6:2}${1:4:2}${1:2:2}${1:0:2}))"
}

# $1: a launch secret table in hex (what follows it is not looked at), $2: a
# GUID. Prints the entry's data in hex; fails with a reason when there is no
# such entry, or when a length leads out of the table.
table_entry() {
    if [ "${1:0:32}" != "$TABLE_GUID" ]; then
        echo 'guest: there is no launch secret table' >&2
        return 1
    fi
    _end=$(le32 "${1:32:8}")
    _at=20
    if [ "$_end" -gt $((${#1} / 2)) ]; then
        echo "guest: the launch secret table claims $_end bytes" >&2
        return 1
    fi
    _wanted=$(guid_bytes "$2")
    while [ "$_at" -lt "$_end" ]; do
        _left=$((_end - _at))
        _size=0
        if [ "$_left" -ge 20 ]; then
            _size=$(le32 "${1:$((2 * _at + 32)):8}")
        fi
        if [ "$_size" -lt 20 ] || [ "$_size" -gt "$_left" ]; then
            echo "guest: the launch secret table is broken at $_at" >&2
            return 1
        fi
        if [ "${1:$((2 * _at)):32}" = "$_wanted" ]; then
            printf '%s' "${1:$((2 * _at + 40)):$((2 * (_size - 20)))}"
            return 0
        fi
        _at=$((_at + _size))
    done
    echo "guest: the launch secret table has no entry $2" >&2
    return 1
}

to_hex() {
    od -An -v -tx1 | tr -d ' \n'
}

read_area() {
    dd if="$MEMORY" bs="$SECRET_SIZE" count=1 \
        skip="$((SECRET_BASE / SECRET_SIZE))" 2>/dev/null
}

# $1: a GUID. Prints that secret in hex and leaves none in its place.
take_secret() {
    if [ -e "$COCO_FOLDER/$1" ]; then
        # Kernels with efi_secret; removing the file wipes the entry.
        to_hex < "$COCO_FOLDER/$1"
        rm "$COCO_FOLDER/$1" || return 1
        return 0
    fi
    # Debian's kernels have no efi_secret. The page is reserved memory, and
    # the emulated platform keeps it where a plain mapping finds it, so
    # /dev/mem (with iomem=relaxed) will do there. On SEV hardware use a
    # kernel with efi_secret, and drop iomem=relaxed.
    _area=$(read_area | to_hex)
    if [ "${#_area}" -ne "$((2 * SECRET_SIZE))" ]; then
        echo 'guest: the launch secret area cannot be read' >&2
        return 1
    fi
    dd if=/dev/zero of="$MEMORY" bs="$SECRET_SIZE" count=1 conv=notrunc \
        seek="$((SECRET_BASE / SECRET_SIZE))" 2>/dev/null
    case $(read_area | to_hex) in
        *[!0]*)
            echo 'guest: the launch secret area cannot be wiped' >&2
            return 1
            ;;
    esac
    table_entry "$_area" "$1"
}

# Standard input: LUKS2 metadata as cryptsetup prints it. Prints them with
# what is random or tunable (salts, digest, iterations) taken out, so that
# one comparison with the accepted shape leaves nothing else open: no null
# cipher in a keyslot or the data, no second segment, no re-encryption, no
# requirements or flags, no tokens.
header_shape() {
    sed -e 's/^ *//' | tr -d '\n' | sed \
        -e 's/"\(salt\|digest\)":"[A-Za-z0-9+\/=]*"/"\1":"*"/g' \
        -e 's/"iterations":[0-9]*/"iterations":0/g'
    echo
}
