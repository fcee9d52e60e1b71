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

"""The emulated platform under plain libvirt, without OpenStack.

Both sides of the protocol meet here: sessions by the launch core, the
platform by the emulator, unmodified libvirt and QEMU between them, and
Debian's virt-qemu-sev-validate as a judge that is neither.
"""

import base64
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import uuid

import pytest

from devstack.lab import compute_root
from devstack.lab.guest import initramfs
from devstack.lab.guest import tree
from devstack.lab import kvm_amd
from devstack.lab import layout as lab_layout
from nova_sev_attest.emulator import cpus
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import digest
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import machine
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import policy
from nova_sev_attest.launch import profile
from nova_sev_attest.launch import secret
from nova_sev_attest.launch import vmsa
from nova_sev_attest.trust import roots

_SECONDS = 120
_COMMAND_LINE = 'console=ttyS0 iomem=relaxed panic=-1 quiet'
_POLICY = policy.LaunchPolicy.for_technology('amd-sev')
_ES_POLICY = policy.LaunchPolicy.for_technology('amd-sev-es')
_CPU = "<cpu mode='custom'><model>{}</model></cpu>"
_PASSPHRASE = b'only the emulated platform can read this'
_SECRETS = {secret.LUKS_PASSPHRASE_GUID: _PASSPHRASE}
# It prints what lies in the firmware's area for secrets.
_INIT = b'''#!/bin/sh
mount -t devtmpfs devtmpfs /dev
echo "AREA $(dd if=/dev/mem bs=3072 skip=2752 count=1 2>/dev/null |
    od -An -v -tx1 | tr -d ' \\n')"
poweroff -f
'''
_APPLETS = ('sh', 'mount', 'dd', 'od', 'tr', 'poweroff', 'echo')
_XML = '''
<domain type='{type}'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <memoryBacking><locked/></memoryBacking>
  <vcpu>{vcpus}</vcpu>
  <os firmware='efi'>
    <firmware><feature name='secure-boot' enabled='no'/></firmware>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <loader secure='no' stateless='yes'/>
    <initrd>{initrd}</initrd>
    <cmdline>{command_line}</cmdline>
  </os>
  <features><acpi/></features>
  {cpu}
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <serial type='file'><source path='{console}'/></serial>
    <memballoon model='none'/>
  </devices>
  <launchSecurity type='sev' kernelHashes='yes'>
    <policy>{policy:#06x}</policy>
    <dhCert>{certificate}</dhCert>
    <session>{session}</session>
  </launchSecurity>
</domain>
'''


@dataclasses.dataclass(frozen=True)
class Boot:
    """What a guest boots: paths that libvirt knows them by."""

    kernel: pathlib.Path
    initrd: pathlib.Path
    firmware: firmware.Firmware
    command_line: str = _COMMAND_LINE

    def digest(self, save_areas=()):
        hashes = kernel_hashes.KernelHashes.from_bytes(
            self.kernel.read_bytes(), self.initrd.read_bytes(),
            self.command_line)
        return digest.launch_digest(self.firmware, hashes, save_areas)


