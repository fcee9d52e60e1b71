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

"""The owner's rules for platforms, by options or in a file.

They are those of the key service's policies, under the names that they have
there. Certificates tell root, chip and owner; the version of the firmware
that runs is under the measurement only.
"""

import dataclasses
import json
import re

from nova_sev_attest.cmd.sev_attest import base
from nova_sev_attest.cmd.sev_attest import options
from nova_sev_attest import files

_MAX_FILE_SIZE = 64 * 1024
_SHOWN = 3  # of a list, in a message

_ROOTS, _CHIPS, _OWNERS, _API, _BUILD = _FIELDS = (
    'trusted_roots', 'allowed_chips', 'allowed_owners', 'min_api_version',
    'min_build')
#: Field -> the option that says the same.
_OPTIONS = {_ROOTS: '--allow-root', _CHIPS: '--allow-chip',
            _OWNERS: '--allow-owner', _API: '--min-api',
            _BUILD: '--min-build'}
_ADVICE = {
    _ROOTS: 'use a platform of one of these generations, or allow this one',
    _CHIPS: 'use one of these chips, or allow this one if you know it is '
            'yours',
    _OWNERS: 'use a platform that one of these owners has taken over, or '
             'allow this one',
    _API: "have the host's firmware updated"}


def _add_file(group):
    group.add_argument('--rules', metavar='FILE',
                       help='JSON object of any of '
                            f'{", ".join(_FIELDS)}, as in a policy of the '
                            'key service')


def add_platform(parser):
    """Options for what certificates tell.

    :returns: the argument group.
    """
    group = parser.add_argument_group(
        'what a platform has to be', 'Each may be given several times: any '
        'of them will do. Without one, any platform of a root that is '
        'trusted.')
    _add_file(group)
    group.add_argument('--allow-root', metavar='NAME', action='append',
                       help='generation, such as amd-milan, or the name of '
                            'an --anchor')
    group.add_argument('--allow-chip', metavar='SHA256', action='append',
                       type=options.sha256,
                       help="of the chip's CEK as AMD's key server or your "
                            'folder has it; needs --chip-id, because what '
                            'the host shows does not count')
    group.add_argument('--allow-owner', metavar='SHA256', action='append',
                       type=options.sha256,
                       help='of the OCA certificate of who owns it')
    return group


def add_firmware(parser, only=False):
    """Options for the version of the platform's firmware.

    :param only: whether the command holds nothing else to the rules.
    :returns: the argument group.
    """
    group = parser.add_argument_group(
        "what a platform's firmware has to be", 'The other rules are held '
        'when the session is made.' if only else None)
    if only:
        _add_file(group)
    group.add_argument('--min-api', metavar='MAJOR.MINOR',
                       type=options.version,
                       help='oldest SEV API version allowed')
    group.add_argument('--min-build', metavar='N', type=options.number,
                       help='oldest build allowed of that API version')
    return group


