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

"""openstack attestation verify"""

from osc_lib import exceptions

from nova_sev_attest.osc import base
from nova_sev_attest.osc import columns
from nova_sev_attest.osc import measured
from nova_sev_attest.osc import names

_REFUSED, _UNUSABLE = 1, 2
# Option, member of a policy, what it takes.
_INPUTS = (('kernel', 'kernels', '<file>', str),
           ('initrd', 'initrds', '<file>', str),
           ('command-line', 'command_lines', '<text>', str),
           ('vcpus', 'vcpus', '<number>', int),
           ('cpu-model', 'cpu_models', '<name>', str),
           ('launch-profile', 'launch_profiles', '<name>', str))


class Verify(base.ShowOne):
    """Verify on this machine how a server was launched.

    Takes certificates, evidence and policy from the key service. The
    platform's certificates are verified up to the root here, and the launch
    digest is computed here from your own firmware file. That the platform
    measured this digest is proven by an HMAC, whose key, the TIK, only
    platform and verifier have: with --tik it is verified here, otherwise the
    key service vouches for it. Exit status: 0 it holds, 1 refused, 2 it
    cannot be told.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'launch', metavar='<server>',
            help='Name or id of a server: its newest launch is meant; or id '
                 'of a launch')
        group = parser.add_argument_group(
            'what you expect', 'The policy\'s lists are taken where you give '
            'no files of your own.')
        group.add_argument('--firmware', metavar='<file>', action='append',
                           required=True, dest='firmwares',
                           help='Firmware that may run (repeat for several)')
        for name, member, metavar, kind in _INPUTS:
            group.add_argument(
                f'--{name}', metavar=metavar, action='append', default=[],
                dest=member, type=kind,
                help='In place of the policy\'s (repeat for several)')
        group = parser.add_argument_group('what you trust')
        group.add_argument('--amd-certificates', metavar='<directory>',
                           help='Folder of AMD\'s ask_ark_<generation>.cert, '
                                'which are known by their fingerprints')
        group.add_argument('--anchor', metavar='<name>=<file>',
                           action='append', default=[],
                           help='Root of an emulated platform: a file of its '
                                'ASK and ARK (repeat for several)')
        group.add_argument('--tik', metavar='<file>',
                           help='The launch\'s TIK, where you made its '
                                'session')
        return parser

    def run(self, parsed_args):
        try:
            return super().run(parsed_args)
        except Exception as error:
            from nova_sev_attest.launch import errors

            self.log.error('%s', error)
            self.log.debug('Refused or unusable', exc_info=True)
            return (_REFUSED if isinstance(
                error.__cause__, errors.VerificationError) else _UNUSABLE)

    def take_action(self, parsed_args):
        launch = names.launch(self.app.client_manager, parsed_args.launch)
        _require_verifiable(launch)
        policy = measured.of_purpose(
            self.client.policies.revision(
                launch['policy_id'], launch['policy_revision']),
            launch.get('purpose'))
        members, _ = self.client.launches.evidence(launch['id'])
        evidence = _evidence(members)
        platform = _platform(
            self.client.launches.certificates(launch['id']), launch,
            parsed_args)
        _admit(platform, evidence, policy)
        allowed = _allowed(parsed_args, policy, launch['technology'])
        if parsed_args.tik is None:
            digest = _vouched_for(launch, allowed)
            hmac = columns.Shown('service', 'vouched for by the key service')
            self.warn('That this digest was measured is the key service\'s '
                      'word: the HMAC can be verified only by who has the '
                      'TIK.')
        else:
            digest = _proven(parsed_args.tik, launch, members, evidence,
                             policy, allowed)
            hmac = columns.Shown('verified', 'verified here, with your TIK')
        if platform.emulated:
            self.warn('The platform is emulated: it protects nothing from '
                      'its host.')
        found = {
            'server_id': launch['server_id'], 'launch': launch['id'],
            'status': launch['status'],
            'purpose': launch.get('purpose'), 'hmac': hmac,
            'platform_root': platform.anchor_name,
            'emulated': platform.emulated,
            'cek_fingerprint': platform.cek_fingerprint.hex(),
            'api_version': '{}.{}'.format(*evidence.api),
            'build_id': evidence.build, 'launch_digest': digest.hex(),
            **{name: value
               for name, value in allowed[digest].claims().items()
               if value is not None}}
        return columns.row(found)


def _require_verifiable(launch):
    """Refuse a launch of which it is known that it did not verify.

    :raises VerificationError: it was denied
    :raises CommandError: no policy was found for it
    """
    from nova_sev_attest.launch import errors

    if launch['status'] == 'denied':
        raise errors.VerificationError(
            f'launch {launch["id"]} was denied: '
            f'{(launch.get("reason") or {}).get("detail")}')
    if not launch.get('policy_id'):
        raise exceptions.CommandError(
            f'Launch {launch["id"]} has no policy to hold it to.')


def _evidence(members):
    """The launch core's Evidence, of the members that the host sent."""
    from nova_sev_attest.client import answers
    from nova_sev_attest.launch import measurement

    return measurement.Evidence.parse(
        answers.octets(members, 'measurement', 48, 48),
        answers.integer(members, 'api_major', 0, 255),
        answers.integer(members, 'api_minor', 0, 255),
        answers.integer(members, 'build_id', 0, 255))