class Host:
    """A compute host of this test's own."""

    def __init__(self, lab, folder, run):
        self.root = lab.compute_root
        self.folder = folder
        self.run = run
        self.keys = folder / 'keys'
        self._arguments = ['--root', self.root, '--run', run]
        self._view = ['--state', folder / 'state', '--log', folder / 'log',
                      '--bind', folder / 'shared']
        self._processes = {}
        self._uuid = uuid.uuid4()
        (folder / 'shared').mkdir()

    def _command(self, name, *arguments):
        line = [sys.executable, compute_root.HERE / 'compute_root.py', name,
                *self._arguments, *arguments]
        return [str(word) for word in line]

    def start(self, name, *arguments):
        with (self.folder / f'{name}.log').open('ab') as log:
            process = subprocess.Popen(
                self._command(name, *arguments), stdout=log,
                stderr=subprocess.STDOUT)
        self._processes[name] = process

    def stop(self, name):
        process = self._processes.pop(name)
        process.terminate()
        process.wait(_SECONDS)

    def start_platform(self):
        self.start('platform', '--keys', self.keys)
        self.wait(self.launches)

    def start_libvirtd(self):
        kvm = ['--kvm'] if os.path.exists('/dev/kvm') else []
        self.start('libvirtd', *self._view, '--host-uuid', self._uuid, *kvm)
        return self.wait(self._connect)

    def _connect(self):
        libvirt = pytest.importorskip('libvirt')
        try:
            return libvirt.open(compute_root.libvirt_uri(self.run))
        except libvirt.libvirtError as error:
            raise OSError(str(error)) from error

    def close(self):
        for name in ('libvirtd', 'platform'):
            if name in self._processes:
                self.stop(name)
        for words in self.guests():
            raise AssertionError(f'{words} was left over')

    def guests(self):
        """Processes of guests and of their monitors' proxies."""
        found = {}
        for entry in pathlib.Path('/proc').glob('[0-9]*'):
            with contextlib.suppress(OSError):
                words = (entry / 'cmdline').read_bytes().decode().split('\0')
                inside = os.readlink(entry / 'root') == str(self.root)
                if inside and self.run.name in ' '.join(words):
                    found[int(entry.name)] = words
        return found

    def execute(self, *command):
        """Run a program of the root with libvirtd's view."""
        done = subprocess.run(
            self._command('exec', *self._view, '--', *command),
            capture_output=True, text=True, timeout=_SECONDS)
        return done.returncode, done.stdout + done.stderr

    def launches(self, name=None):
        found = compute_root.status(self.run)['launches']
        return [launch for launch in found if name in (None, launch['name'])]

    @staticmethod
    def wait(function):
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                found = function()
                if found is not None:
                    return found
            except Exception:
                if time.monotonic() > deadline:
                    raise
            assert time.monotonic() < deadline, 'waited in vain'
            time.sleep(0.2)


@pytest.fixture(scope='module')
def lab():
    if os.geteuid():
        reason = 'unpacking and entering a compute root needs root'
        if os.environ.get('CI'):
            pytest.fail(reason)
        pytest.skip(reason)
    found = lab_layout.Layout.from_environment()
    compute_root.build(found.compute_root, found.cache)
    return found


@contextlib.contextmanager
def _host(lab, folder):
    run = pathlib.Path(f'/run/sev-test-{secrets.token_hex(4)}')
    made = Host(lab, folder, run)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(run, ignore_errors=True)


@pytest.fixture(scope='module')
def host(lab, tmp_path_factory):
    # Below the system's own /tmp: the user of QEMU has to reach it.
    with _host(lab, tmp_path_factory.mktemp('host')) as made:
        made.start_platform()
        yield made


@pytest.fixture(scope='module')
def libvirtd(host):
    connection = host.start_libvirtd()
    yield connection
    connection.close()


@pytest.fixture(scope='module')
def platform(host, libvirtd):
    return _platform(host, libvirtd)


def _platform(host, connection):
    """The platform as libvirt shows it, verified up to its own root."""
    told = connection.getSEVInfo()
    anchors = roots.load_anchors(
        extra=[f'emulated={host.keys}/ask_ark.cert'])
    return chain.PlatformCertificates.from_libvirt(
        base64.b64decode(told['pdh']),
        base64.b64decode(told['cert-chain'])).verify(anchors)


@pytest.fixture(scope='module')
def boot(lab, host):
    packages = tree.unpack(lab.lab_dir)
    shared = host.folder / 'shared'
    kernel = shared / 'kernel'
    kernel.write_bytes(packages.kernel()[0].read_bytes())
    initrd = shared / 'initrd'
    initrd.write_bytes(initramfs.pack(
        {'init': _INIT, 'bin/busybox': packages.read('usr/bin/busybox')},
        programs={'init', 'bin/busybox'},
        links={f'bin/{applet}': 'busybox' for applet in _APPLETS},
        folders=['dev']))
    image = host.root / compute_root.FIRMWARE.lstrip('/')
    return Boot(kernel, initrd, firmware.Firmware.parse(image.read_bytes()))


