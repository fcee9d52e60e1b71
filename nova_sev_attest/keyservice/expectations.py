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

"""Which launch digests a policy allows, and what an unexpected one was."""

from nova_sev_attest.keyservice import errors
from nova_sev_attest.launch import expectation
from nova_sev_attest.launch import profile as launch_profile
from nova_sev_attest.launch import vmsa

#: Most launch digests that one policy may allow.
MAX_DIGESTS = expectation.MAX_DIGESTS
#: Most vCPUs, over all its digests: 4 KiB are hashed for each.
MAX_SAVE_AREAS = 65536


def lists(content, technology):
    """What a policy allows launches of one technology.

    :param content: Content of a policy
    :returns: the launch core's Lists
    :raises ProfileUnknown: it names a CPU model or launch profile that is
        not known
    """
    return expectation.Lists(
        firmwares=content.firmwares, kernels=content.kernels,
        initrds=content.initrds, command_lines=content.command_lines,
        firmware_boot=content.firmware_boot,
        profiles=launch_profile.combinations(
            technology, content.vcpus or (), signatures(content),
            content.launch_profiles))


def signatures(content):
    """CPUID leaf 1 EAX of the CPUs that a policy's content allows."""
    named = map(launch_profile.cpu_signature, content.cpu_models)
    return list(dict.fromkeys([*named, *content.cpu_signatures]))


def count(content):
    """How many launch digests a policy's content allows."""
    return sum(lists(content, technology).count()
               for technology in content.technologies)


def count_save_areas(content):
    """How many vCPUs are measured for all of them."""
    total = 0
    for technology in content.technologies:
        allowed = lists(content, technology)
        vcpus = sum(profile.vcpus or 0 for profile in allowed.profiles)
        if vcpus:
            total += allowed.count() // len(allowed.profiles) * vcpus
    return total


def coincide(content, other):
    """Whether some launch is allowed by both of two contents of a policy.

    :param content, other: Content, different in kernels, initrds and command
        lines only
    """
    for technology in content.technologies:
        one, two = lists(content, technology), lists(other, technology)
        if not (one.firmwares and one.profiles):
            continue
        if one.firmware_boot or all(
                set(mine) & set(theirs) for mine, theirs in (
                    (one.kernels, two.kernels),
                    (one.allowed_initrds(), two.allowed_initrds()),
                    (one.command_lines, two.command_lines))):
            return True
    return False


def candidates(content, technology, claims, firmwares):
    """The digests that a launch has if the host tells the truth.

    :param content: Content of the policy
    :param claims: the host's claims, each SHA-256 in hexadecimal or None,
        and vcpus, a number or None
    :param firmwares: {SHA-256: Firmware}; the claimed one is taken, or each
        when it is not among them
    :returns: {digest: the launch core's Inputs}
    """
    claimed = claims.get('firmware_sha256')
    kernel = claims.get('kernel_sha256')
    taken = {sha256: firmware for sha256, firmware in firmwares.items()
             if claimed not in firmwares or sha256 == claimed}
    found = {}
    # A host may claim what it likes: what is hashed for it has an end.
    left = MAX_SAVE_AREAS
    for profile in _claimed_profiles(content, technology, claims):
        left -= len(taken) * (profile.vcpus or 0)
        if left < 0:
            break
        for sha256, firmware in taken.items():
            hashes = ()
            if kernel is not None:
                if firmware.hash_table_area is None:
                    continue
                hashes = (
                    kernel, claims.get('initrd_sha256')
                    or expectation.NO_INITRD,
                    claims.get('command_line_sha256')
                    or expectation.NO_COMMAND_LINE)
            if (profile.vcpus or 0) > 1 and firmware.reset_eip is None:
                continue
            inputs = expectation.Inputs(sha256, *hashes, profile=profile)
            found[inputs.digest(firmware)] = inputs
    return found


def _claimed_profiles(content, technology, claims):
    """Launch profiles as claimed; all known ones of what no host claims."""
    vcpus = claims.get('vcpus')
    known = [*signatures(content),
             *launch_profile.CPU_SIGNATURES.values()]
    return launch_profile.combinations(
        technology, (content.vcpus or ()) if vcpus is None else [vcpus],
        dict.fromkeys(known), vmsa.PROFILES)


def difference(content, inputs):
    """Name what a policy does not allow of a launch that was measured.

    :param inputs: Inputs that the measurement confirmed
    :returns: Denied that names the first input that differs
    """
    profile = inputs.profile
    allowed = lists(content, profile.technology)
    # Name, words, value, allowed values, what the owner calls and sees them.
    checks = [('firmware', 'firmware', inputs.firmware_sha256,
               content.firmwares, 'firmwares', content.firmwares)]
    if inputs.kernel_sha256 is None:
        if not content.firmware_boot:
            return errors.Denied(
                'kernel_not_allowed',
                'The guest was launched without a measured kernel, which the '
                'policy does not allow.',
                {'allowed': {'kernels': content.kernels}})
    else:
        checks += [
            ('kernel', 'kernel', inputs.kernel_sha256, content.kernels,
             'kernels', content.kernels),
            ('initrd', 'initrd', inputs.initrd_sha256,
             allowed.allowed_initrds(), 'initrds', content.initrds),
            ('command_line', 'command line', inputs.command_line_sha256,
             allowed.command_line_hashes(), 'command_lines',
             content.command_lines)]
    if profile.technology == launch_profile.SEV_ES:
        vcpus = content.vcpus or []
        cpus = signatures(content)
        checks += [
            ('vcpus', 'number of vCPUs', profile.vcpus, vcpus, 'vcpus',
             vcpus),
            ('cpu_model', 'CPU model', profile.cpu_signature, cpus,
             'cpu_signatures', cpus),
            ('launch_profile', 'launch profile', profile.initial_state,
             content.launch_profiles, 'launch_profiles',
             content.launch_profiles)]
    differing = [check for check in checks if check[2] not in check[3]]
    if not differing:
        return mismatch()
    name, words = differing[0][:2]
    return errors.Denied(
        f'{name}_not_allowed',
        f'The {words} that the guest was launched with is not one that the '
        f'policy allows.',
        {'allowed': {told: values for *_, told, values in differing}})


def mismatch():
    """Denied for a measurement of which nothing more is known."""
    return errors.Denied(
        'measurement_mismatch',
        'The measurement is not one that the policy allows: what was '
        'launched differs, or the measurement belongs to another launch.')