def _platform(shown, launch, args):
    """The VerifiedPlatform of a launch.

    :param shown: SevCertificates
    :raises VerificationError: the chain does not hold, or is of another
        platform than the key service says
    """
    from nova_sev_attest.launch import chain
    from nova_sev_attest.launch import errors
    from nova_sev_attest.trust import roots

    anchors = roots.load_anchors(args.amd_certificates, args.anchor)
    if not anchors:
        raise exceptions.CommandError(
            'Nothing is trusted yet: give --amd-certificates <directory> '
            'with the ask_ark_<generation>.cert of AMD, or --anchor for an '
            'emulated platform.')
    found = chain.PlatformCertificates.from_libvirt(
        shown.pdh, shown.cert_chain, shown.signed_cek)
    facts = launch.get('platform') or {}
    if shown.signed_cek is not None and facts.get('chip_id'):
        # The key service's word on the chip's id. What counts is the CEK's
        # fingerprint, which the policy lists.
        found = found.of_chip(bytes.fromhex(facts['chip_id']), found.cek)
    platform = found.verify(anchors)
    if facts.get('cek_fingerprint') not in (
            None, platform.cek_fingerprint.hex()):
        raise errors.VerificationError(
            f'the certificates are of a platform whose CEK has SHA-256 '
            f'{platform.cek_fingerprint.hex()}; the key service says that '
            f'it verified {facts["cek_fingerprint"]}')
    return platform


def _admit(platform, evidence, policy):
    """Hold a platform and its firmware to what the policy asks of them.

    :raises PlatformNotAllowed: it does not allow them
    """
    from nova_sev_attest.trust import platform_policy

    def fingerprints(name):
        listed = policy.get(name)
        return None if listed is None else frozenset(
            map(bytes.fromhex, listed))

    wanted = platform_policy.PlatformPolicy(
        roots=frozenset(policy['trusted_roots']),
        min_firmware=(*_min_api(policy), policy.get('min_build') or 0),
        chips=fingerprints('allowed_chips'),
        owners=fingerprints('allowed_owners'))
    wanted.admit(platform)
    wanted.admit_firmware(evidence.api, evidence.build)


def _min_api(policy):
    version = policy.get('min_api_version') or '0.0'
    return tuple(int(part) for part in version.split('.'))


def _allowed(args, policy, technology):
    """The launch digests that are expected, computed here.

    :returns: {digest: the launch core's Inputs}
    :raises CommandError: the policy names none of the firmware files
    """
    from nova_sev_attest import files
    from nova_sev_attest.launch import expectation

    reader = files.Reader()
    images = [reader.firmware(path) for path in args.firmwares]
    # A policy whose verifier is the owner need not name any.
    named = [image for image in images if not policy['firmwares'] or
             image.sha256.hex() in policy['firmwares']]
    if not named:
        raise exceptions.CommandError(
            f'{args.firmwares[0]} has SHA-256 {images[0].sha256.hex()}, '
            f'which is no firmware of the policy; it names '
            f'{", ".join(policy["firmwares"])}.')
    expected = policy | {
        'firmwares': [image.sha256.hex() for image in named],
        **{member: getattr(args, member) for _, member, _, _ in _INPUTS
           if getattr(args, member)}}
    for kind in ('kernels', 'initrds'):
        if getattr(args, kind):
            expected[kind] = [reader.sha256(path, f'a {kind[:-1]}')
                              for path in getattr(args, kind)]
    if not policy['firmwares']:
        expected['firmware_boot'] = not expected['kernels']
        expected['command_lines'] = expected['command_lines'] or ['']
    return expectation.expected_digests(
        measured.lists(expected, technology), named)


def _vouched_for(launch, allowed):
    """The launch digest that the key service verified.

    :raises MeasurementMismatch: it is not allowed
    """
    from nova_sev_attest.launch import errors

    verdict = launch.get('verdict')
    if not verdict:
        raise exceptions.CommandError(
            f'The key service has no verdict on launch {launch["id"]}, which '
            f'is {launch["status"]}: it has not verified the measurement, '
            f'and without --tik nobody else can.')
    digest = bytes.fromhex(verdict['launch_digest'])
    if digest not in allowed:
        raise errors.MeasurementMismatch(
            f'the key service verified the launch digest {digest.hex()}, '
            f'which is none of the {len(allowed)} that your files and the '
            f'policy allow')
    return digest


def _proven(path, launch, members, evidence, policy, allowed):
    """The launch digest that was measured, by the HMAC over it.

    :raises VerificationError: none that is allowed was
    """
    from nova_sev_attest import files
    from nova_sev_attest.launch import errors
    from nova_sev_attest.launch import measurement
    from nova_sev_attest.launch import policy as launch_policy
    from nova_sev_attest.launch import session

    wanted = launch_policy.LaunchPolicy.for_technology(
        launch['technology'], _min_api(policy))
    if members.get('policy') != wanted.word:
        raise errors.VerificationError(
            f'the guest was launched under policy word '
            f'{members.get("policy")}, expected {wanted.word:#x}')
    # The measurement needs the TIK alone.
    keys = session.TransportKeys(bytes(session.KEY_SIZE),
                                 files.Reader().key(path, 'TIK'))
    return measurement.verify_measurement(keys, wanted, evidence, allowed)