class Domain:
    """A transient domain, gone at the end."""

    def __init__(self, host, connection, boot, issued, **changes):
        self.name = f'{host.run.name}-{secrets.token_hex(4)}'
        self.console = host.folder / 'shared' / self.name
        self.console.touch()
        self._host = host
        values = {
            'name': self.name, 'type': 'qemu', 'cpu': '', 'vcpus': 1,
            'memory': 256, 'kernel': boot.kernel,
            'initrd': boot.initrd, 'command_line': boot.command_line,
            'console': self.console, 'policy': _POLICY.word,
            'certificate': _encode(issued.godh_certificate),
            'session': _encode(issued.session), **changes}
        import libvirt
        self.domain = connection.createXML(
            _XML.format(**values), libvirt.VIR_DOMAIN_START_PAUSED)

    def __getattr__(self, name):
        return getattr(self.domain, name)

    @property
    def launch(self):
        launch, = self._host.launches(self.name)
        return launch

    def evidence(self):
        told = self.domain.launchSecurityInfo()
        return measurement.Evidence.parse(
            base64.b64decode(told['sev-measurement']),
            told['sev-api-major'], told['sev-api-minor'],
            told['sev-build-id'])

    def inject(self, packet, address=None):
        state = {'sev-secret-header': _encode(packet.header),
                 'sev-secret': _encode(packet.data)}
        if address is not None:
            state['sev-secret-set-address'] = address
        self.domain.setLaunchSecurityState(state)

    def area(self):
        """Let it run; what it found in its area for secrets."""
        self.domain.resume()

        def printed():
            line = re.search(r'AREA ([0-9a-f]+)\s', self.console.read_text())
            return line and bytes.fromhex(line[1])

        return self._host.wait(printed)


def _encode(data):
    return base64.b64encode(data).decode()


@pytest.fixture
def start(host, libvirtd, boot, platform):
    """Start a paused domain; returns it and its session."""
    started = []

    def begin(changed=boot, issued=None, policy=_POLICY, **changes):
        issued = issued or machine.begin(platform, uuid.uuid4(), policy)
        domain = Domain(host, libvirtd, changed, issued,
                        policy=policy.word, **changes)
        started.append(domain)
        return domain, issued

    yield begin
    import libvirt
    for domain in started:
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()


@pytest.fixture
def refused(host, libvirtd):
    """A context in which libvirt has to refuse, leaving nothing."""
    import libvirt

    @contextlib.contextmanager
    def check(pattern):
        with pytest.raises(libvirt.libvirtError, match=pattern):
            yield

    return check


def _verify(issued, domain, boot):
    claims = {'firmware_sha256': boot.firmware.sha256.hex()}
    return issued.verify(domain.evidence(), {boot.digest(): claims})


def test_libvirt_offers_sev(host, libvirtd):
    code, told = host.execute('virsh', '-c', 'qemu:///system',
                              'domcapabilities', '--machine', 'q35',
                              '--virttype', 'qemu')
    assert code == 0, told
    assert "<sev supported='yes'>" in told
    assert '<maxGuests>410</maxGuests>' in told


def test_chain_ends_in_the_emulated_root_only(host, libvirtd, platform):
    assert platform.emulated
    assert platform.anchor_name == 'emulated'
    told = libvirtd.getSEVInfo()
    other = host.folder / 'other'
    subprocess.run([sys.executable, '-c', (
        'import sys; from nova_sev_attest.emulator import platform; '
        'platform.open_platform(sys.argv[1])'), other], check=True,
        cwd=lab_layout.CHECKOUT)
    certificates = chain.PlatformCertificates.from_libvirt(
        base64.b64decode(told['pdh']), base64.b64decode(told['cert-chain']))
    with pytest.raises(errors.ChainVerificationError):
        certificates.verify(roots.load_anchors(
            extra=[f'emulated={other}/ask_ark.cert']))


def test_guest_gets_its_secret(host, start, boot):
    domain, issued = start()
    assert domain.launch['state'] == 'launch-secret'
    verified = _verify(issued, domain, boot)
    assert domain.launch['digest'] == verified.digest.hex()
    released = verified.release(_SECRETS,
                                area=boot.firmware.require_secret_area())
    assert not domain.launch['instructions_run']
    domain.inject(released.packet, released.gpa)
    assert not domain.launch['instructions_run']
    assert domain.console.read_text() == ''
    area = domain.area()
    table = secret.build_secret_table(_SECRETS)
    assert area.startswith(table)
    assert not any(area[len(table):])
    launch = host.wait(lambda: domain.launch['state'] == 'ended'
                       and domain.launch or None)
    assert [event['event'] for event in launch['events']] == [
        'started', 'measured', 'secret_injected', 'finished', 'ended']
    assert launch['instructions_run']
    assert launch['secrets'] == 1
    assert _PASSPHRASE.hex() not in str(launch)


