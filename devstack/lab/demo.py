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

"""Two servers over the emulated SEV platform: one attested, one tampered.

A guest owner makes an encrypted disk, puts its passphrase into Barbican and
says in a policy which firmware, kernel, initramfs and command line may have
it. The server that boots just these gets the passphrase and unlocks its
disk. The server whose initramfs differs in one byte never runs.

The last line of output is a JSON object with the result. The exit code is 0
only if everything in it is as it has to be.
"""

import argparse
import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import traceback

from devstack.lab import compute_root
from devstack.lab.guest import build as guest_build
from devstack.lab import host as lab_host
from devstack.lab import layout as lab_layout
from devstack.lab import owner as lab_owner
from devstack.lab import supervision

_TOOL = lab_layout.CHECKOUT / 'tools' / 'lab'
# The name of the key service's anchor for the emulated platform.
_EMULATED = 'emulated'
_KEY_SERVICE_USER = 'attestation'


class Demo:
    """One run: its steps, their times, its result.

    :param layout: the lab (:class:`devstack.lab.layout.Layout`).
    """

    def __init__(self, layout):
        self._layout = layout
        self._host = lab_host.Host(layout)
        self._started = time.monotonic()
        self.result = {'attested': {}, 'tampered': {}, 'seconds': {}}

    def say(self, text):
        """Print one line of progress."""
        print(f'[{time.monotonic() - self._started:6.1f} s] {text}',
              flush=True)

    @contextlib.contextmanager
    def step(self, name):
        """Time a part of the run."""
        started = time.monotonic()
        try:
            yield
        finally:
            seconds = round(time.monotonic() - started, 1)
            self.result['seconds'][name] = seconds

    def lab(self, verb):
        """Run a command of tools/lab, its output beside ours."""
        done = subprocess.run([_TOOL, verb])
        if done.returncode:
            raise lab_owner.OwnerError(
                f'tools/lab {verb} failed; its messages are above')

    def whole(self, keep=False):
        """Run in a lab that is brought up, and down if it was down."""
        layout = self._layout
        was_up = supervision.answers(layout)
        with self.step('total'):
            try:
                with self.step('lab'):
                    self.say('bringing the lab up')
                    # Quick when it is up: only what is missing is started.
                    self.lab('up')
                owner = lab_owner.Owner(layout)
                with (tempfile.TemporaryDirectory(dir=layout.lab_dir) as
                        folder, contextlib.ExitStack() as made):
                    made.callback(owner.keep if keep else owner.clean)
                    self.run(owner, pathlib.Path(folder))
                    if not keep:
                        self.say('removing servers, images, policy, secret')
            finally:
                if not was_up and not keep:
                    self.say('taking the lab down')
                    self.lab('down')
        if keep:
            self.say(f'the lab stays up: source {layout.openrc}, see '
                     f'{layout.clouds}; tools/lab down ends it')

    def run(self, owner, folder):
        """The two servers, in a lab that is up."""
        with self.step('guest'):
            self.say('building the guest: kernel, initramfs, encrypted disk')
            guest = guest_build.build(self._layout.lab_dir, folder,
                                      say=self.say)
        with self.step('owner'):
            secret, policy = self._prepare(owner, guest)
            self.say('owner: uploads kernel, initramfs and disk as images')
            images = owner.upload_guest('good', guest)
        with self.step('attested'):
            self._attested(owner, guest, images, policy, secret)
        with self.step('tampered'):
            self._tampered(owner, guest, images, policy, secret, folder)

    def _prepare(self, owner, guest):
        secret = owner.store_secret('disk passphrase',
                                    guest.passphrase.decode())
        self.say(f'owner: the disk passphrase is Barbican secret {secret}')
        owner.grant(secret, key_service_user(self._layout))
        self.say('owner: the key service may read it')
        firmware = owner.upload_firmware(firmware_path(self._layout))
        self.say(f'owner: firmware {firmware[:16]}... is known to the key '
                 f'service')
        policy = owner.create_guest_policy(
            lab_owner.unique('demo'), guest, firmware, secret=secret,
            trusted_roots=[_EMULATED])
        self.say(f'owner: policy {policy["name"]} allows this firmware, '
                 f'kernel, initramfs and command line on the emulated '
                 f'platform')
        return secret, policy

    def _attested(self, owner, guest, images, policy, secret):
        result = self.result['attested']
        reads = self._host.payload_reads(secret)
        self.say('good server: openstack server create')
        server = owner.create_server('good', images, policy['name'])
        shown = owner.wait(server, 'ACTIVE')
        result['status'] = shown.status
        if shown.status != 'ACTIVE':
            result['fault'] = _fault(shown)
            self.say(f'good server: {shown.status}: {result["fault"]}')
            return
        self.say('good server: ACTIVE; waiting for its console')
        wanted = f'marker-sha256: {guest.marker_sha256}'
        try:
            printed = owner.wait_for_console(server, 'marker-sha256: ')
        except lab_owner.OwnerError as error:
            printed = ''
            self.say(f'good server: {error}')
        result['marker_seen'] = wanted in printed.splitlines()
        result['marker_sha256'] = guest.marker_sha256
        result['instructions_run'] = self._ran(server)
        result['payload_reads'] = (self._host.payload_reads(secret)
                                   - reads)
        launch, = owner.launches(server)
        result['launch'] = launch['status']
        result['emulated'] = launch['verdict']['emulated']
        if result['marker_seen']:
            self.say(f'good server: its console shows the SHA-256 of the '
                     f'marker on the encrypted disk, '
                     f'{guest.marker_sha256[:16]}...')

    def _tampered(self, owner, guest, images, policy, secret, folder):
        result = self.result['tampered']
        changed = bytearray(guest.initramfs.read_bytes())
        changed[len(changed) // 2] ^= 1
        path = folder / 'initramfs-tampered'
        path.write_bytes(changed)
        self.say('tampered server: one bit of the initramfs differs')
        images = owner.upload_guest('tampered', guest, initramfs=path)
        reads = self._host.payload_reads(secret)
        self.say('tampered server: openstack server create')
        server = owner.create_server('tampered', images, policy['name'])
        shown = owner.wait(server, 'ACTIVE')
        result['status'] = shown.status
        result['fault'] = _fault(shown)
        result['instructions_run'] = self._ran(server)
        result['console_empty'] = owner.console(server) == ''
        result['payload_reads'] = (self._host.payload_reads(secret)
                                   - reads)
        result['left_on_host'] = self._host.leftovers(server)
        launch, = owner.launches(server)
        result['launch'] = launch['status']
        self.say(f'tampered server: {shown.status}: {result["fault"]}')

    def _ran(self, server):
        """Whether the platform saw a first instruction of a server.

        A platform that never saw the server leaves None: then there is
        nothing to conclude from.
        """
        launches = self._host.launches(server)
        if not launches:
            return None
        return any(launch['instructions_run'] for launch in launches)


def _fault(server):
    return (server.fault or {}).get('message', '')


def key_service_user(layout):
    """The id of the user whom owners let read their secrets.

    Outside of a lab, owners read it in their operator's documentation.
    """
    admin = lab_owner.Owner(layout, 'admin')
    return admin.cloud.identity.find_user(_KEY_SERVICE_USER,
                                          ignore_missing=False).id


def firmware_path(layout):
    """The firmware that the compute host boots SEV guests with."""
    return layout.compute_root / compute_root.FIRMWARE.lstrip('/')


def shortcomings(result):
    """What of a result is not as it has to be; empty when all held."""
    attested, tampered = result['attested'], result['tampered']
    wanted = [
        (attested.get('status') == 'ACTIVE',
         'the attested server is not ACTIVE'),
        (attested.get('marker_seen') is True,
         'the attested server did not print the marker'),
        (attested.get('instructions_run') is True,
         'the platform did not see the attested server run'),
        (attested.get('launch') == 'running',
         'the key service has no running launch of the attested server'),
        (attested.get('payload_reads', 0) > 0,
         'the passphrase was not fetched from Barbican'),
        (tampered.get('status') == 'ERROR',
         'the tampered server is not in ERROR'),
        (re.search(r'initrd\b.*\bpolicy', tampered.get('fault', ''))
         is not None,
         'the fault does not say that the initrd is not allowed'),
        (tampered.get('instructions_run') is False,
         'the tampered server ran, or the platform never measured it'),
        (tampered.get('console_empty') is True,
         'the tampered server printed something'),
        (tampered.get('payload_reads') == 0,
         'the passphrase was fetched for the tampered server'),
        (tampered.get('launch') == 'denied',
         'the key service did not deny the tampered launch'),
        (not any(tampered.get('left_on_host', {'?': '?'}).values()),
         'the tampered server left something on the host'),
    ]
    return [text for held, text in wanted if not held]


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog='tools/demo.sh', description=__doc__.splitlines()[0])
    parser.add_argument(
        '--keep', action='store_true',
        help='leave the lab and the servers as they are, to look around')
    options = parser.parse_args(arguments)
    layout = lab_layout.Layout.from_environment()
    demo = Demo(layout)
    try:
        demo.whole(keep=options.keep)
        failed = shortcomings(demo.result)
    except Exception as error:
        # The last line of output is promised, whatever went wrong.
        traceback.print_exc()
        failed = [f'{type(error).__name__}: {error}']
    for text in failed:
        demo.say(f'FAILED: {text}')
    print(json.dumps(demo.result))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
