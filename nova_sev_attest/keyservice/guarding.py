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

"""How well policies guard the secrets that they share.

The properties of a server choose among its project's policies, so that a
secret is as safe as the weakest policy that names it. Policies whose verifier
is the owner name no secrets and share none.
"""

from nova_sev_attest.keyservice import expectations
from nova_sev_attest.keyservice import limits
from nova_sev_attest.keyservice.objects import policies
from nova_sev_attest.launch import profile as launch_profile

#: Other policies that are told of one by one.
MAX_TOLD = 16


def _allowed(content, parts):
    """What a policy allows; None stands for anything.

    :param parts: what it says of the purposes whose launches are meant
    :returns: {words: set or None}, without what means nothing in the policy
    """
    kernels = [kernel for part in parts for kernel in part.kernels]
    found = {
        'technologies': content.technologies,
        'platform roots': content.trusted_roots,
        'chips': content.allowed_chips,
        'owners of platforms': content.allowed_owners,
        'firmwares': content.firmwares,
        'kernels': kernels,
        'servers': limits.servers(content.limits),
        'host aggregates': limits.host_aggregates(content.limits),
    }
    if kernels:
        # No initrd is an initrd of its own.
        found['initrds'] = [initrd for part in parts if part.kernels
                            for initrd in part.initrds or ['']]
        found['command lines'] = [line for part in parts if part.kernels
                                  for line in part.command_lines]
    if launch_profile.SEV_ES in content.technologies:
        found['numbers of vCPUs'] = content.vcpus or ()
        found['CPU models'] = expectations.signatures(content)
        found['launch profiles'] = content.launch_profiles
    return {words: values if values is None else set(values)
            for words, values in found.items()}


def _purposes(policy, secret_ids):
    """The purposes whose launches get one of these secrets."""
    return tuple(
        purpose for purpose in (policies.BOOT, policies.RESCUE)
        if not secret_ids.isdisjoint(
            policy.content.of(purpose).secrets.values()))


class _Guard:
    """A policy, prepared to be compared with many others.

    :param purposes: of the launches that are meant
    """

    def __init__(self, policy, purposes):
        content = policy.content
        self.policy = policy
        self._allowed = _allowed(content, [content.of(purpose)
                                           for purpose in purposes])
        self._firmware = content.min_api, content.min_build or 0
        self._window = limits.window(content.limits)
        self._most = limits.max_releases(content.limits)

    def weaknesses(self, other):
        """See weaknesses()."""
        content, others = self.policy.content, other.policy.content
        found = []
        for words, mine in self._allowed.items():
            theirs = other._allowed.get(words)
            if theirs is not None and (mine is None or not mine <= theirs):
                found.append(f'allows more {words}')
        return found + [words for words, weaker in (
            ('boots what the firmware finds on the disks',
             content.firmware_boot and not others.firmware_boot),
            ('allows older firmware of the platform',
             self._firmware < other._firmware),
            ('releases without its owner\'s approval',
             others.approval == policies.OWNER
             and content.approval != policies.OWNER),
            ('releases earlier', self._window[0] < other._window[0]),
            ('releases later', self._window[1] > other._window[1]),
            ('releases more often',
             other._most is not None and (
                 self._most is None or self._most > other._most)),
            ('is the project\'s default',
             content.is_default and not others.is_default),
            ('is not revoked',
             other.policy.revoked_at is not None
             and self.policy.revoked_at is None),
        ) if weaker]


def weaknesses(policy, other):
    """In what a policy guards secrets less that another one names, too.

    :param policy, other: Policy
    :returns: list of phrases that go after "it"
    """
    shared = policy.content.secret_ids() & other.content.secret_ids()
    one, two = (_Guard(each, _purposes(each, shared))
                for each in (policy, other))
    return one.weaknesses(two)


def _tell(guard, other, secret_ids):
    """(whether the other is weaker, what to say of it)"""
    verb = 'is' if len(secret_ids) == 1 else 'are'
    text = (f'Secret {", ".join(secret_ids)} {verb} named by policy '
            f'{other.policy.content.name!r} ({other.policy.id}) too')
    if other.policy.revoked_at is not None:
        return False, f'{text}, which is revoked.'
    theirs, ours = other.weaknesses(guard), guard.weaknesses(other)
    if theirs:
        text += f', which guards less: it {"; it ".join(theirs)}'
    text += '.'
    if ours:
        text += (f' This policy guards less than that one: it '
                 f'{"; it ".join(ours)}.')
    return bool(theirs), (
        f'{text} A server\'s properties choose the policy, so the secret is '
        f'as safe as the weaker of them.')


def warnings(found, sharing):
    """What the owners of policies should know of others with their secrets.

    :param found: list of Policy
    :param sharing: {id of one of them: list of (Policy, list of the secrets'
        UUIDs)}
    :returns: {id of one of them: list of sentences, about the weaker ones
        first}
    """
    guards = {}

    def guard(policy, secret_ids):
        key = policy.id, _purposes(policy, set(secret_ids))
        if key not in guards:
            guards[key] = _Guard(policy, key[1])
        return guards[key]

    result = {}
    for policy in found:
        told = sorted(
            (_tell(guard(policy, secret_ids), guard(other, secret_ids),
                   secret_ids)
             for other, secret_ids in sharing[policy.id]),
            key=lambda pair: not pair[0])
        result[policy.id] = [text for _weaker, text in told[:MAX_TOLD]]
        if len(told) > MAX_TOLD:
            result[policy.id].append(
                f'{len(told) - MAX_TOLD} more policies name secrets of this '
                f'one.')
    return result
