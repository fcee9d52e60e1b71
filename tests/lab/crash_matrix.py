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

"""Everything that takes part in a launch, killed at each of its steps.

In each cell a server's launch is held at a step, something is killed with
SIGKILL, the launch is let go, and what was killed is started again. Then no
instruction of the guest may have run unattested, its secret may be nowhere
but in the guest, and the server has to be in a state in which its owner can
delete it or try again; and when it is deleted nothing of it may be left.

    python -m tests.lab.crash_matrix --json

It takes about half an hour in a lab that is up. The exit code is 0 only if
all of that held in every cell.
"""

import argparse
import collections.abc
import contextlib
import dataclasses
import json
import sys
import time

from openstack import exceptions as sdk_exceptions

from devstack.lab import layout as lab_layout
from devstack.lab import owner as lab_owner
from nova_sev_attest.virt import ahead
from tests.lab import gates
from tests.lab import standing
from tests.lab import traces
from tests.lab import victims

# What one RPC of Nova's may take, and then some.
_SETTLED_SECONDS = 150
_WAITING_SECONDS = 30
# Characters of a log, in which all of a launch that goes on is.
_RECENT = 1 << 20
_AT_REST = ('ACTIVE', 'ERROR', 'SHUTOFF')
# A state in which Nova's API lets a user delete, though nothing goes on.
_UNSETTLED = 'not at rest'


@dataclasses.dataclass(frozen=True)
class Step:
    """A point between two acts of a launch.

    :ivar name: what was done last.
    :ivar hold: called with Gates, has the next launch stop here.
    :ivar has_guest: whether there is a hypervisor process to kill.
    :ivar waits: whether nova-compute has made the disks and does nothing but
        wait for its session.
    """

    name: str
    hold: collections.abc.Callable
    has_guest: bool = True
    waits: bool = False


STEPS = (
    Step('disks being made', lambda gate: gate.hold_message(
        '', gates.REQUEST), has_guest=False),
    Step('session asked', lambda gate: gate.hold_message(
        '', gates.REQUEST), has_guest=False, waits=True),
    Step('session made', lambda gate: gate.hold_message(
        '', gates.ANSWER), has_guest=False, waits=True),
    Step('guest starting', lambda gate: gate.hold_command(
        'measure', 'before')),
    Step('started paused', lambda gate: gate.hold_message(
        'evidence', gates.REQUEST)),
    Step('evidence verified', lambda gate: gate.hold_message(
        'evidence', gates.ANSWER)),
    Step('secret released', lambda gate: gate.hold_command(
        'secret', 'before')),
    Step('secret injected', lambda gate: gate.hold_command(
        'secret', 'after')),
    Step('marked released', lambda gate: gate.hold_command(
        'finish', 'before')),
    Step('guest running', lambda gate: gate.hold_message(
        'outcome', gates.REQUEST)),
)

_LEFT_OUT = {
    *(('QEMU', step.name) for step in STEPS if not step.has_guest),
    # Nova's own: it removes no disks without its database.
    ('MariaDB', 'disks being made')}

# One of each victim, and each at the step where it hurts most.
QUICK = (
    ('nova-compute', 'started paused'),
    ('nova-compute', 'secret injected'),
    ('key service', 'session made'),
    ('its workers', 'evidence verified'),
    ('libvirtd', 'secret released'),
    ('QEMU', 'started paused'),
)


@dataclasses.dataclass
class Cell:
    """What came of one kill.

    :ivar reached: whether the launch was held at the step.
    :ivar killed: number of processes.
    :ivar ended: services that were not running afterwards.
    :ivar status: of the server, after the recovery.
    :ivar fault: its fault, as its owner sees it.
    :ivar guest: what QEMU itself says then, None where there is none.
    :ivar launches: statuses of its launches at the key service.
    :ivar unattested: sentences on what ran; see Traces.unattested().
    :ivar secrets: places other than the guest where the secret was.
    :ivar deleted: whether the server could be deleted.
    :ivar left: what was left of it then, by kind.
    """

    victim: str
    step: str
    reached: bool = False
    killed: int = 0
    ended: list = dataclasses.field(default_factory=list)
    status: str | None = None
    fault: str | None = None
    guest: str | None = None
    launches: list = dataclasses.field(default_factory=list)
    unattested: list = dataclasses.field(default_factory=list)
    secrets: list = dataclasses.field(default_factory=list)
    deleted: bool = False
    left: dict = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None

    @property
    def held(self):
        """Whether all was as it has to be.

        A server that is not at rest, but can be deleted, is as Nova leaves
        it: where MariaDB is away, Nova does not repeat what it could not
        write down. The summary counts such cells as unsettled.
        """
        return (self.reached and self.killed > 0 and self.deleted and
                self.error is None and
                not (self.unattested or self.secrets or self.left))


