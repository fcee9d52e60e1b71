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

import dataclasses

from nova_sev_attest.keyservice import errors
from nova_sev_attest.launch import digest as launch_digest
from nova_sev_attest.launch import kernel_hashes

#: Most launch digests that one policy may allow.
MAX_DIGESTS = 4096

_NO_INITRD = kernel_hashes.NO_INITRD_SHA256.hex()
_NO_COMMAND_LINE = kernel_hashes.command_line_sha256('').hex()


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What was measured, as SHA-256 in hexadecimal.

    kernel, initrd and command line are None together: a launch without a
    measured kernel.
    """

    firmware_sha256: str
    kernel_sha256: str | None = None
    initrd_sha256: str | None = None
    command_line_sha256: str | None = None

    def digest(self, firmware):
        """The launch digest, 32 bytes.

        :param firmware: the launch core's Firmware with that SHA-256
        """
        hashes = None
        if self.kernel_sha256 is not None:
            hashes = kernel_hashes.KernelHashes(
                bytes.fromhex(self.kernel_sha256),
                bytes.fromhex(self.initrd_sha256),
                bytes.fromhex(self.command_line_sha256))
        return launch_digest.launch_digest(firmware, hashes)


def count(content):
    """How many launch digests a policy's content allows."""
    kernels = (len(content.kernels) * max(1, len(content.initrds))
               * len(content.command_lines))
    return len(content.firmwares) * (kernels + content.firmware_boot)


def _command_lines(content):
    return {kernel_hashes.command_line_sha256(text).hex(): text
            for text in content.command_lines}


def allowed(content, firmwares):
    """The digests that a policy allows.

    :param content: Content of a policy
    :param firmwares: {SHA-256 in hexadecimal: the launch core's Firmware}
    :returns: {digest: Inputs}; empty when the policy allows nothing
    """
    found = {}

    def add(inputs):
        found[inputs.digest(firmwares[inputs.firmware_sha256])] = inputs

    for firmware in content.firmwares:
        if firmware not in firmwares:
            continue
        if content.firmware_boot:
            add(Inputs(firmware))
        for kernel in content.kernels:
            for initrd in content.initrds or [_NO_INITRD]:
                for command_line in _command_lines(content):
                    add(Inputs(firmware, kernel, initrd, command_line))
    return found


def candidates(claims, firmwares):
    """The digests that a launch has if the host tells the truth.

    :param claims: the host's claims, each SHA-256 in hexadecimal or None
    :param firmwares: {SHA-256: Firmware}; the claimed one is taken, or each
        when it is not among them
    :returns: {digest: Inputs}
    """
    claimed = claims.get('firmware_sha256')
    kernel = claims.get('kernel_sha256')
    found = {}
    for sha256, firmware in firmwares.items():
        if claimed in firmwares and sha256 != claimed:
            continue
        inputs = Inputs(sha256)
        if kernel is not None:
            if firmware.hash_table_area is None:
                continue
            inputs = Inputs(
                sha256, kernel, claims.get('initrd_sha256') or _NO_INITRD,
                claims.get('command_line_sha256') or _NO_COMMAND_LINE)
        found[inputs.digest(firmware)] = inputs
    return found


def difference(content, inputs):
    """Name what a policy does not allow of a launch that was measured.

    :param inputs: Inputs that the measurement confirmed
    :returns: Denied that names the first input that differs
    """
    lines = _command_lines(content)
    checks = [('firmware', inputs.firmware_sha256, content.firmwares)]
    if inputs.kernel_sha256 is None:
        if not content.firmware_boot:
            return errors.Denied(
                'kernel_not_allowed',
                'The guest was launched without a measured kernel, which the '
                'policy does not allow.',
                {'allowed': {'kernels': content.kernels}})
    else:
        checks += [
            ('kernel', inputs.kernel_sha256, content.kernels),
            ('initrd', inputs.initrd_sha256,
             content.initrds or [_NO_INITRD]),
            ('command_line', inputs.command_line_sha256, lines)]
    differing = [name for name, value, expected in checks
                 if value not in expected]
    if not differing:
        return mismatch()
    expected = {'firmware': content.firmwares, 'kernel': content.kernels,
                'initrd': content.initrds,
                'command_line': content.command_lines}
    what = differing[0].replace('_', ' ')
    return errors.Denied(
        f'{differing[0]}_not_allowed',
        f'The {what} that the guest was launched with is not one that the '
        f'policy allows.',
        {'allowed': {name + 's': expected[name] for name in differing}})


def mismatch():
    """Denied for a measurement of which nothing more is known."""
    return errors.Denied(
        'measurement_mismatch',
        'The measurement is not one that the policy allows: what was '
        'launched differs, or the measurement belongs to another launch.')
