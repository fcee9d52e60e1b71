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

"""The launch core alone, on the same cores: what the service is held to."""

import concurrent.futures
import time
import uuid

from benchmarks.keyservice import load
from nova_sev_attest.emulator import platform as emulated_platform
from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import digest
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import machine
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import policy as launch_policy


def launches_per_second(folder, workers, seconds):
    """Session, verification and packing, in so many processes at once.

    :param folder: of the emulated platform's keys
    :returns: (with a platform that was verified before, with the chain of
        certificates verified for each launch)
    """
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        return tuple(
            sum(pool.map(_run, [folder] * workers, [seconds] * workers,
                         [cold] * workers))
            for cold in (False, True))


def _run(folder, seconds, cold):
    made = emulated_platform.open_platform(folder)
    data = (folder / 'ask_ark.cert').read_bytes()
    half = len(data) // 2
    anchors = [chain.Anchor(
        'emulated', certificates.AmdCertificate.parse(data[half:]),
        certificates.AmdCertificate.parse(data[:half]), emulated=True)]

    def verify():
        return chain.PlatformCertificates.from_libvirt(
            made.pdh, made.cert_chain).verify(anchors)

    image = firmware.Firmware.parse(load.FIRMWARE)
    area = image.require_secret_area()
    expected = digest.launch_digest(image)
    allowed = {expected: {'firmware_sha256': image.sha256.hex()}}
    policy = launch_policy.LaunchPolicy.for_technology('amd-sev')
    secrets = {load.LUKS: bytes(32)}
    platform, count, started = verify(), 0, time.monotonic()
    while time.monotonic() - started < seconds:
        issued = machine.begin(verify() if cold else platform, uuid.uuid4(),
                               policy)
        # The platform's part: one HMAC, which is left in the figure.
        blank = measurement.Evidence(bytes(32), uuid.uuid4().bytes, 1, 51, 3)
        blob = measurement.compute_measure(
            issued.keys, policy, blank, expected) + blank.mnonce
        issued.verify(measurement.Evidence.parse(blob, 1, 51, 3),
                      allowed).release(secrets, area)
        count += 1
    return count / (time.monotonic() - started)
