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

"""Why a launch was denied, from all that its project has registered.

After a measurement failed and the host's claims did not explain it. The
search is the launch core's; here is what it may look at: the policies and
firmwares of the launch's own project, and what was measured before.
"""

import itertools
import time

from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice import expectations
from nova_sev_attest.keyservice.objects import firmwares
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.keyservice.objects import policies
from nova_sev_attest.launch import diagnosis

#: Policies and firmwares of the project that are looked at.
MAX_POLICIES = 100
MAX_FIRMWARES = 8


def gather(session, parsed, launch, fingerprint, images, evidence):
    """Read what the search may look at.

    :param session: database session
    :param parsed: objects.firmwares.Parsed
    :param launch: Launch that was denied
    :param fingerprint: SHA-256 that names its evidence
    :param images: {SHA-256: Firmware} of its policy
    :param evidence: the launch core's Evidence
    :returns: (images, those of the policy and others of the project; the
        launch core's Known)
    """
    earlier = launches.find_with_evidence(session, launch, fingerprint)
    measured = {} if earlier is None else {
        evidence.measure + evidence.mnonce: f'launch {earlier}'}
    registered, _ = firmwares.page(session, launch.project_id, MAX_FIRMWARES)
    names = {row.sha256: 'registered' for row in registered}
    others = parsed.load(session, launch.project_id,
                         [name for name in names if name not in images])
    return ((*images.values(), *others.values()),
            _known(session, launch.project_id, names, measured))


def diagnose(lists, keys, policy, evidence, gathered, seconds):
    """Search for what was measured.

    :param lists: what the launch's policy allows
    :param keys: the launch's TransportKeys
    :param policy: its LaunchPolicy
    :param evidence: the launch core's Evidence
    :param gathered: what gather() gave
    :param seconds: how long the search may take
    :returns: Denied; only its owner's part has values
    """
    images, known = gathered
    found = diagnosis.diagnose(keys, policy, evidence, lists, images, known,
                               clock=time.monotonic, seconds=seconds)
    # The service's word where the core's differs.
    word = found.category.replace('cpu_signature', 'cpu_model')
    if word == 'measurement_mismatch':
        denied = expectations.mismatch()
    else:
        summary = found.summary
        denied = errors.Denied(word, f'{summary[0].upper()}{summary[1:]}.')
    denied.owner['diagnosis'] = found.text
    return denied


def _known(session, project_id, images, measurements):
    found, _ = policies.page(session, project_id, MAX_POLICIES)
    kernels, initrds, lines = {}, {}, []
    for policy, purpose in itertools.product(
            found, (policies.BOOT, policies.RESCUE)):
        content = policy.content.of(purpose)
        for names, values in ((kernels, content.kernels),
                              (initrds, content.initrds)):
            for value in values:
                names.setdefault(value, f'that of policy {content.name!r}')
        lines += content.command_lines
    return diagnosis.Known(
        firmwares=images, kernels=kernels, initrds=initrds,
        command_lines=tuple(dict.fromkeys(lines)),
        measurements=measurements)
