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


def _allowed(content):
    """What a policy allows; None stands for anything.

    :returns: {words: set or None}, without what means nothing in the policy
    """
    found = {
        'technologies': content.technologies,
        'platform roots': content.trusted_roots,
        'chips': content.allowed_chips,
        'owners of platforms': content.allowed_owners,
        'firmwares': content.firmwares,
        'kernels': content.kernels,
        'servers': limits.servers(content.limits),
        'host aggregates': limits.host_aggregates(content.limits),
    }
    if content.kernels:
        # No initrd is an initrd of its own.
        found['initrds'] = content.initrds or ['']
        found['command lines'] = content.command_lines
    if launch_profile.SEV_ES in content.technologies:
        found['numbers of vCPUs'] = content.vcpus or ()
        found['CPU models'] = expectations.signatures(content)
        found['launch profiles'] = content.launch_profiles
    return {words: values if values is None else set(values)
            for words, values in found.items()}


def weaknesses(policy, other):
    """In what a policy asks less of a launch than another one.

    :param policy, other: Policy
    :returns: list of phrases that go after "it"
    """
    content, others = policy.content, other.content
    found = []
    theirs = _allowed(others)
    for words, mine in _allowed(content).items():
        allowed = theirs.get(words)
        if allowed is not None and (mine is None or mine - allowed):
            found.append(f'allows more {words}')
    start, end = limits.window(content.limits)
    first, last = limits.window(others.limits)
    most = limits.max_releases(content.limits)
    fewest = limits.max_releases(others.limits)
    found += [words for words, weaker in (
        ('boots what the firmware finds on the disks',
         content.firmware_boot and not others.firmware_boot),
        ('allows older firmware of the platform',
         (content.min_api, content.min_build or 0)
         < (others.min_api, others.min_build or 0)),
        ('releases without its owner\'s approval',
         others.approval == policies.OWNER
         and content.approval != policies.OWNER),
        ('releases earlier', start < first),
        ('releases later', end > last),
        ('releases more often',
         fewest is not None and (most is None or most > fewest)),
        ('is the project\'s default',
         content.is_default and not others.is_default),
        ('is not revoked',
         other.revoked_at is not None and policy.revoked_at is None),
    ) if weaker]
    return found


def _tell(policy, other, secret_ids):
    """(whether the other is weaker, its id, what to say of it)"""
    verb = 'is' if len(secret_ids) == 1 else 'are'
    text = (f'Secret {", ".join(secret_ids)} {verb} named by policy '
            f'{other.content.name!r} ({other.id}) too')
    if other.revoked_at is not None:
        return False, f'{text}, which is revoked.'
    theirs, ours = weaknesses(other, policy), weaknesses(policy, other)
    if theirs:
        text += f', which guards less: it {"; it ".join(theirs)}'
    text += '.'
    if ours:
        text += (f' This policy guards less than that one: it '
                 f'{"; it ".join(ours)}.')
    return bool(theirs), (
        f'{text} A server\'s properties choose the policy, so the secret is '
        f'as safe as the weaker of them.')


def warnings(policy, sharing):
    """What the owner of a policy should know of others with its secrets.

    :param sharing: list of (Policy, list of the secrets' UUIDs)
    :returns: list of sentences, about the weaker ones first
    """
    told = sorted((_tell(policy, *other) for other in sharing),
                  key=lambda found: not found[0])
    texts = [text for _weaker, text in told[:MAX_TOLD]]
    if len(told) > MAX_TOLD:
        texts.append(f'{len(told) - MAX_TOLD} more policies name secrets of '
                     f'this one.')
    return texts
