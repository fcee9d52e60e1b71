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

"""What the launches that a policy allows will measure, and what will not do.

Computed on this machine from the policy's lists and the firmware files at
hand; the key service is not asked.
"""

from nova_sev_attest.osc import columns

#: Purpose of launches that a policy has a part for.
RESCUE = 'rescue'
_SHOWN = 8


class Measured:
    """What is known here of a policy's firmwares, kernels and initrds.

    :ivar images: {SHA-256 in hexadecimal: the launch core's Firmware}
    :ivar labels: {SHA-256: what people call it}
    """

    def __init__(self):
        self.images = {}
        self.labels = {}

    def add(self, image, label):
        self.images[image.sha256.hex()] = image
        self.labels[image.sha256.hex()] = label

    def entries(self, policy):
        """Every launch digest of a policy whose firmware is at hand.

        :param policy: members of a policy as the REST API names them
        :returns: list of dict: 'launch_digest' and the names and values of
            what it stands for; those of the policy's part for rescues are
            last and have a 'purpose'
        """
        found = self._entries(policy)
        if policy.get('rescue'):
            found += [{**entry, 'purpose': RESCUE} for entry in
                      self._entries(of_purpose(policy, RESCUE))]
        return found

    def _entries(self, policy):
        from nova_sev_attest.launch import expectation

        found = []
        for technology in policy['technologies']:
            allowed = lists(policy, technology)
            texts = allowed.command_line_hashes()
            for digest, inputs in expectation.expected_digests(
                    allowed, self.images.values()).items():
                claims = inputs.claims()
                claims['command_line'] = texts.get(
                    claims['command_line_sha256'])
                found.append({'launch_digest': digest.hex(), **{
                    name: value for name, value in claims.items()
                    if value is not None}})
        return found

    def column(self, policy):
        """The entries as a column, of which people see the first."""
        entries = self.entries(policy)
        lines = [self._line(entry) for entry in entries[:_SHOWN]]
        if len(entries) > _SHOWN:
            lines.append(f'and {len(entries) - _SHOWN} more (-f json shows '
                         f'all)')
        unknown = [sha256 for sha256 in policy['firmwares']
                   if sha256 not in self.images]
        if unknown:
            lines.append(f'Digests of firmware {unknown[0][:12]} are shown '
                         f'where its file is given')
        return columns.Shown(entries, '\n'.join(lines))

    def _line(self, entry):
        from nova_sev_attest.launch import expectation

        parts = ['rescue'] if 'purpose' in entry else []
        parts += [f'firmware {self._label(entry["firmware_sha256"])}']
        if 'kernel_sha256' not in entry:
            parts.append('whatever it boots')
        else:
            parts.append(f'kernel {self._label(entry["kernel_sha256"])}')
            if entry['initrd_sha256'] != expectation.NO_INITRD:
                parts.append(f'initrd {self._label(entry["initrd_sha256"])}')
            parts.append(f'"{entry["command_line"]}"')
        if 'vcpus' in entry:
            parts.append(f'{entry["vcpus"]} vCPUs {entry["cpu_signature"]:#x}'
                         f' {entry["launch_profile"]}')
        return f'{entry["launch_digest"]}\n  {", ".join(parts)}'

    def _label(self, sha256):
        return self.labels.get(sha256, sha256[:12])

    def warnings(self, policy):
        """What will not work, or may not be meant: yields sentences."""
        if policy.get('initrds') and not policy.get('kernels'):
            yield ('An initrd without a kernel is not measured, and no '
                   'launch has it: name the kernel, too.')
        if policy.get('command_lines') and not policy.get('kernels'):
            yield ('A command line without a kernel is not measured, and no '
                   'launch has it: name the kernel, too.')
        if (not policy.get('kernels') and not policy.get('firmware_boot')
                and policy.get('verifier') != 'owner'):
            yield ('Nothing can be launched: name a kernel, or allow what '
                   'the firmware finds on the disks by --firmware-boot.')
        for sha256, image in self.images.items():
            if image.hash_table_area is None and (
                    policy.get('kernels')
                    or of_purpose(policy, RESCUE).get('kernels')):
                yield (f'Firmware {self._label(sha256)} measures no kernel: '
                       f'with it, no launch of these kernels can be '
                       f'attested. Use a build of edk2 OvmfPkg/AmdSev.')
            if image.reset_eip is None and max(
                    policy.get('vcpus') or [1]) > 1:
                yield (f'Firmware {self._label(sha256)} does not tell where '
                       f'further vCPUs start: with SEV-ES it runs one.')


def of_purpose(policy, purpose):
    """A policy's members, with what it says of launches of one purpose.

    :param purpose: of a launch; None and all but RESCUE stand for a boot
    """
    if purpose != RESCUE:
        return policy
    part = {'secrets': []} | (policy.get(RESCUE) or {})
    return policy | {name: value for name, value in part.items()
                     if value is not None}


def lists(policy, technology):
    """A policy's lists as the launch core has them, expectation.Lists."""
    from nova_sev_attest.launch import expectation
    from nova_sev_attest.launch import profile

    signatures = [profile.cpu_signature(name)
                  for name in policy.get('cpu_models') or ()]
    states = [profile.initial_state(name).name
              for name in policy.get('launch_profiles') or ()]
    return expectation.Lists(
        firmwares=tuple(policy['firmwares']),
        kernels=tuple(policy.get('kernels') or ()),
        initrds=tuple(policy.get('initrds') or ()),
        command_lines=tuple(policy.get('command_lines') or ()),
        firmware_boot=bool(policy.get('firmware_boot')),
        profiles=profile.combinations(
            technology, policy.get('vcpus') or (),
            signatures + list(policy.get('cpu_signatures') or ()), states))
