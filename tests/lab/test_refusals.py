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

"""Everything that must keep a server from running does.

In each case the server is in ERROR with a fault that says why, the platform
saw no instruction of it, and no domain, process or file of it is left (see
``assert_refused``).
"""

import base64
import dataclasses
import subprocess

import pytest

from devstack.lab import debroot
from devstack.lab import demo
from devstack.lab import owner as lab_owner
from nova_sev_attest.client import exceptions
from tests.lab import meddler
from tests.unit.launch import platforms

_CERTIFICATE_SIZE = 2084


# What the owner gets wrong


def test_debians_stock_firmware_is_refused_at_upload(
        layout, owner, tmp_path):
    # Debian 13's; newer builds declare an area, and use it for nothing.
    archives = debroot.download(['ovmf'], cache=layout.cache)
    for archive in archives:
        subprocess.run(['dpkg-deb', '--extract', archive, tmp_path],
                       check=True)
    stock = tmp_path / 'usr/share/OVMF/OVMF_CODE_4M.fd'
    with pytest.raises(exceptions.RequestRefused) as refused:
        owner.upload_firmware(stock)
    assert refused.value.code == 'attestation.firmware_unusable'
    assert 'secret' in refused.value.detail


def test_a_policy_of_another_project_is_out_of_reach(
        layout, guest, other, boot, assert_refused):
    firmware = other.upload_firmware(demo.firmware_path(layout))
    theirs = other.create_guest_policy(
        lab_owner.unique('theirs'), guest, firmware,
        trusted_roots=['emulated'])
    for name in ('name', 'id'):
        assert_refused(boot({'name': theirs[name]}), 'polic')


def test_a_secret_of_another_project_cannot_be_named(
        layout, guest, other, project):
    firmware = other.upload_firmware(demo.firmware_path(layout))
    # The key service may read it: the owner granted it that.
    with pytest.raises(exceptions.RequestRefused) as refused:
        other.create_guest_policy(
            lab_owner.unique('greedy'), guest, firmware,
            secret=project.secret, trusted_roots=['emulated'])
    assert refused.value.status == 403
    assert refused.value.code == 'attestation.secret_forbidden'


def test_a_secret_larger_than_the_area_is_not_injected(
        owner, project, make_policy, boot, assert_refused):
    large = owner.store_secret('too large', 'x' * 3072)
    owner.grant(large, project.service)
    assert_refused(boot(make_policy(secret=large)), 'secret', '3072')


def test_a_secret_that_was_not_granted(
        owner, make_policy, boot, assert_refused):
    secret = owner.store_secret('for nobody', 'passphrase')
    assert_refused(boot(make_policy(secret=secret)), 'secret')


def test_no_policy_named_and_none_is_the_default(boot, assert_refused):
    assert_refused(boot(), 'no attestation policy', 'attestation_policy')


def test_an_empty_list_of_kernels_allows_none(
        make_policy, boot, assert_refused):
    policy = make_policy(kernels=[], initrds=[], command_lines=[])
    assert_refused(boot(policy), 'kernel', 'policy')


def test_amds_roots_do_not_vouch_for_an_emulated_platform(
        make_policy, boot, assert_refused):
    policy = make_policy(trusted_roots=['amd-milan', 'amd-genoa'])
    assert_refused(boot(policy), 'platform|chain|root')


# What was launched is not what the policy allows


def test_another_kernel(
        owner, guest, make_policy, boot, tmp_path, assert_refused):
    changed = tmp_path / 'kernel'
    changed.write_bytes(guest.kernel.read_bytes() + bytes(16))
    images = owner.upload_guest(
        'other-kernel', dataclasses.replace(guest, kernel=changed))
    assert_refused(boot(make_policy(), images), r'kernel\b.*policy')


def test_another_command_line(
        owner, guest, make_policy, boot, assert_refused):
    images = owner.upload_guest('other-line', dataclasses.replace(
        guest, command_line=f'{guest.command_line} init=/bin/sh'))
    assert_refused(boot(make_policy(), images), 'command line.*policy')


def test_another_firmware(
        layout, owner, make_policy, boot, tmp_path, assert_refused):
    firmware = bytearray(demo.firmware_path(layout).read_bytes())
    # Its first bytes are padding; the tables are at the end.
    firmware[0] ^= 1
    (tmp_path / 'firmware').write_bytes(firmware)
    other = owner.upload_firmware(tmp_path / 'firmware')
    # The host cannot claim the file that libvirt chose: the service finds
    # it among the firmwares of the project.
    assert_refused(boot(make_policy(firmwares=[other])),
                   'firmware not allowed')


# A key service that cannot be had


def test_the_key_service_is_down(layout, make_policy, boot, assert_refused):
    policy = make_policy()
    with meddler.stopped(layout):
        assert_refused(boot(policy), 'key service')


@pytest.fixture(scope='module')
def _meddler(layout):
    with meddler.in_place(layout) as found:
        yield found


@pytest.fixture
def meddling(_meddler):
    """Something between nova-compute and the key service."""
    yield _meddler
    _meddler.behave()


def test_through_an_honest_conveyer_it_boots(
        meddling, owner, make_policy, boot):
    assert owner.wait(boot(make_policy()), 'ACTIVE').status == 'ACTIVE'