def test_secret_lands_in_the_firmwares_area_without_address(start, boot):
    domain, issued = start()
    released = _verify(issued, domain, boot).release(
        _SECRETS, area=boot.firmware.require_secret_area())
    domain.inject(released.packet)
    assert _PASSPHRASE in domain.area()


def test_guest_without_secret_finds_none(start):
    domain, _ = start()
    assert not any(domain.area())


def test_judge_accepts_the_measurement(host, start, boot):
    """Debian's validator, by the owner of the session, finds it right."""
    domain, issued = start()
    # Before the core verifies: it gives no keys away afterwards.
    code, told = _judge(host, domain, issued, boot)
    assert code == 0, told
    _verify(issued, domain, boot)
    assert 'OK: Looks good to me' in told


def test_judge_refuses_another_initrd(host, start, boot):
    domain, issued = start()
    changed = _changed_initrd(host, boot)
    code, told = _judge(host, domain, issued, changed)
    assert code == 1
    assert 'Measurement does not match' in told


def _judge(host, domain, issued, boot, *more):
    shared = host.folder / 'shared'
    for name in ('tik', 'tek'):
        (shared / name).write_bytes(getattr(issued.keys, name))
    info = domain.launchSecurityInfo()
    return host.execute(
        'virt-qemu-sev-validate', '--measurement', info['sev-measurement'],
        '--api-major', info['sev-api-major'],
        '--api-minor', info['sev-api-minor'],
        '--build-id', info['sev-build-id'], '--policy', info['sev-policy'],
        '--firmware', compute_root.FIRMWARE, '--kernel', boot.kernel,
        '--initrd', boot.initrd, '--cmdline', boot.command_line,
        '--tik', shared / 'tik', '--tek', shared / 'tek', *more)


@pytest.mark.parametrize('vcpus, model, numbers', [
    (1, 'EPYC', (23, 1, 2)), (4, 'EPYC-Milan', (25, 1, 1)),
    (2, 'qemu64', (15, 107, 1))])
def test_judge_accepts_an_encrypted_state(host, start, boot, vcpus, model,
                                          numbers):
    domain, issued = start(policy=_ES_POLICY, vcpus=vcpus,
                           cpu=_CPU.format(model))
    assert domain.launch['vcpus'] == vcpus
    for claimed in (vcpus, vcpus + 1):
        code, told = _judge(
            host, domain, issued, boot, '--num-cpus', claimed,
            *(word for name, number in zip(
                ('family', 'model', 'stepping'), numbers)
              for word in (f'--cpu-{name}', number)))
        assert code == (0 if claimed == vcpus else 1), told
    pages = vmsa.save_areas(
        vmsa.LEGACY, vcpus, vmsa.cpu_signature(*numbers),
        boot.firmware.reset_eip)
    verified = issued.verify(domain.evidence(), {boot.digest(pages): {}})
    assert domain.launch['digest'] == verified.digest.hex()
    assert verified.claims['policy_word'] == 0x3f


def test_guest_with_encrypted_state_gets_its_secret(start, boot):
    domain, issued = start(policy=_ES_POLICY, vcpus=2, cpu=_CPU.format('EPYC'))
    pages = vmsa.save_areas(vmsa.LEGACY, 2, profile.cpu_signature('EPYC'),
                            boot.firmware.reset_eip)
    verified = issued.verify(domain.evidence(), {boot.digest(pages): {}})
    released = verified.release(_SECRETS,
                                area=boot.firmware.require_secret_area())
    domain.inject(released.packet, released.gpa)
    assert domain.area().startswith(secret.build_secret_table(_SECRETS))


