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

"""Options that say what a policy allows, and what they make of it."""

import argparse
import dataclasses

from osc_lib import exceptions

from nova_sev_attest.osc import measured
from nova_sev_attest.osc import names

#: What may stand for the GUID that OVMF's users agreed on for the passphrase
#: of a LUKS disk.
LUKS = 'luks'

_SHA256 = '[0-9a-fA-F]{64}'
# What a server's image needs besides a kernel, to be attested.
_IMAGE_PROPERTIES = {'hw_firmware_type': 'uefi',
                     'hw_firmware_stateless': 'true',
                     'hw_machine_type': 'q35'}


def _number(text):
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no number; expected one such as 12 or 0x800f12'
        ) from None


def _fingerprint(text):
    import re

    if not re.fullmatch(_SHA256, text):
        raise argparse.ArgumentTypeError(
            f'{text!r}: expected a SHA-256 of 64 hexadecimal digits')
    return text.lower()


def _guid(text):
    import uuid

    from nova_sev_attest.launch import secret

    if text.lower() == LUKS:
        return str(secret.LUKS_PASSPHRASE_GUID)
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no GUID; expected one, or "{LUKS}" for the '
            f'passphrase of a LUKS disk') from None


def _secret(text):
    guid, separator, reference = text.partition('=')
    if not separator or not reference:
        # What stands there may be the secret itself: it is not repeated.
        raise argparse.ArgumentTypeError(
            f'expected <guid>=<secret>, such as {LUKS}=my-passphrase, where '
            f'my-passphrase is the name of a secret in Barbican. A secret '
            f'itself is never given on the command line')
    return _guid(guid), reference


def _time(text):
    import datetime

    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no time; expected one such as 2026-01-31T08:00, in '
            f'UTC unless it says otherwise') from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return moment.astimezone(datetime.timezone.utc).strftime(
        '%Y-%m-%dT%H:%M:%SZ')


@dataclasses.dataclass(frozen=True)
class _List:
    """An option that adds to a list of a policy.

    :ivar member: of the policy, or of a part of it
    :ivar part: name of that part, None for the policy itself
    :ivar any: whether null stands for anything, so that it is never empty
    """

    option: str
    member: str
    metavar: str
    help: str
    type: object = str
    any: bool = False
    choices: tuple | None = None
    part: str | None = None

    @property
    def key(self):
        """What names it among all of them."""
        return f'{self.part}_{self.member}' if self.part else self.member

    @property
    def dest(self):
        return f'add_{self.key}'


_FILES = {'firmwares': 'firmware', 'kernels': 'kernel', 'initrds': 'initrd'}
_LISTS = (
    _List('firmware', 'firmwares', '<file>',
          'Firmware that may run; a file is uploaded unless the key service '
          'has it. Or its SHA-256'),
    _List('kernel', 'kernels', '<file>',
          'Kernel that may be booted directly, measured. Or its SHA-256'),
    _List('initrd', 'initrds', '<file>',
          'Initrd of these kernels. Or its SHA-256'),
    _List('command-line', 'command_lines', '<text>',
          'Kernel command line, exactly as it is set on the image; \'\' for '
          'none'),
    _List('technology', 'technologies', '<technology>',
          'Kind of guest (default: amd-sev)',
          choices=('amd-sev', 'amd-sev-es')),
    _List('trusted-root', 'trusted_roots', '<root>',
          'Root of platforms that are trusted, such as amd-milan (default: '
          'all of AMD\'s)'),
    _List('vcpus', 'vcpus', '<number>',
          'Number of vCPUs; measured, and needed, with SEV-ES only, as are '
          'the next three', _number, any=True),
    _List('cpu-model', 'cpu_models', '<name>',
          'QEMU\'s CPU model, such as EPYC-Milan-v2'),
    _List('cpu-signature', 'cpu_signatures', '<number>',
          'CPUID leaf 1 EAX, in place of a CPU model', _number),
    _List('launch-profile', 'launch_profiles', '<name>',
          'What the host puts into the registers: qemu-init2 or '
          'qemu-legacy'),
    _List('allowed-chip', 'allowed_chips', '<sha256>',
          'SHA-256 of the CEK of a chip that may run it (default: any)',
          _fingerprint, any=True),
    _List('allowed-owner', 'allowed_owners', '<sha256>',
          'SHA-256 of the OCA of who may own the platform (default: anyone)',
          _fingerprint, any=True),
    _List('secret', 'secrets', '<guid>=<secret>',
          f'What a guest that verified gets: a secret in Barbican, by name, '
          f'UUID or reference, under the GUID by which the guest finds it; '
          f'"{LUKS}" stands for that of a LUKS passphrase', _secret),
)
_LIMIT_LISTS = (
    _List('limit-server', 'servers', '<server>',
          'Only this server may be launched (name or ID)'),
    _List('limit-host-aggregate', 'host_aggregates', '<aggregate>',
          'Only on hosts of this aggregate'),
)
_LIMITS = ('not_before', 'not_after', 'max_releases')
_RESCUE_LISTS = tuple(
    _List(f'rescue-{option}', member, metavar, text, kind, part='rescue')
    for option, member, metavar, text, kind in (
        ('kernel', 'kernels', '<file>',
         'Kernel that a rescue may have, in place of the policy\'s own. Or '
         'its SHA-256', str),
        ('initrd', 'initrds', '<file>',
         'Initrd of a rescue, in place of the policy\'s own. Or its SHA-256',
         str),
        ('command-line', 'command_lines', '<text>',
         'Kernel command line of a rescue, in place of the policy\'s own: '
         'the one that Nova gives a rescue, whatever the image says', str),
        ('secret', 'secrets', '<guid>=<secret>',
         'What a rescue that verified gets, as with --secret; it gets none '
         'of those', _secret)))
