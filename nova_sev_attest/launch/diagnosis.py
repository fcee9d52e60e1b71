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

"""Why a measurement is not the one that was expected.

Tries what is known, nearest to what is allowed first, until one candidate
gives the measurement that came. It decides nothing: no state of a launch
follows from a diagnosis, and it is for use after the verification failed.

What comes out has two readers. ``category`` and ``summary`` may reach the
compute host: they name the input that differs and no value. ``text`` and
``differences`` are for the guest's owner.
"""

import dataclasses
import functools
import itertools

from nova_sev_attest.launch import errors
from nova_sev_attest.launch import expectation
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import profile as launch_profile
from nova_sev_attest.launch import vmsa

#: How many candidates are tried unless told otherwise.
MAX_CANDIDATES = 50000
_BATCH = 64  # candidates between two looks at the clock

#: Numbers of vCPUs that are tried without being listed.
COMMON_VCPUS = tuple(range(1, 65))

_SUMMARIES = {
    'allowed': 'the measurement is one that the policy allows',
    'api_version_too_old': "the platform's SEV API is older than the policy "
                           'allows',
    'measurement_replayed': 'the measurement was presented before',
    'wrong_session': 'the measurement belongs to another session',
    'policy_word_mismatch': 'the guest was launched with another SEV policy '
                            'word',
    'firmware_not_allowed': 'firmware not allowed by the policy',
    'kernel_not_allowed': 'kernel not allowed by the policy',
    'initrd_not_allowed': 'initrd not allowed by the policy',
    'command_line_not_allowed': 'command line not allowed by the policy',
    'vcpus_not_allowed': 'number of vCPUs not allowed by the policy',
    'cpu_signature_not_allowed': 'CPU model not allowed by the policy',
    'launch_profile_not_allowed': 'launch profile not allowed by the policy',
    'measurement_mismatch': 'the measurement is not one that the policy '
                            'allows',
}

_TITLES = {
    'firmware': 'firmware', 'kernel': 'kernel', 'initrd': 'initrd',
    'command_line': 'command line', 'vcpus': 'number of vCPUs',
    'cpu_signature': 'CPU model', 'launch_profile': 'launch profile'}

_NO_KERNEL = 'no measured kernel'


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known beyond what a policy allows, with names for people.

    Hashes are SHA-256 in hexadecimal. What is allowed may be in here too, for
    its name.

    :ivar firmwares: {hash: name}; only those at hand are tried.
    :ivar kernels: {hash: name}.
    :ivar initrds: {hash: name}.
    :ivar command_lines: iterable of texts.
    :ivar vcpus: iterable of numbers.
    :ivar cpu_signatures: iterable of numbers.
    :ivar initial_states: iterable of names.
    :ivar sessions: {name: TransportKeys} of other launches, for evidence
        that belongs to one of them.
    :ivar measurements: {48 bytes: name} that were presented before.
    """

    firmwares: dict = dataclasses.field(default_factory=dict)
    kernels: dict = dataclasses.field(default_factory=dict)
    initrds: dict = dataclasses.field(default_factory=dict)
    command_lines: tuple = ()
    vcpus: tuple = COMMON_VCPUS
    cpu_signatures: tuple = tuple(
        dict.fromkeys(launch_profile.CPU_SIGNATURES.values()))
    initial_states: tuple = tuple(vmsa.PROFILES)
    sessions: dict = dataclasses.field(default_factory=dict, repr=False)
    measurements: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Difference:
    """One input that is not as allowed.

    :ivar input: such as ``initrd``.
    :ivar found: what was measured, for people.
    :ivar allowed: tuple of what is allowed, for people.
    """

    input: str
    found: str
    allowed: tuple

    def __str__(self):
        allowed = ' or '.join(self.allowed) or 'none'
        return (f'the {_TITLES[self.input]} is {self.found} but the policy '
                f'allows {allowed}')


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was found.

    :ivar category: stable word, such as ``initrd_not_allowed``.
    :ivar text: everything, for the guest's owner only.
    :ivar differences: tuple of Differences, for the owner only.
    :ivar checked: how many candidates were tried.
    :ivar complete: False when bounds ended the search before its end.
    """

    category: str
    text: str
    differences: tuple = ()
    checked: int = 0
    complete: bool = True

    @property
    def summary(self):
        """The category in words, fit for the compute host."""
        return _SUMMARIES[self.category]