def test_signatures_are_those_of_qemu(start):
    """The numbers of each model are what QEMU itself tells."""
    libvirt_qemu = pytest.importorskip('libvirt_qemu')
    domain, _ = start()

    def ask(command, **arguments):
        reply = json.loads(libvirt_qemu.qemuMonitorCommand(
            domain.domain, json.dumps(
                {'execute': command, 'arguments': arguments}), 0))
        return reply['return']

    known = {model['name'] for model in ask('query-cpu-definitions')}
    # Not each QEMU has the newest.
    asked = [name for name in profile.CPU_SIGNATURES if name in known]
    assert {'EPYC-v4', 'EPYC-Milan-v2', 'EPYC-Genoa'} <= set(asked)
    for name in [*asked, 'qemu64', 'kvm64']:
        told = ask('query-cpu-model-expansion', type='full',
                   model={'name': name})['model']['props']
        signature = vmsa.cpu_signature(*(
            told[number] for number in ('family', 'model', 'stepping')))
        assert cpus.signature(name, {}) == signature
        assert profile.CPU_SIGNATURES.get(name, signature) == signature


def _changed_initrd(host, boot):
    data = bytearray(boot.initrd.read_bytes())
    data[-1] ^= 1
    path = host.folder / 'shared' / 'initrd-changed'
    path.write_bytes(data)
    return dataclasses.replace(boot, initrd=path)


def test_changed_initrd_gives_another_measurement(host, start, boot):
    domain, issued = start(_changed_initrd(host, boot))
    with pytest.raises(errors.MeasurementMismatch):
        _verify(issued, domain, boot)
    domain.destroy()
    assert not domain.launch['instructions_run']
    assert domain.console.read_text() == ''


def test_measurement_of_an_earlier_launch_is_not_this_ones(start, boot):
    first, issued = start()
    _verify(issued, first, boot)
    second, fresh = start()
    with pytest.raises(errors.MeasurementMismatch):
        fresh.verify(first.evidence(), {boot.digest(): {}})
    assert second.launch['digest'] == first.launch['digest']


def test_corrupt_session_fails_the_start(host, start, platform, refused):
    issued = machine.begin(platform, uuid.uuid4(), _POLICY)
    session = bytearray(issued.session)
    session[20] ^= 1
    with refused('BAD_MEASUREMENT'):
        start(issued=issued, session=_encode(session))
    assert host.launches()[-1]['events'][0]['event'] == 'refused'
    assert not host.launches()[-1]['instructions_run']
    host.wait(lambda: not host.guests() or None)


def test_session_for_another_policy_fails_the_start(start, platform, refused):
    with refused('another policy'):
        start(policy=policy.LaunchPolicy.parse(0x33),
              issued=machine.begin(platform, uuid.uuid4(), _POLICY))


def test_certificate_of_rubbish_fails_the_start(start, refused):
    with refused('INVALID_CERTIFICATE'):
        start(certificate=_encode(bytes(2084)))


def test_bad_mac_is_refused(host, start, boot):
    import libvirt
    domain, issued = start()
    released = _verify(issued, domain, boot).release(
        _SECRETS, area=boot.firmware.require_secret_area())
    wrong = dataclasses.replace(
        released.packet,
        header=released.packet.header[:-1]
        + bytes([released.packet.header[-1] ^ 1]))
    with pytest.raises(libvirt.libvirtError, match='BAD_MEASUREMENT'):
        domain.inject(wrong)
    # The guest is as it was, and its owner's packet is still good.
    domain.inject(released.packet)
    assert domain.launch['secrets'] == 1


def test_packet_of_another_launch_is_refused(start, boot):
    import libvirt
    first, issued = start()
    released = _verify(issued, first, boot).release(
        _SECRETS, area=boot.firmware.require_secret_area())
    second, _ = start()
    with pytest.raises(libvirt.libvirtError, match='BAD_MEASUREMENT'):
        second.inject(released.packet)
    # With the same session: the measurement is another.
    third, _ = start(issued=issued)
    with pytest.raises(libvirt.libvirtError, match='BAD_MEASUREMENT'):
        third.inject(released.packet)