_ALL_LISTS = (*_LISTS, *_LIMIT_LISTS, *_RESCUE_LISTS)


def _add_lists(parser, lists, clearing):
    for each in lists:
        parser.add_argument(
            f'--{each.option}', metavar=each.metavar, action='append',
            default=[], dest=each.dest, type=each.type, choices=each.choices,
            help=f'{each.help} (repeat for several)')
        if clearing:
            parser.add_argument(
                f'--no-{each.option}', action='store_true',
                dest=f'no_{each.key}',
                help=f'Empty the list first: --{each.option} then says all '
                     f'of it')


def add_options(parser, clearing=False):
    """Options for what a policy allows.

    :param clearing: whether there is a list to be emptied
    """
    group = parser.add_argument_group('what may be launched')
    _add_lists(group, _LISTS, clearing)
    group.add_argument(
        '--from-image', metavar='<image>', action='append', default=[],
        dest='images',
        help='Add kernel, initrd and command line of this image, as Glance '
             'has them (name or ID; repeat for several)')
    for name, member, text in (
            ('firmware-boot', 'firmware_boot',
             'let the firmware boot what it finds on the disks, unmeasured'),
            ('default', 'is_default',
             'launch servers under it that name no policy')):
        chosen = group.add_mutually_exclusive_group()
        chosen.add_argument(f'--{name}', action='store_true', default=None,
                            dest=member, help=text.capitalize())
        chosen.add_argument(f'--no-{name}', action='store_false',
                            dest=member, help=f'Do not {text}')
    group.add_argument('--min-api-version', metavar='<major>.<minor>',
                       help='Oldest SEV API version of the platform')
    group.add_argument('--min-build', metavar='<number>', type=_number,
                       help='Oldest build of that version')
    group = parser.add_argument_group('who decides, and how often')
    group.add_argument(
        '--verifier', choices=('service', 'owner'),
        help='Who verifies: the key service (default), or you, who make the '
             'session and pack the secret yourself')
    group.add_argument(
        '--approval', choices=('automatic', 'owner'),
        help='Who releases what verified: the key service (default), or '
             'you, by "attestation launch approve"')
    _add_lists(group, _LIMIT_LISTS, clearing)
    group.add_argument('--limit-not-before', metavar='<time>', type=_time,
                       dest='not_before', help='No launch before this time')
    group.add_argument('--limit-not-after', metavar='<time>', type=_time,
                       dest='not_after', help='No launch after this time')
    group.add_argument('--limit-max-releases', metavar='<number>',
                       type=_number, dest='max_releases',
                       help='How often it may release in all')
    group = parser.add_argument_group(
        'what a rescue may have, and gets',
        'Without these options a rescue may have what a boot may, and gets '
        'no secret.')
    _add_lists(group, _RESCUE_LISTS, clearing)
    if clearing:
        group.add_argument('--no-rescue', action='store_true',
                           help='Forget all of that first')


