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

"""Programs of the emulated platform: the daemon, QEMU's wrapper, status."""

import argparse
import json
import logging
import pathlib
import signal
import sys

from nova_sev_attest.emulator import channel


def _daemon(options):
    # Only the daemon needs cryptography, and QEMU should start quickly.
    from nova_sev_attest.emulator import daemon

    logging.basicConfig(level=logging.INFO,
                        format='%(asctime)s %(levelname)s %(message)s')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    daemon.serve(options.socket, options.keys, options.chip,
                 options.socket_group)


def _qemu(options):
    from nova_sev_attest.emulator import qemu

    qemu.run(options.arguments, options.platform, options.binary)


def _status(options):
    try:
        told = channel.status(options.socket)
    except channel.PlatformError as error:
        sys.exit(f'sev-emulator: {error}')
    if options.json:
        print(json.dumps(told, indent=1))
        return
    for launch in told['launches']:
        ran = 'ran' if launch['instructions_run'] else 'never ran'
        print(f"{launch['name']} {launch['uuid']} {launch['state']}, {ran}, "
              f"{launch['secrets']} secrets")


def main(arguments=None):
    """Run a command."""
    parser = argparse.ArgumentParser(prog='sev-emulator', description=__doc__)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser('daemon', help='the secure processor')
    command.set_defaults(function=_daemon)
    command.add_argument('--socket', required=True)
    command.add_argument('--socket-group', type=int, metavar='NUMBER',
                         help='user and group that QEMU runs as')
    command.add_argument('--keys', required=True, type=pathlib.Path,
                         help='folder of the keys, made when missing')
    command.add_argument('--chip', default='chip0',
                         help='name of the chip under the root of the keys')

    command = commands.add_parser('qemu', help='in the place of QEMU')
    command.set_defaults(function=_qemu)
    command.add_argument('--platform', required=True, metavar='SOCKET')
    command.add_argument('--binary', required=True,
                         help='path of the real QEMU')
    command.add_argument('arguments', nargs='*')

    command = commands.add_parser('status', help='what happened to launches')
    command.set_defaults(function=_status)
    command.add_argument('--socket', required=True)
    command.add_argument('--json', action='store_true')

    options = parser.parse_args(arguments)
    options.function(options)


if __name__ == '__main__':
    main()