@dataclasses.dataclass(frozen=True)
class Rules:
    """What an owner asks of a platform.

    :ivar roots: tuple of names, or None: any that is trusted.
    :ivar chips: tuple of 32-byte SHA-256, or None: any. So are ``owners``.
    :ivar min_api: (major, minor), or None: any.
    :ivar min_build: number, or None: any; within ``min_api``.
    """

    roots: tuple | None = None
    chips: tuple | None = None
    owners: tuple | None = None
    min_api: tuple | None = None
    min_build: int | None = None

    def __post_init__(self):
        if self.min_build is not None and self.min_api is None:
            raise files.Unusable(
                'a build counts within one API version: give the minimum API '
                'version, too')
        for part in (*(self.min_api or ()), self.min_build or 0):
            if not 0 <= part <= 255:
                raise files.Unusable(
                    f'{part} is in no minimum API version or build: they '
                    f'have numbers from 0 to 255')

    def require_chip(self, args):
        """Refuse options that could never satisfy a rule about chips."""
        if self.chips is not None and args.chip_id is None:
            raise files.Unusable(
                'chips are told apart by the CEK that AMD signed for their '
                'id: give --chip-id and --chip-certificates with '
                '--allow-chip or allowed_chips')

    def admit(self, platform):
        """Hold a VerifiedPlatform to the rules but for its firmware.

        :raises PlatformNotAllowed: it breaks one.
        """
        policy = self._policy(roots=(
            [platform.anchor_name] if self.roots is None else self.roots))
        self._hold(policy.admit, platform)

    def admit_firmware(self, api, build):
        """Hold a firmware version to the rules.

        :param api: (major, minor).
        :raises PlatformNotAllowed: it is too old.
        """
        self._hold(self._policy(()).admit_firmware, api, build)

    def shown(self, firmware_only=False):
        """The names of the rules that were held, for a column."""
        values = {_ROOTS: self.roots, _CHIPS: self.chips,
                  _OWNERS: self.owners, _API: self.min_api,
                  _BUILD: self.min_build}
        names = [name for name, value in values.items()
                 if value is not None and not (
                     firmware_only and name not in (_API, _BUILD))]
        return base.Shown(names, ', '.join(names))

    def _policy(self, roots):
        from nova_sev_attest.trust import platform_policy

        return platform_policy.PlatformPolicy(
            roots=frozenset(roots),
            min_firmware=(*(self.min_api or (0, 0)), self.min_build or 0),
            chips=None if self.chips is None else frozenset(self.chips),
            owners=None if self.owners is None else frozenset(self.owners))

    def _hold(self, admit, *values):
        from nova_sev_attest.trust import platform_policy

        try:
            admit(*values)
        except platform_policy.PlatformNotAllowed as exc:
            raise platform_policy.PlatformNotAllowed(
                exc.rule, f'rule {exc.rule}: {exc}. Allowed: '
                          f'{self._allowed(exc.rule)}; {_ADVICE[exc.rule]} '
                          f'({_OPTIONS[exc.rule]})') from exc

    def _allowed(self, rule):
        if rule == _API:
            return '{}.{} build {} or newer'.format(
                *self.min_api, self.min_build or 0)
        listed = {_ROOTS: self.roots, _CHIPS: self.chips,
                  _OWNERS: self.owners}[rule]
        words = [each.hex() if isinstance(each, bytes) else each
                 for each in listed[:_SHOWN]]
        if len(listed) > _SHOWN:
            words.append(f'and {len(listed) - _SHOWN} more')
        return ', '.join(words) or 'none'


def read(args, reader):
    """The Rules that options and a file name.

    :raises Unusable: the file is no such, or says what an option says, too.
    """
    given = {_ROOTS: getattr(args, 'allow_root', None),
             _CHIPS: getattr(args, 'allow_chip', None),
             _OWNERS: getattr(args, 'allow_owner', None),
             _API: args.min_api, _BUILD: getattr(args, 'min_build', None)}
    values = _read_file(args.rules, reader) if args.rules else {}
    for field, value in given.items():
        if value is None:
            continue
        if field in values:
            raise files.Unusable(
                f'{args.rules} has {field}, and {_OPTIONS[field]} is given, '
                f'too; give one of them')
        values[field] = tuple(value) if isinstance(value, list) else value
    return Rules(*map(values.get, _FIELDS))


def _read_file(path, reader):
    data = reader.read(path, _MAX_FILE_SIZE, 'a file of rules')
    try:
        content = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as exc:
        raise files.Unusable(f'{path} is no file of rules: {exc}') from exc
    if not isinstance(content, dict):
        raise files.Unusable(
            f'{path} is no file of rules: expected a JSON object')
    unknown = sorted(set(content) - set(_FIELDS))
    if unknown:
        raise files.Unusable(
            f'{path} has {unknown[0]!r}, which is no rule for a platform; '
            f'expected any of {", ".join(_FIELDS)}')
    values = {}
    for field, value in content.items():
        if value is None:  # any, as in a policy
            continue
        try:
            values[field] = _PARSERS[field](value)
        except (TypeError, ValueError):
            raise files.Unusable(
                f'{path}: {field} has to be {_FORMS[field]}, or null for '
                f'any') from None
    return values


def _once(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError('a name is there twice')
    return found


def _names(value):
    if not isinstance(value, list) or not all(
            isinstance(each, str) and each for each in value):
        raise ValueError
    return tuple(value)


def _fingerprints(value):
    for each in _names(value):
        if not re.fullmatch('[0-9a-fA-F]{64}', each):
            raise ValueError
    return tuple(map(bytes.fromhex, value))


def _version(value):
    parts = re.fullmatch(r'([0-9]{1,3})\.([0-9]{1,3})', value)
    if parts is None:
        raise ValueError
    return int(parts[1]), int(parts[2])


def _build(value):
    if type(value) is not int:
        raise ValueError
    return value


_PARSERS = {_ROOTS: _names, _CHIPS: _fingerprints, _OWNERS: _fingerprints,
            _API: _version, _BUILD: _build}
_FORMS = {_ROOTS: 'a list of names', _API: 'text such as "1.51"',
          _CHIPS: 'a list of SHA-256, each of 64 hexadecimal digits',
          _OWNERS: 'a list of SHA-256, each of 64 hexadecimal digits',
          _BUILD: 'a number'}