def add_unset_options(parser):
    """Options for what is taken out of a policy."""
    for each in _ALL_LISTS:
        secrets = each.member == 'secrets'
        parser.add_argument(
            f'--{each.option}', action='append', default=[], dest=each.dest,
            metavar='<guid>' if secrets else each.metavar,
            type=_guid if secrets else each.type,
            help='Take this out of the list (repeat for several)')
    for name in ('min_api_version', 'min_build'):
        parser.add_argument(f'--{name.replace("_", "-")}', dest=name,
                            action='store_true', help='Allow any')
    for name in _LIMITS:
        parser.add_argument(f'--limit-{name.replace("_", "-")}', dest=name,
                            action='store_true', help='Lift this limit')
    parser.add_argument('--rescue', action='store_true',
                        help='Let a rescue have what a boot may, and no '
                             'secret')


class Given:
    """What the options of one command say.

    :ivar lists: {member: list of what is added}
    :ivar known: Measured, of the files that were read
    :ivar warnings: list of sentences
    """

    def __init__(self, args):
        self._args = args
        self.known = measured.Measured()
        self.warnings = []
        self.lists = {each.key: [] for each in _ALL_LISTS}

    def changes(self, policy):
        """The members that are given, merged with what a policy has.

        :param policy: its members; {} for a new one
        """
        changes = self._merged(_LISTS, policy)
        for name in ('firmware_boot', 'is_default', 'min_api_version',
                     'min_build', 'verifier', 'approval'):
            value = getattr(self._args, name)
            if value is not None:
                changes[name] = value
        limits = policy.get('limits') or {}
        given = self._merged(_LIMIT_LISTS, limits)
        for name in _LIMITS:
            if getattr(self._args, name) is not None:
                given[name] = getattr(self._args, name)
        if given:
            changes['limits'] = _without_empty(limits | given)
        forget = getattr(self._args, 'no_rescue', False)
        rescue = {} if forget else policy.get('rescue') or {}
        given = self._merged(_RESCUE_LISTS, rescue)
        if given or forget:
            changes['rescue'] = rescue | given or None
        return changes

    def _merged(self, lists, old):
        merged = {}
        for each in lists:
            cleared = getattr(self._args, f'no_{each.key}', False)
            added = self.lists[each.key]
            if not cleared and not added:
                continue
            kept = [] if cleared else list(old.get(each.member) or [])
            if each.member == 'secrets':
                guids = {item['guid'] for item in added}
                kept = [item for item in kept if item['guid'] not in guids]
            merged[each.member] = kept + [
                item for item in added if item not in kept]
            if each.any and not merged[each.member]:
                merged[each.member] = None
        return merged


def _without_empty(limits):
    return {name: value for name, value in limits.items()
            if value not in (None, [])} or None


def read(command, args, upload=True):
    """Read files, ask Glance and Barbican: what the options say.

    :param command: whose options they are
    :param upload: whether firmware files are to be uploaded
    :returns: Given
    """
    given = Given(args)
    manager = command.app.client_manager
    for each in _ALL_LISTS:
        words = getattr(args, each.dest)
        if each.member == 'firmwares':
            found = [_firmware(command, given, word, upload)
                     for word in words]
        elif each.member in _FILES:
            found = [_hashed(given, _FILES[each.member], word)
                     for word in words]
        elif each.member == 'secrets':
            found = [_referred(given, manager, *pair) for pair in words]
        elif each.member == 'servers':
            found = [names.server(manager, word) for word in words]
        else:
            found = words
        given.lists[each.key] = list(found)
    for word in args.images:
        _image(given, manager.image, word)
    given.lists = {key: _once(found) for key, found in given.lists.items()}
    return given


def _once(items):
    return [item for at, item in enumerate(items) if item not in items[:at]]


def _is_hash(word):
    import os
    import re

    return re.fullmatch(_SHA256, word) and not os.path.exists(word)


def _firmware(command, given, word, upload):
    from nova_sev_attest import files
    from nova_sev_attest.osc import firmware

    if _is_hash(word):
        return word.lower()
    if upload:
        image, _ = firmware.upload(command, word)
    else:
        image = files.Reader().firmware(word)
        image.require_secret_area()
    given.known.add(image, word)
    return image.sha256.hex()