def test_the_key_service_does_not_answer_in_time(
        meddling, make_policy, boot, assert_refused):
    policy = make_policy()
    meddling.instead = lambda handler: meddling.released.wait(60)
    assert_refused(boot(policy), 'key service')


@pytest.mark.parametrize('status, body', [
    (200, b'<html>It works!</html>'),
    (201, b'\x00\xff' * 100),
    (201, b'[' * 5000),
    (201, b'{"launch": {"session": "soon"}}'),
    (201, b'{}' + b' ' * (1 << 20)),
    (500, b'{"errors": 7}'),
])
def test_the_key_service_answers_rubbish(
        meddling, make_policy, boot, assert_refused, status, body):
    policy = make_policy()
    meddling.instead = lambda handler: handler.answer(
        status, body, [('Content-Type', 'application/json')])
    assert_refused(boot(policy), 'key service')


# A hostile compute host


def _flip(document, name, offset):
    changed = bytearray(base64.b64decode(document[name]))
    changed[offset] ^= 1
    document[name] = base64.b64encode(changed).decode()


@pytest.mark.parametrize('name, offset', [
    ('pdh', 0x20), ('pdh', 0x420), ('cert_chain', 0x20),
    ('cert_chain', _CERTIFICATE_SIZE + 0x20),
    ('cert_chain', 2 * _CERTIFICATE_SIZE + 0x420),
])
def test_one_bit_of_the_platforms_chain_differs(
        meddling, make_policy, boot, assert_refused, name, offset):
    policy = make_policy()

    def flip(below, document):
        if below == '':
            _flip(document['launch']['platform'], name, offset)

    meddling.on_request = flip
    assert_refused(boot(policy), 'platform|certificate|chain')


def test_a_chain_of_somebody_elses_root(
        meddling, make_policy, boot, assert_refused):
    policy = make_policy()
    foreign = platforms.platform(root='another root')

    def swap(below, document):
        if below == '':
            document['launch']['platform'] = {
                'pdh': base64.b64encode(foreign.pdh).decode(),
                'cert_chain': base64.b64encode(foreign.cert_chain).decode()}

    meddling.on_request = swap
    assert_refused(boot(policy), 'platform|certificate|chain')


def test_another_certificate_of_the_platform_as_its_pdh(
        meddling, make_policy, boot, assert_refused):
    policy = make_policy()

    def swap(below, document):
        if below == '':
            platform = document['launch']['platform']
            chain = base64.b64decode(platform['cert_chain'])
            platform['pdh'] = base64.b64encode(
                chain[:_CERTIFICATE_SIZE]).decode()

    meddling.on_request = swap
    assert_refused(boot(policy), 'platform|certificate|PDH')


def test_a_measurement_of_an_earlier_launch(
        meddling, owner, make_policy, boot, assert_refused):
    policy = make_policy()
    seen = []

    def replay(below, document):
        if below == 'evidence':
            seen.append(document['evidence']['measurement'])
            document['evidence']['measurement'] = seen[0]

    meddling.on_request = replay
    assert owner.wait(boot(policy), 'ACTIVE').status == 'ACTIVE'
    assert_refused(boot(policy), 'measurement')
    assert len(set(seen)) == 2


def test_a_session_of_an_earlier_launch(
        meddling, owner, make_policy, boot, assert_refused):
    policy = make_policy()
    seen = []

    def replay(below, document):
        if below == '':
            seen.append(document['launch']['session'])
            document['launch']['session'] = seen[0]

    meddling.on_answer = replay
    assert owner.wait(boot(policy), 'ACTIVE').status == 'ACTIVE'
    # The platform takes it: the measurement tells that the keys are others.
    assert_refused(boot(policy), 'measurement')


def test_a_session_for_another_platform(
        meddling, make_policy, boot, assert_refused):
    policy = make_policy()

    def swap(below, document):
        if below == '':
            session = document['launch']['session']
            _flip(session, 'session', 20)

    meddling.on_answer = swap
    assert_refused(boot(policy), 'platform refused', 'session')


def test_debugging_cannot_be_switched_on(
        meddling, make_policy, boot, assert_refused):
    policy = make_policy()

    def allow_debugging(below, document):
        if below == '':
            document['launch']['session']['policy'] &= ~1

    meddling.on_answer = allow_debugging
    assert_refused(boot(policy), 'policy word')


def test_a_packet_for_another_launch(
        meddling, owner, make_policy, boot, assert_refused):
    policy = make_policy()
    seen = []

    def replay(below, document):
        if below == 'evidence':
            seen.append(document['release'])
            document['release'] = seen[0]

    meddling.on_answer = replay
    assert owner.wait(boot(policy), 'ACTIVE').status == 'ACTIVE'
    assert_refused(boot(policy), 'platform refused', 'secret')


def test_claims_accept_nothing(
        meddling, guest, make_policy, boot, tampered, assert_refused):
    def claim(below, document):
        if below == 'evidence':
            document['claims']['initrd_sha256'] = lab_owner.sha256(
                guest.initramfs)

    meddling.on_request = claim
    fault = assert_refused(boot(make_policy(), tampered), 'measurement')
    assert 'initrd' not in fault
