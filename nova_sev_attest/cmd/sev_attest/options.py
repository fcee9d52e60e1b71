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

"""Options that several commands of sev-attest share."""

import argparse
import hashlib
import hmac
import pathlib
import re
import types

from nova_sev_attest import files
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import expectation
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import profile as launch_profile
from nova_sev_attest.launch import session as launch_session
from nova_sev_attest.launch import vmsa

TECHNOLOGIES = {'sev': launch_profile.SEV, 'sev-es': launch_profile.SEV_ES}


def number(text):
    """A number, decimal or with a prefix such as 0x."""
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no number') from None


def cpu_signature(text):
    """A number, or family/model/stepping."""
    parts = re.fullmatch(r'([0-9]{1,4})/([0-9]{1,4})/([0-9]{1,4})', text)
    if parts is None:
        return number(text)
    try:
        return vmsa.cpu_signature(*map(int, parts.groups()))
    except errors.VmsaMalformed as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def version(text):
    """MAJOR.MINOR, as a pair."""
    parts = re.fullmatch(r'([0-9]{1,3})\.([0-9]{1,3})', text)
    if parts is None:
        raise argparse.ArgumentTypeError(
            f'{text!r}: expected a version such as 1.51')
    return int(parts[1]), int(parts[2])


def digest(text):
    """32 bytes in hexadecimal."""
    if not re.fullmatch('[0-9a-fA-F]{64}', text):
        raise argparse.ArgumentTypeError(
            f'{text!r}: expected a launch digest of 64 hexadecimal digits')
    return bytes.fromhex(text)


def chip_id(text):
    """8 to 64 bytes in hexadecimal."""
    if not re.fullmatch('([0-9a-fA-F]{2}){8,64}', text):
        raise argparse.ArgumentTypeError(
            f'{text!r}: expected a chip id of 16 to 128 hexadecimal digits')
    return bytes.fromhex(text)


def anchor(text):
    """name=path."""
    name, separator, path = text.partition('=')
    if not (name.strip() and separator and path.strip()):
        raise argparse.ArgumentTypeError(
            f'{text!r}: expected name=/path/to/ask_ark.cert')
    return text


def add_launch(parser, many):
    """Options that say what is launched.

    :param many: whether each may be given several times, as lists of what
        is allowed.
    """
    group = parser.add_argument_group(
        'what is launched',
        'Each may be given several times: every combination is allowed.'
        if many else None)
    action = 'append' if many else 'store'
    group.add_argument('--firmware', metavar='FILE', action=action,
                       required=not many, help='OVMF image')
    group.add_argument('--kernel', metavar='FILE', action=action,
                       help='kernel of a measured direct boot')
    group.add_argument('--initrd', metavar='FILE', action=action)
    group.add_argument('--append', metavar='LINE', action=action,
                       help='kernel command line, exactly')
    group.add_argument('--vcpus', metavar='N', type=number, action=action,
                       help='number of vCPUs; measured with SEV-ES only')
    group.add_argument('--cpu-model', metavar='NAME', action=action,
                       help="QEMU's CPU model, such as EPYC-v4 or "
                            'EPYC-Milan; measured with SEV-ES only')
    group.add_argument('--cpu-sig', metavar='N', action=action,
                       type=cpu_signature,
                       help='in its place, CPUID leaf 1 EAX as a number or '
                            'as FAMILY/MODEL/STEPPING')
    group.add_argument('--profile', metavar='NAME', action=action,
                       help="initial state of SEV-ES vCPUs on the host: "
                            f'{", ".join(vmsa.PROFILES)} (default: '
                            f'{launch_profile.DEFAULT_INITIAL_STATE})')


def _listed(value):
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