def _hashed(given, what, word):
    from nova_sev_attest import files

    if _is_hash(word):
        return word.lower()
    sha256 = files.Reader().sha256(word, f'a {what}')
    given.known.labels[sha256] = word
    return sha256


def _referred(given, manager, guid, word):
    reference = names.secret(manager, word)
    users = names.secret_readers(manager, reference)
    if users == []:
        given.warnings.append(
            f'Nobody but your project may read secret {word}: the key '
            f'service\'s user has to be let in, by "openstack acl user add '
            f'--user <user id> <secret href>".')
    return {'guid': guid, 'secret_ref': reference}


def _image(given, glance, word):
    """Add what a server of an image would be booted with."""
    image = glance.find_image(word, ignore_missing=True)
    if image is None:
        from nova_sev_attest.osc import base

        raise base.unknown(word, 'image',
                           [each.name for each in glance.images()])
    kernel = _property(image, 'kernel_id')
    if not kernel:
        raise exceptions.CommandError(
            f'Image {word} has no property kernel_id: a server of it boots '
            f'what its firmware finds, and only the firmware is measured. '
            f'Set kernel_id, ramdisk_id and os_command_line on the image.')
    for member, kind in (('kernels', 'kernel'), ('initrds', 'ramdisk')):
        image_id = _property(image, f'{kind}_id')
        if image_id:
            sha256 = _downloaded(glance, image_id)
            given.known.labels.setdefault(sha256, f'image {image_id}')
            given.lists[member].append(sha256)
    given.lists['command_lines'].append(
        _property(image, 'os_command_line') or '')
    for name, wanted in _IMAGE_PROPERTIES.items():
        value = str(_property(image, name)).lower()
        if value != wanted and not (
                name == 'hw_machine_type' and wanted in value):
            given.warnings.append(
                f'Image {word} needs the property {name}={wanted} to be '
                f'attested.')
    given.warnings.append(
        f'Kernel and initrd of image {word} were hashed as Glance gave them, '
        f'and Glance is the operator\'s: compare the hashes with those of '
        f'your own files, or give these.')


def _property(image, name):
    value = getattr(image, name, None)
    return (image.properties or {}).get(name) if value is None else value


def _downloaded(glance, image_id):
    """SHA-256 of an image, which is not kept."""
    import hashlib

    hasher = hashlib.sha256()
    answer = glance.download_image(image_id, stream=True)
    try:
        for piece in answer.iter_content(1 << 20):
            hasher.update(piece)
    finally:
        answer.close()
    return hasher.hexdigest()


def without(command, args, policy):
    """What remains of a policy: the members that change.

    :raises CommandError: something is not there to be taken out
    """
    changes = _remaining(command, args, _LISTS, policy)
    for name in ('min_api_version', 'min_build'):
        if getattr(args, name):
            changes[name] = None
    limits = policy.get('limits') or {}
    left = _remaining(command, args, _LIMIT_LISTS, limits)
    left |= {name: None for name in _LIMITS if getattr(args, name)}
    if left:
        changes['limits'] = _without_empty(limits | left)
    rescue = policy.get('rescue') or {}
    left = _remaining(command, args, _RESCUE_LISTS, rescue)
    if left:
        changes['rescue'] = rescue | left
    if args.rescue:
        changes['rescue'] = None
    return changes


def _remaining(command, args, lists, old):
    remaining = {}
    for each in lists:
        words = getattr(args, each.dest)
        if not words:
            continue
        items = list(old.get(each.member) or [])
        for word in words:
            items.remove(_listed(command, each, word, items))
        remaining[each.member] = None if each.any and not items else items
    return remaining


def _listed(command, each, word, items):
    """The item of a list that a word stands for."""
    from nova_sev_attest.osc import base

    if each.member == 'secrets':
        found = [item for item in items if item['guid'] == word]
        keys = [item['guid'] for item in items]
    else:
        if each.member in _FILES and not _is_hash(word):
            from nova_sev_attest import files

            word = files.Reader().sha256(word, f'a {_FILES[each.member]}')
        elif each.member == 'servers':
            word = names.server(command.app.client_manager, word)
        found = [item for item in items if item == word]
        keys = [str(item) for item in items]
    if not found:
        raise base.unknown(str(word), f'{each.option} in the policy', keys)
    return found[0]