class Matrix:
    """Runs cells, one after the other, on the first compute host.

    :param project: :class:`standing.Standing`.
    :param gate: :class:`gates.Gates` of that host.
    """

    def __init__(self, project, gate):
        self._layout = project.layout
        self._compute = project.layout.computes[0].service('nova-compute')
        self._project = project
        self._owner = project.owner
        self._gate = gate
        self._traces = traces.Traces(project.layout,
                                     project.guest.passphrase)

    def run(self, victim, step):
        """Run one cell; returns it."""
        cell = Cell(victim.name, step.name)
        begun = time.time()
        step.hold(self._gate)
        server = self._owner.boot_server(
            lab_owner.unique('crash'), self._project.images,
            self._project.policy['name'])
        try:
            self._crash(cell, victim, step, server)
            name = self._name(server)
            self._look(cell, server, begun)
            cell.deleted = self._delete(server)
            cell.left = self._traces.wait_for_nothing(server, name)
            # Nova may leave out a host that lost libvirt, for a minute.
            victims.wait_for(self._layout, [self._compute], begun)
        except Exception as error:
            # The next cell tells whether the lab still works.
            cell.error = f'{type(error).__name__}: {error}'
        finally:
            self._gate.let_go()
        cell.seconds = round(time.time() - begun, 1)
        return cell

    def _crash(self, cell, victim, step, server):
        cell.reached = self._gate.wait() and (
            not step.waits or self._waits(server))
        cell.unattested = self._traces.unattested(server)
        killed_at = time.time()
        cell.killed = victim.kill(self._layout, server)
        self._gate.let_go()
        cell.ended = victims.recover(self._layout, victim, killed_at)

    def _waits(self, server):
        """Whether nova-compute comes to wait for a server's session."""
        log = self._layout.log / 'nova-compute.log'
        deadline = time.monotonic() + _WAITING_SECONDS
        while time.monotonic() < deadline:
            if any(server in line and ahead.WAITS in line
                   for line in log.read_text()[-_RECENT:].splitlines()):
                return True
            time.sleep(0.2)
        return False

    def _look(self, cell, server, begun):
        cell.status, cell.fault = self._settle(server)
        # Before the platform is asked: what runs now was released before.
        cell.guest = self._traces.guest_status(server)
        for text in self._traces.unattested(server):
            if text not in cell.unattested:
                cell.unattested.append(text)
        if cell.guest == 'running' and not self._traces.was_released(server):
            cell.unattested.append('QEMU runs it, and it was not released')
        cell.launches = [launch['status'] for launch in
                         self._owner.launches(server)]
        cell.secrets = self._traces.secrets(begun)

    def _settle(self, server):
        """The server's status and fault once nothing happens any more."""
        deadline = time.monotonic() + _SETTLED_SECONDS
        while time.monotonic() < deadline:
            shown = self._owner.server(server)
            if shown.task_state is None and shown.status in _AT_REST:
                return shown.status, (shown.fault or {}).get('message')
            time.sleep(0.5)
        return f'{_UNSETTLED}: {shown.status} {shown.task_state}', None

    def _name(self, server):
        return self._project.admin.server(server).instance_name

    def _delete(self, server):
        try:
            self._owner.delete_server(server, seconds=90)
        except sdk_exceptions.ResourceTimeout:
            return False
        return True