def test_running_guest_takes_no_secret(start, boot):
    import libvirt
    domain, issued = start()
    released = _verify(issued, domain, boot).release(
        _SECRETS, area=boot.firmware.require_secret_area())
    domain.resume()
    assert domain.launch['instructions_run']
    with pytest.raises(libvirt.libvirtError, match='paused'):
        domain.inject(released.packet)
    domain.suspend()
    with pytest.raises(libvirt.libvirtError, match='INVALID_GUEST_STATE'):
        domain.inject(released.packet)


def test_kvm_is_swapped_for_cpu_emulation(start, libvirtd, boot):
    import libvirt
    try:
        libvirtd.getDomainCapabilities(None, 'x86_64', 'q35', 'kvm', 0)
    except libvirt.libvirtError as error:
        pytest.skip(f'the machine has no KVM: {error}')
    domain, issued = start(type='kvm', cpu="<cpu mode='host-passthrough'/>")
    _verify(issued, domain, boot)


def test_guest_survives_a_restart_of_libvirtd(host, lab, boot, tmp_path):
    with _host(lab, tmp_path) as own:
        own.start_platform()
        connection = own.start_libvirtd()
        issued = machine.begin(_platform(own, connection), uuid.uuid4(),
                               _POLICY)
        copied = dataclasses.replace(boot, **{
            name: shutil.copy(getattr(boot, name), tmp_path / 'shared')
            for name in ('kernel', 'initrd')})
        domain = Domain(own, connection, copied, issued)
        try:
            connection.close()
            own.stop('libvirtd')
            connection = own.start_libvirtd()
            domain.domain = connection.lookupByName(domain.name)
            released = _verify(issued, domain, boot).release(
                _SECRETS, area=boot.firmware.require_secret_area())
            domain.inject(released.packet)
            # And without its platform it is never let run.
            own.stop('platform')
            import libvirt
            with pytest.raises(libvirt.libvirtError, match='gone'):
                domain.resume()
            assert domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
        finally:
            domain.destroy()
            connection.close()
            own.wait(lambda: not own.guests() or None)


def test_libvirtd_needs_the_platform(lab, tmp_path):
    with _host(lab, tmp_path) as own:
        code, told = own.execute('true')
    assert code == 1
    assert 'start "platform" first' in told


def test_killed_guest_leaves_nothing(host, start):
    domain, _ = start()
    qemu, = (number for number, words in host.guests().items()
             if domain.name in ' '.join(words)
             and words[0].startswith('/usr/bin/qemu'))
    os.kill(qemu, signal.SIGKILL)
    host.wait(lambda: not host.guests() or None)
    host.wait(lambda: domain.launch['state'] == 'ended' or None)
    assert not domain.launch['instructions_run']


def test_nothing_is_left_of_destroyed_guests(host, start):
    domain, _ = start()
    assert host.guests()
    domain.destroy()
    host.wait(lambda: not host.guests() or None)
    host.wait(lambda: domain.launch['state'] == 'ended' or None)
    assert not list((host.root / 'tmp').glob('sev-*'))


def test_keys_stay_with_the_daemon(host):
    for name in ('ask.pem', 'chips/chip0/pdh.pem'):
        found = (host.keys / name).stat()
        assert found.st_uid == 0 and not found.st_mode & 0o077
    # Not in what libvirtd and QEMU see.
    code, _ = host.execute('test', '-e', host.keys / 'ask.pem')
    assert code == 1


@pytest.mark.parametrize('sev_es', [False, True])
def test_nova_compute_sees_a_kernel_with_sev(lab, sev_es):
    modules = pathlib.Path('/sys/module')
    names = set(os.listdir(modules)) | {'kvm_amd'}
    script = ("import json, os; m = '/sys/module/'; "
              "p = m + 'kvm_amd/parameters/'; "
              "print(json.dumps([sorted(os.listdir(m)), "
              "{n: open(p + n).read() for n in os.listdir(p)}]))")
    told = subprocess.run(
        kvm_amd.command_line([sys.executable, '-c', script], sev_es=sev_es),
        check=True, capture_output=True, text=True).stdout
    seen, parameters = json.loads(told)
    assert names <= set(seen)
    assert parameters == {'sev': 'Y\n', 'sev_es': 'Y\n' if sev_es else 'N\n',
                          'sev_snp': 'N\n'}
    # Nothing of it is seen outside.
    assert set(os.listdir(modules)) | {'kvm_amd'} == names
