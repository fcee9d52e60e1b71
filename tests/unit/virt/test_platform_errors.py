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

from nova.virt.libvirt import guest as libvirt_guest
import pytest

from nova_sev_attest.virt import platform_errors
from tests.unit.virt import fakes

libvirt = libvirt_guest.libvirt


@pytest.mark.parametrize('text, code, of_the_host', [
    # target/i386/sev.c of QEMU 7.2 and of 10.0.
    ('qemu-system-x86_64: sev_launch_start: LAUNCH_START ret=1 fw_error=11 '
     "'Bad measurement'", 0x0b, False),
    ("internal error: QEMU unexpectedly closed the monitor (vm='x'): "
     'sev_kvm_init: failed to initialize ret=-16 fw_error=23 '
     "'Resource limit'", 0x17, True),
    ('sev_launch_start: LAUNCH_START ret=-1 fw_error=0x13', 0x13, True),
    ('LAUNCH_START ret=-5 fw_error=7', 0x07, False),
    # The kernel refused: the firmware said nothing.
    ('sev_launch_start: LAUNCH_START ret=-22 fw_error=0', None, False),
    ("unable to execute QEMU command 'sev-inject-launch-secret': no",
     None, False),
    ('qemu-system-x86_64: SEV: guest firmware hashes table area is invalid',
     None, False),
])
def test_refusal(text, code, of_the_host):
    refusal = platform_errors.refusal_of(fakes.libvirt_error(text))
    assert refusal.code == code
    assert refusal.is_of_the_host is of_the_host


@pytest.mark.parametrize('error', [
    ValueError('fw_error=11'),
    libvirt.libvirtError('sev_launch_start: no code, so not from libvirt'),
    fakes.libvirt_error('fw_error=11', domain=libvirt.VIR_FROM_DOMAIN),
    fakes.libvirt_error('fw_error=11', code=libvirt.VIR_ERR_NO_DOMAIN),
    # Words of which "sev" is a part.
    fakes.libvirt_error('several devices severed'),
    fakes.libvirt_error('/var/lib/several.fd: no such file'),
])
def test_none(error):
    assert platform_errors.refusal_of(error) is None