class Launch:
    """What add_launch's options name.

    :ivar lists: expectation.Lists.
    :ivar firmwares: {SHA-256 in hexadecimal: Firmware}.
    :ivar names: {'firmwares' or 'kernels' or 'initrds': {SHA-256: path}}.
    """

    def __init__(self, args, reader, technology):
        self.names = {'firmwares': {}, 'kernels': {}, 'initrds': {}}
        self.firmwares = {}
        kernels = _listed(args.kernel)
        if not kernels and (args.initrd or args.append is not None):
            raise files.Unusable(
                '--initrd and --append go with --kernel: nothing of them is '
                'measured without one')
        for path in _listed(args.firmware):
            self.add_firmware(path, reader)
        profiles = launch_profile.combinations(
            technology, _listed(args.vcpus),
            _listed(args.cpu_sig) + _listed(args.cpu_model),
            _listed(args.profile) or [launch_profile.DEFAULT_INITIAL_STATE])
        if self.firmwares and not profiles:
            raise files.Unusable(
                'SEV-ES measures every vCPU: give --vcpus, and --cpu-model '
                'or --cpu-sig')
        self.lists = expectation.Lists(
            firmwares=tuple(self.firmwares),
            kernels=tuple(self.add_hash('kernels', path, reader)
                          for path in kernels),
            initrds=tuple(self.add_hash('initrds', path, reader)
                          for path in _listed(args.initrd)),
            command_lines=tuple(_listed(args.append) or
                                ([''] if kernels else [])),
            profiles=profiles, firmware_boot=not kernels)

    def add_firmware(self, path, reader):
        image = reader.firmware(path)
        self.firmwares[image.sha256.hex()] = image
        self.names['firmwares'][image.sha256.hex()] = path

    def add_hash(self, kind, path, reader):
        sha256 = reader.sha256(path, f'a {kind[:-1]}')
        self.names[kind][sha256] = path
        return sha256

    def expected_digests(self):
        """Mapping of digests to Inputs."""
        return expectation.expected_digests(self.lists,
                                            self.firmwares.values())


def add_evidence(parser):
    """Options for a launch's keys and what the host shows of it."""
    group = parser.add_argument_group('the launch')
    group.add_argument('--tik', metavar='FILE', required=True,
                       help="the launch's TIK, 16 bytes")
    shown = group.add_mutually_exclusive_group(required=True)
    shown.add_argument('--measurement', metavar='BASE64',
                       help="libvirt's sev-measurement")
    shown.add_argument('--measurement-file', metavar='FILE',
                       help='the same in a file, in base64 or as its 48 '
                            'bytes')
    group.add_argument('--api', metavar='MAJOR.MINOR', type=version,
                       required=True,
                       help="libvirt's sev-api-major and sev-api-minor")
    group.add_argument('--build', metavar='N', type=number, required=True,
                       help="libvirt's sev-build-id")
    group.add_argument('--policy', metavar='WORD', type=number,
                       required=True,
                       help='the policy word that the session was made with, '
                            'such as 0x3b; never what the host says')
    group.add_argument('--session', metavar='FILE',
                       help='the session that the host got; checked to '
                            'belong to TIK and policy')


def read_measurement(path, reader):
    return reader.binary(path, measurement.MEASUREMENT_SIZE, 'measurement')


def evidence(args, reader):
    """What add_evidence's options name.

    :returns: object with ``keys`` (TransportKeys), ``policy``,
        ``technology``, ``evidence``; ``session``, 128 bytes or None; and
        ``belongs``: whether keys and policy are those of the session.
    """
    policy = launch_policy.LaunchPolicy.parse(args.policy)
    if args.measurement is None:
        shown = read_measurement(args.measurement_file, reader)
    else:
        shown = files.decode(args.measurement, measurement.MEASUREMENT_SIZE,
                             '--measurement')
    tek = (reader.key(args.tek, 'TEK') if getattr(args, 'tek', None)
           else bytes(launch_session.KEY_SIZE))
    keys = launch_session.TransportKeys(tek, reader.key(args.tik, 'TIK'))
    buffer, belongs = None, True
    if args.session is not None:
        buffer = reader.binary(args.session, launch_session.SESSION_SIZE,
                               'session')
        # The session ends in the HMAC of the policy under its TIK.
        belongs = hmac.compare_digest(
            buffer[-32:], hmac.digest(keys.tik, policy.to_bytes(),
                                      hashlib.sha256))
    is_es = bool(policy.flags & launch_policy.Flag.ES)
    return types.SimpleNamespace(
        keys=keys, policy=policy, session=buffer, belongs=belongs,
        technology=launch_profile.SEV_ES if is_es else launch_profile.SEV,
        evidence=measurement.Evidence.parse(shown, *args.api, args.build))


def require_belongs(launch):
    if not launch.belongs:
        raise errors.VerificationError(
            'TIK or policy are not those of the session: its policy MAC '
            'differs. Take the files of one launch, and the policy word that '
            'the session was made with')


def sha256(text):
    """32 bytes in hexadecimal, as sha256sum prints them."""
    if not re.fullmatch('[0-9a-fA-F]{64}', text):
        raise argparse.ArgumentTypeError(
            f'{text!r}: expected a SHA-256 of 64 hexadecimal digits')
    return bytes.fromhex(text)