def cells(only=(), quick=False):
    """The cells that a run has, as pairs of Victim and Step.

    :param only: texts 'victim' or 'victim:step'; others are left out.
    """
    chosen = [(victim, step) for victim in victims.ALL for step in STEPS
              if (victim.name, step.name) not in _LEFT_OUT]
    if quick:
        chosen = [(victim, step) for victim, step in chosen
                  if (victim.name, step.name) in QUICK]
    if only:
        chosen = [(victim, step) for victim, step in chosen
                  if {victim.name, f'{victim.name}:{step.name}',
                      f':{step.name}'} & set(only)]
    return chosen


def summary(done):
    """The result of cells, in numbers and in full."""
    return {
        'cells': len(done),
        'held': sum(cell.held for cell in done),
        'unattested': sum(bool(cell.unattested) for cell in done),
        'secrets': sum(bool(cell.secrets) for cell in done),
        'undeletable': sum(not cell.deleted for cell in done),
        'unsettled': sum(cell.status not in _AT_REST for cell in done),
        'leftovers': sum(bool(cell.left) for cell in done),
        'seconds': round(sum(cell.seconds for cell in done), 1),
        'table': [dataclasses.asdict(cell) for cell in done],
    }


@contextlib.contextmanager
def on_one_host(layout, say):
    """A Matrix in a lab that is up, for a while.

    Failures show on the first host: it is the only one.
    """
    first, *others = layout.computes
    with (standing.prepared(layout, say) as project,
            contextlib.ExitStack() as stack):
        for host in others:
            stack.enter_context(standing.without(project.admin, host))
        # The host has the boot files from now on: those that a killed
        # nova-compute had half fetched are test_boot_files' matter.
        server = project.owner.boot_server(
            lab_owner.unique('first'), project.images,
            project.policy['name'])
        project.owner.wait(server, 'ACTIVE')
        project.owner.delete_server(server)
        with gates.between(first) as gate:
            yield Matrix(project, gate)


_FORM = '{:14} {:18} {:10} {:8} {:20} {:11} {:8} {:7} {:5} {:6}'


def _row(cell):
    return _FORM.format(
        cell.victim, cell.step, str(cell.status)[:10], cell.guest or '-',
        ','.join(cell.launches)[:20] or '-',
        'yes' if cell.unattested else 'no', len(cell.secrets),
        'yes' if cell.deleted else 'NO', sum(map(len, cell.left.values())),
        cell.seconds) + ('' if cell.held else '  FAILED')


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog='python -m tests.lab.crash_matrix',
        description=__doc__.splitlines()[0])
    parser.add_argument('--json', action='store_true',
                        help='print the result as JSON, last')
    parser.add_argument('--quick', action='store_true',
                        help=f'only {len(QUICK)} cells')
    parser.add_argument('--only', action='append', default=[],
                        metavar='VICTIM[:STEP]',
                        help='only these cells; ":STEP" for every victim')
    parser.add_argument('--list', action='store_true',
                        help='say which cells there are')
    options = parser.parse_args(arguments)
    chosen = cells(options.only, options.quick)
    if options.list:
        for victim, step in chosen:
            print(f'{victim.name}:{step.name}')
        return 0
    if not chosen:
        parser.error('no such cell; see --list')

    def say(text):
        print(text, file=sys.stderr if options.json else sys.stdout,
              flush=True)

    layout = lab_layout.Layout.from_environment()
    done = []
    with on_one_host(layout, say) as matrix:
        say(_FORM.format('KILLED', 'AFTER', 'SERVER', 'GUEST', 'LAUNCHES',
                         'UNATTESTED', 'SECRETS', 'DELETED', 'LEFT', 'S'))
        for victim, step in chosen:
            done.append(matrix.run(victim, step))
            say(_row(done[-1]))
            if not done[-1].held:
                say(json.dumps(dataclasses.asdict(done[-1])))
    result = summary(done)
    if options.json:
        print(json.dumps(result))
    else:
        say(', '.join(f'{key}: {value}' for key, value in result.items()
                      if key != 'table'))
    return 0 if result['held'] == result['cells'] else 1


if __name__ == '__main__':
    sys.exit(main())