def diagnose(keys, policy, evidence, lists, firmwares, known=None, *,
             max_candidates=MAX_CANDIDATES, clock=None, seconds=2.0):
    """Find out what was measured.

    :param keys: the launch's TransportKeys; the TIK alone is used.
    :param policy: the LaunchPolicy of its session.
    :param evidence: Evidence.
    :param lists: expectation.Lists of what is allowed.
    :param firmwares: iterable of every Firmware at hand, allowed or known.
    :param known: Known, or None.
    :param max_candidates: how many candidates are tried at most.
    :param clock: function without arguments that returns seconds, such as
        ``time.monotonic``; without it, only the number of candidates is
        bounded, and those of SEV-ES take their time.
    :param seconds: how long the search may take by that clock.
    :returns: Diagnosis.
    """
    deadline = None if clock is None else clock() + seconds
    search = _Search(keys, policy, evidence, lists, firmwares,
                     Known() if known is None else known)
    return search.run(max_candidates, clock, deadline)


class _Search:
    def __init__(self, keys, policy, evidence, lists, firmwares, known):
        self.keys = keys
        self.policy = policy
        self.evidence = evidence
        self.lists = lists
        self.firmwares = {image.sha256.hex(): image for image in firmwares}
        self.known = known
        self.lines = {
            **_hashed_lines(known.command_lines),
            **lists.command_line_hashes(), expectation.NO_COMMAND_LINE: ''}
        self.names = {
            'firmware': known.firmwares, 'kernel': known.kernels,
            'initrd': {**known.initrds, expectation.NO_INITRD: 'none'}}
        self.digests = {}

    def run(self, max_candidates, clock, deadline):
        evidence = self.evidence
        replay = self._replay()
        if replay is not None:
            return replay
        checked, complete = 0, True
        for tried, candidate in enumerate(self._candidates()):
            if tried >= max_candidates or (
                    deadline is not None and tried % _BATCH == 0 and
                    clock() >= deadline):
                complete = False
                break
            digest = self._digest(candidate.inputs)
            if digest is None:
                continue
            checked += 1
            if measurement.find_digest(candidate.keys, candidate.policy,
                                       evidence, (digest,)) is not None:
                return self._explain(candidate, checked)
        ending = '' if complete else ', and there were more'
        return Diagnosis(
            'measurement_mismatch',
            f'no known combination matches; checked {checked}{ending}. The '
            f'firmware, kernel, initrd or command line may be unknown here, '
            f'or the measurement belongs to a session that is',
            checked=checked, complete=complete)

    def _replay(self):
        """The Diagnosis of what was presented before, or None."""
        evidence = self.evidence
        earlier = self.known.measurements.get(
            evidence.measure + evidence.mnonce)
        if earlier is not None:
            return Diagnosis(
                'measurement_replayed',
                f'this measurement was presented before, by {earlier}: '
                f'measure and nonce are the same. A host that shows an old '
                f'measurement has not measured this launch')
        for shown, name in self.known.measurements.items():
            if shown.endswith(evidence.mnonce):
                return Diagnosis(
                    'measurement_replayed',
                    f'the nonce of this measurement was presented before, '
                    f'by {name}, with another measure. A platform makes a '
                    f'new nonce each time: what the host shows is put '
                    f'together from two measurements, or made up')
        return None

    def _candidates(self):
        """Nearest first: what is allowed, then one thing wrong, then more."""
        allowed = list(itertools.islice(self.lists.inputs(),
                                        expectation.MAX_DIGESTS))
        for inputs in allowed:
            yield _Candidate(self.keys, self.policy, inputs)
        for name, keys in self.known.sessions.items():
            for inputs in allowed:
                yield _Candidate(keys, self.policy, inputs, session=name)
        for policy in _other_policies(self.policy, 1):
            for inputs in allowed:
                yield _Candidate(self.keys, policy, inputs)
        seen = set(allowed)
        near = []
        for count in range(8):
            for inputs in self._differing(count):
                if inputs not in seen:
                    seen.add(inputs)
                    if count <= 1:
                        near.append(inputs)
                    yield _Candidate(self.keys, self.policy, inputs)
            if count == 1:
                for policy in _other_policies(self.policy, 6):
                    for inputs in allowed:
                        yield _Candidate(self.keys, policy, inputs)
        for policy in _other_policies(self.policy, 1):
            for inputs in near:
                yield _Candidate(self.keys, policy, inputs)
        for name, keys in self.known.sessions.items():
            for policy in (self.policy, *_other_policies(self.policy, 6)):
                for inputs in (*allowed, *near):
                    yield _Candidate(keys, policy, inputs, session=name)

    def _differing(self, count):
        """Inputs of which so many are known and not allowed.

        None of them: combinations of what is listed that are not allowed,
        because profiles need not be a full product.
        """
        lists, known = self.lists, self.known
        around = {
            'firmware': (lists.firmwares,
                         [each for each in known.firmwares
                          if each in self.firmwares]),
            'vcpus': _parts(lists, 'vcpus', known.vcpus),
            'cpu_signature': _parts(lists, 'cpu_signature',
                                    known.cpu_signatures),
            'launch_profile': _parts(lists, 'initial_state',
                                     known.initial_states),
        }
        kernel = {
            'kernel': (lists.kernels, known.kernels),
            'initrd': (lists.allowed_initrds(),
                       (*known.initrds, expectation.NO_INITRD)),
            'command_line': (lists.command_line_hashes(), self.lines),
        }
        for values in _combine({**kernel, **around}, count):
            yield from _inputs(values)
        # No measured kernel counts as one difference where it is not
        # allowed.
        boot = {'kernel': ((None,), ()), 'initrd': ((None,), ()),
                'command_line': ((None,), ()), **around}
        if lists.firmware_boot or count:
            for values in _combine(boot, count - (not lists.firmware_boot)):
                yield from _inputs(values)

    def _digest(self, inputs):
        if inputs not in self.digests:
            firmware = self.firmwares.get(inputs.firmware_sha256)
            try:
                self.digests[inputs] = (
                    None if firmware is None else inputs.digest(firmware))
            except (errors.FirmwareUnusable, errors.VmsaMalformed):
                # No guest can be launched so.
                self.digests[inputs] = None
        return self.digests[inputs]

    def _explain(self, candidate, checked):
        differences = self._differences(candidate.inputs)
        facts = [str(difference) for difference in differences]
        category = (f'{differences[0].input}_not_allowed' if differences
                    else 'allowed')
        if candidate.policy != self.policy:
            category = category if differences else 'policy_word_mismatch'
            facts.append(_policy_difference(candidate.policy, self.policy))
        if candidate.session is not None:
            category = 'wrong_session'
            facts.append(
                f'the measurement was made with the TIK of '
                f'{candidate.session}: session and evidence of two launches '
                f'were mixed')
        if category == 'allowed':
            if self.evidence.api < self.policy.min_api:
                category = 'api_version_too_old'
                facts.append(
                    'everything measured is allowed, but the platform runs '
                    'SEV API version {}.{} and the policy asks for {}.{} or '
                    'later'.format(*self.evidence.api, *self.policy.min_api))
            else:
                facts.append('the measurement is of what the policy allows')
        return Diagnosis(category, '; '.join(facts), tuple(differences),
                         checked)

    def _differences(self, inputs):
        lists = self.lists
        profile = inputs.profile
        checks = [('firmware', inputs.firmware_sha256, lists.firmwares)]
        if inputs.kernel_sha256 is None:
            if not lists.firmware_boot:
                checks.append(('kernel', None, lists.kernels))
        else:
            checks += [
                ('kernel', inputs.kernel_sha256, lists.kernels),
                ('initrd', inputs.initrd_sha256, lists.allowed_initrds()),
                ('command_line', inputs.command_line_sha256,
                 tuple(lists.command_line_hashes()))]
        if profile.technology == launch_profile.SEV_ES:
            checks += [
                ('vcpus', profile.vcpus, _parts(lists, 'vcpus')[0]),
                ('cpu_signature', profile.cpu_signature,
                 _parts(lists, 'cpu_signature')[0]),
                ('launch_profile', profile.initial_state,
                 _parts(lists, 'initial_state')[0])]
        found = [
            Difference(name, self._name(name, value),
                       tuple(self._name(name, each) for each in allowed
                             if each is not None))
            for name, value, allowed in checks if value not in allowed]
        if not found and inputs not in set(lists.inputs()):
            found = [Difference(
                'launch_profile', str(profile.claims()),
                tuple(str(each.claims()) for each in lists.profiles))]
        return found

    def _name(self, kind, value):
        if value is None:
            return _NO_KERNEL
        if kind == 'command_line':
            return repr(self.lines[value])
        if kind == 'cpu_signature':
            return launch_profile.cpu_name(value)
        if kind in self.names:
            name = self.names[kind].get(value)
            if kind == 'initrd' and value == expectation.NO_INITRD:
                return name
            return value if name is None else f'{name} (SHA-256 {value})'
        return str(value)