def add_platform(parser):
    """Options for a platform's certificates and roots to trust."""
    parser.add_argument('files', metavar='FILE', nargs='+',
                        help="certificates: libvirt's pdh and cert-chain, "
                             "sevctl's chain, single ones; as they are, in "
                             'base64 or in PEM armour; - is the standard '
                             'input')
    parser.add_argument('--amd-certificates', metavar='DIR',
                        help="folder of AMD's ask_ark_<generation>.cert; not "
                             'needed when ASK and ARK are among the files')
    parser.add_argument('--anchor', metavar='NAME=FILE', action='append',
                        default=[], type=anchor,
                        help='trust this root of an emulated platform: a '
                             'file of its ASK and ARK')
    group = parser.add_argument_group(
        'the CEK that AMD signed', "A host's own copy is usually not signed. "
        'Add the signed one to the files, or have it looked for by the '
        "chip's id.")
    group.add_argument('--chip-id', metavar='HEX', type=chip_id,
                       help="libvirt's cpu0-id")
    group.add_argument('--chip-certificates', metavar='DIR',
                       help='folder with <chip id>.cert files')
    group.add_argument('--fetch-cek', action='store_true',
                       help="USE THE NETWORK: ask AMD's key server for a CEK "
                            'that the folder lacks, and keep it there')
    group.add_argument('--key-server', metavar='URL',
                       help="ask this one in place of AMD's")
    group.add_argument('--proxy', metavar='URL',
                       help='ask through this HTTP proxy')
    group.add_argument('--ca-file', metavar='FILE',
                       help="CAs that may vouch for the key server's TLS")


def platform(args, reader):
    """Verify what add_platform's options name.

    :returns: (VerifiedPlatform, Bundle).
    """
    from nova_sev_attest.launch import bundle
    from nova_sev_attest.trust import roots

    if (args.chip_id is None) != (args.chip_certificates is None) or (
            args.fetch_cek and args.chip_id is None):
        raise files.Unusable(
            '--chip-id and --chip-certificates go together, and --fetch-cek '
            'with them')
    contents = {}
    for path in args.files:
        if path in contents:
            raise files.Unusable(f'{path} is given twice')
        contents[path] = reader.read(path, bundle.MAX_FILE_SIZE,
                                     'a certificate file')
    found = bundle.Bundle.read(contents)
    anchors = roots.load_anchors(args.amd_certificates, args.anchor)
    shown = _pinned(found)
    if shown is not None and shown.name not in {
            each.name for each in anchors}:
        anchors.append(shown)
    platform = found.platform()
    if args.chip_id is not None:
        platform = platform.of_chip(args.chip_id, _chip_certificates(
            args, anchors).get(args.chip_id, platform.pek))
    return platform.verify(anchors), found


def _pinned(found):
    """The Anchor of AMD's own ASK and ARK among the files, or None.

    Others are no error: a host may show the root of its emulated platform.
    """
    from nova_sev_attest.launch import certificates
    from nova_sev_attest.trust import roots

    usage = certificates.Usage
    if not {usage.ASK, usage.ARK} <= set(found.certificates):
        return None
    try:
        return roots.recognise(found.get(usage.ASK), found.get(usage.ARK))
    except roots.AnchorRefused:
        return None


def _chip_certificates(args, anchors):
    from nova_sev_attest.trust import chips
    from nova_sev_attest.trust import kds

    if not args.fetch_cek:
        name = args.chip_id.hex()
        folder = pathlib.Path(args.chip_certificates)
        if not any((folder / f'{name}{suffix}').exists()
                   for suffix in ('.cert', '.cek')):
            raise chips.ChipRefused(
                f'{folder} has no CEK of chip {name}; put it there as '
                f'{name}.cert, or have AMD\'s key server asked by '
                f'--fetch-cek')
        return chips.ChipCertificates(anchors, store=folder)
    return chips.ChipCertificates(
        anchors, cache=args.chip_certificates, server=kds.HttpServer(
            args.key_server or kds.KEY_SERVER, proxy=args.proxy,
            ca_file=args.ca_file))


def platform_facts(found):
    """The columns of a VerifiedPlatform."""
    return {'platform_root': found.anchor_name,
            'emulated': found.emulated,
            'api_version': '{}.{}'.format(*found.api),
            'cek_fingerprint': found.cek_fingerprint.hex(),
            'oca_fingerprint': found.oca_fingerprint.hex(),
            'chip_id': None if found.chip_id is None else found.chip_id.hex()}
