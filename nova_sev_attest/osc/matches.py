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

"""What was measured of a launch, and whether the policy allows it."""

import dataclasses

from nova_sev_attest.osc import measured

#: How a value stands to the policy.
MATCHED, DIFFERS, CLAIMED = 'matched', 'differs', 'claimed'

# Member of a verdict or claim, member of a policy, what people call it.
_INPUTS = (
    ('firmware_sha256', 'firmwares', 'firmware'),
    ('kernel_sha256', 'kernels', 'kernel'),
    ('initrd_sha256', 'initrds', 'initrd'),
    ('command_line_sha256', 'command_lines', 'command line'),
    ('vcpus', 'vcpus', 'vCPUs'),
    ('cpu_signature', 'cpu_signatures', 'CPU signature'),
    ('launch_profile', 'launch_profiles', 'launch profile'),
)


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of the launch digest.

    :ivar words: what it is
    :ivar value: as measured, or as the host claims
    :ivar state: MATCHED: measured, and allowed; DIFFERS: it is what the
        policy does not allow; CLAIMED: the host's word, which nothing proves
    :ivar allowed: list of what is allowed in its place, for DIFFERS
    """

    words: str
    value: object
    state: str
    allowed: tuple = ()


def inputs(launch, policy=None):
    """The inputs of a launch.

    :param launch: its members, as its owner sees them
    :param policy: members of the policy's revision, for the texts of command
        lines; None where it is not at hand
    :returns: list of Input, empty where nothing is known
    """
    texts = _texts(measured.of_purpose(policy or {}, launch.get('purpose')))
    verdict = launch.get('verdict')
    if verdict:
        return [Input(words, _text(texts, name, verdict[name]), MATCHED)
                for name, _, words in _INPUTS
                if verdict.get(name) is not None]
    reason = launch.get('reason') or {}
    claimed, allowed = reason.get('claimed') or {}, reason.get('allowed') or {}
    return [
        Input(words, _text(texts, name, claimed.get(name)),
              DIFFERS if member in allowed else CLAIMED,
              tuple(allowed.get(member) or ()))
        for name, member, words in _INPUTS
        if claimed.get(name) is not None or member in allowed]


def _texts(policy):
    from nova_sev_attest.launch import kernel_hashes

    return {kernel_hashes.command_line_sha256(text).hex(): text
            for text in policy.get('command_lines') or ()}


def _text(texts, name, value):
    from nova_sev_attest.launch import profile

    if name == 'cpu_signature' and isinstance(value, int):
        return profile.cpu_name(value)
    return f'"{texts[value]}"' if value in texts else value