@dataclasses.dataclass(frozen=True)
class _Candidate:
    keys: object
    policy: launch_policy.LaunchPolicy
    inputs: expectation.Inputs
    session: str | None = None


def _hashed_lines(texts):
    return expectation.Lists(command_lines=texts).command_line_hashes()


def _parts(lists, attribute, more=()):
    """The values that the allowed profiles have there, and others."""
    values = tuple(dict.fromkeys(
        getattr(profile, attribute) for profile in lists.profiles))
    return values, () if values == (None,) else tuple(more)


def _combine(choices, count):
    """Combinations of which so many values are not among the listed.

    :param choices: {name: (listed, more)}.
    :returns: yields tuples, in the order of ``choices``.
    """
    others = {name: [value for value in more if value not in listed]
              for name, (listed, more) in choices.items()}
    for differing in itertools.combinations(choices, count):
        yield from itertools.product(*(
            others[name] if name in differing else tuple(listed)
            for name, (listed, _) in choices.items()))


def _inputs(values):
    kernel, initrd, line, firmware, *details = values
    profile = _profile(*details)
    if profile is not None:
        yield expectation.Inputs(firmware, kernel, initrd, line, profile)


@functools.lru_cache(maxsize=4096)
def _profile(*details):
    if details == (None,) * 3:
        return launch_profile.LaunchProfile.sev()
    if None in details:
        return None
    return launch_profile.LaunchProfile(launch_profile.SEV_ES, *details)


def _other_policies(policy, bits):
    """Policies with up to so many flags flipped, and with no minimum."""
    flags = list(launch_policy.Flag)
    for count in range(bits + 1):
        for flipped in itertools.combinations(flags, count):
            value = policy.flags
            for flag in flipped:
                value ^= flag
            for min_api in dict.fromkeys((policy.min_api, (0, 0))):
                other = launch_policy.LaunchPolicy(value, min_api)
                if other != policy:
                    yield other


def _policy_difference(found, expected):
    details = []
    for flag in launch_policy.Flag:
        if (found.flags ^ expected.flags) & flag:
            state = 'is not set' if expected.flags & flag else 'is set'
            details.append(f'{flag.name} {state}')
    if found.min_api != expected.min_api:
        details.append('the minimum API version is {}.{}'.format(
            *found.min_api))
    return (f'the guest was launched with the policy word {found.word:#x} '
            f'but the session asks for {expected.word:#x}: '
            f'{", ".join(details)}')
