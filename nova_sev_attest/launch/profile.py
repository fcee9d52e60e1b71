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

"""Launch profiles: what is measured besides firmware and kernel.

Nothing of it is a constant of the protocol. With SEV, nothing else is
measured. With SEV-ES each vCPU's initial save area is, and that depends on
how many vCPUs there are, on the guest's CPU model, on where the firmware
starts the application processors, and on the host's kernel and QEMU and the
SEV features that they turn on (the *initial state*, which has a name that ends
in its version).
"""

import dataclasses
import re

from nova_sev_attest.launch import errors
from nova_sev_attest.launch import vmsa

SEV = 'amd-sev'
SEV_ES = 'amd-sev-es'

#: What hosts with Linux 6.10 and QEMU 9.1 or later give a SEV-ES guest,
#: unless the machine type is older or ``legacy-vm-type`` is on.
DEFAULT_INITIAL_STATE = vmsa.INIT2.name

# QEMU target/i386/cpu.c, builtin_x86_defs: family, model, stepping, and how
# many versions of the model there are. No version changes the three numbers.
_CPU_MODELS = {
    'EPYC': ((23, 1, 2), 5),
    'EPYC-Rome': ((23, 49, 0), 5),
    'EPYC-Milan': ((25, 1, 1), 3),
    'EPYC-Genoa': ((25, 17, 0), 2),
    'EPYC-Turin': ((26, 0, 0), 1),
}


def _cpu_models():
    for name, (numbers, versions) in _CPU_MODELS.items():
        signature = vmsa.cpu_signature(*numbers)
        yield name, signature
        for version in range(1, versions + 1):
            yield f'{name}-v{version}', signature
    yield 'EPYC-IBPB', vmsa.cpu_signature(*_CPU_MODELS['EPYC'][0])


#: QEMU's name of a CPU model -> CPUID leaf 1 EAX, which is measured.
CPU_SIGNATURES = dict(_cpu_models())


class ProfileUnknown(errors.FormatError):
    """A name that no CPU model or initial state has.

    :ivar code: ``profile_unknown``.
    """

    code = 'profile_unknown'


def cpu_signature(name):
    """The signature of one of QEMU's CPU models, u32.

    :param name: such as ``EPYC-v4`` or ``EPYC-Milan``.
    :raises ProfileUnknown: expected another name.
    """
    try:
        return CPU_SIGNATURES[name]
    except KeyError:
        raise ProfileUnknown(
            f'CPU model {name!r} is not known here; expected one of '
            f'{", ".join(CPU_SIGNATURES)}, or give its signature as a '
            f'number') from None


def cpu_name(signature):
    """What people call a CPU signature: models' common name and number."""
    for name, value in CPU_SIGNATURES.items():
        if value == signature:
            return f'{name} ({signature:#x})'
    return f'{signature:#x}'


def initial_state(name):
    """The vmsa.Profile of a name, or of a name without its version.

    :param name: such as ``qemu-init2-1``; ``qemu-init2`` stands for its
        newest version.
    :raises ProfileUnknown: expected another name.
    """
    found = vmsa.PROFILES.get(name)
    if found is None:
        versions = {int(match[1]): state
                    for known, state in vmsa.PROFILES.items()
                    if (match := re.fullmatch(
                        re.escape(name) + r'-([0-9]+)', known))}
        if not versions:
            raise ProfileUnknown(
                f'launch profile {name!r} is not known; expected one of '
                f'{", ".join(vmsa.PROFILES)}')
        found = versions[max(versions)]
    return found


@dataclasses.dataclass(frozen=True)
class LaunchProfile:
    """One way in which a guest may be launched.

    :ivar technology: ``amd-sev``, for which all else is None, or
        ``amd-sev-es``.
    :ivar vcpus: 1 to 4096.
    :ivar cpu_signature: CPUID leaf 1 EAX of the guest's CPU model, u32.
    :ivar initial_state: name of a vmsa.Profile, with its version.
    :raises ProfileUnknown: the technology or the state is not known.
    :raises VmsaMalformed: a number is missing or out of range.
    """

    technology: str
    vcpus: int | None = None
    cpu_signature: int | None = None
    initial_state: str | None = None

    def __post_init__(self):
        details = self.vcpus, self.cpu_signature, self.initial_state
        if self.technology == SEV:
            if any(value is not None for value in details):
                raise errors.VmsaMalformed(
                    'vCPUs are not part of what SEV measures; leave them '
                    'out, or use SEV-ES')
            return
        if self.technology != SEV_ES:
            raise ProfileUnknown(
                f'technology {self.technology!r} has no launch digest; '
                f'expected {SEV} or {SEV_ES}')
        if None in details:
            raise errors.VmsaMalformed(
                'SEV-ES measures every vCPU: expected the number of vCPUs, '
                'the CPU signature and the initial state')
        if self.initial_state not in vmsa.PROFILES:
            raise ProfileUnknown(
                f'initial state {self.initial_state!r} is not known; '
                f'expected one of {", ".join(vmsa.PROFILES)}')
        # Tells now what would fail at each firmware.
        vmsa.save_areas(vmsa.PROFILES[self.initial_state], self.vcpus,
                        self.cpu_signature, 0)

    @classmethod
    def sev(cls):
        """The profile of SEV, of which there is one."""
        return cls(SEV)

    @classmethod
    def sev_es(cls, vcpus, signature, state=DEFAULT_INITIAL_STATE):
        """A profile of SEV-ES.

        :param vcpus: 1 to 4096.
        :param signature: number, or the name of a QEMU CPU model.
        :param state: name of an initial state, with or without version.
        """
        if isinstance(signature, str):
            signature = cpu_signature(signature)
        return cls(SEV_ES, vcpus, signature, initial_state(state).name)

    def save_areas(self, firmware):
        """The pages that are measured after firmware and kernel hashes.

        :param firmware: Firmware, which says where application processors
            start.
        :returns: list of 4096 bytes each; empty for SEV.
        :raises VmsaMalformed: more than one vCPU and firmware that does not
            say.
        """
        if self.technology == SEV:
            return []
        return vmsa.save_areas(
            vmsa.PROFILES[self.initial_state], self.vcpus,
            self.cpu_signature, firmware.reset_eip)

    def claims(self):
        """Named values, a dict, as verdicts have them."""
        if self.technology == SEV:
            return {'technology': SEV}
        return {'technology': SEV_ES, 'vcpus': self.vcpus,
                'cpu_signature': self.cpu_signature,
                'launch_profile': self.initial_state,
                'sev_features':
                    vmsa.PROFILES[self.initial_state].sev_features}


def combinations(technology, vcpus=(), signatures=(),
                 states=(DEFAULT_INITIAL_STATE,)):
    """Every profile of a policy's lists.

    :param technology: ``amd-sev`` or ``amd-sev-es``.
    :param vcpus: numbers of vCPUs; for SEV this and what follows is not
        looked at, because SEV measures none of it.
    :param signatures: numbers, or names of QEMU CPU models.
    :param states: names of initial states.
    :returns: tuple of different LaunchProfiles; empty when a list is empty.
    """
    if technology == SEV:
        return (LaunchProfile.sev(),)
    found = (LaunchProfile.sev_es(count, signature, state)
             for state in states for signature in signatures
             for count in vcpus)
    return tuple(dict.fromkeys(found))
