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

"""The lab's command line; tools/lab runs it."""

import argparse
import json
import os
import sys
import time

from devstack.lab import errors
from devstack.lab import lab as lab_module
from devstack.lab import layout as lab_layout

_STARTED = time.monotonic()


def _say(text):
    print(f'[{time.monotonic() - _STARTED:6.1f} s] {text}', flush=True)


def _up(lab, options):
    lab.up(options.service)
    _say('up' if options.service else
         f'the lab is up; to use it: source {lab.layout.openrc}')


def _down(lab, options):
    lab.down()
    _say('the lab is down, and nothing of it is left running')


def _reset(lab, options):
    lab.reset()
    _say('the state is deleted; downloads and unpacked trees are kept')


def _status(lab, options):
    rows = lab.status()
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        form = '{name:16} {state:9} {pid:>8} {port:>6}  {log}'
        print(form.format(name='SERVICE', state='STATE', pid='PID',
                          port='PORT', log='LOG'))
        for row in rows:
            print(form.format(**{key: '-' if value is None else value
                                 for key, value in row.items()}))
    return 0 if all(row['state'] == 'RUNNING' for row in rows) else 3


def _start(lab, options):
    for name in options.service:
        lab.start(name)


def _stop(lab, options):
    for name in options.service:
        lab.stop(name)
        _say(f'{name} is stopped')


def _restart(lab, options):
    _stop(lab, options)
    _start(lab, options)


def main():
    parser = argparse.ArgumentParser(
        prog='tools/lab', description='An OpenStack over an emulated SEV '
        'platform, with everything of its own.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    def command(name, function, text, service=None):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        if service:
            sub.add_argument('service', nargs=service)
        return sub

    command('up', _up, 'start it, or some services and what they need', '*')
    command('down', _down, 'stop it; nothing stays running')
    command('reset', _reset, 'stop it and delete its state')
    status = command('status', _status,
                     'show every service (exit code 3: not all run)')
    status.add_argument('--json', action='store_true')
    command('start', _start, 'start services and wait for them', '+')
    command('stop', _stop, 'stop services', '+')
    command('restart', _restart, 'stop and start services', '+')
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit('tools/lab: the lab needs root, for namespaces and mounts')
    try:
        lab = lab_module.Lab(lab_layout.Layout.from_environment(), _say)
        return options.function(lab, options)
    except (errors.LabError, ValueError) as error:
        sys.exit(f'tools/lab: {error}')
    except KeyboardInterrupt:
        sys.exit('tools/lab: interrupted; "tools/lab up" goes on from here, '
                 '"tools/lab down" removes what was started')


if __name__ == '__main__':
    sys.exit(main())
