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

"""Everything a user or an operator does to a server that runs attested.

Each action is done to a running server, and what came of it is looked at from
outside: did the platform see a new launch that got its secret before its first
instruction, did the guest run on, was the action refused before anything was
changed.

    python -m tests.lab.user_actions --json

The exit code is 0 only if each action had the outcome that nova_paths
promises, and nothing ran unattested.
"""

import argparse
import collections.abc
import contextlib
import dataclasses
import json
import re
import sys
import time

import libvirt
from openstack import exceptions as sdk_exceptions

from devstack.lab.guest import build as guest_build
from devstack.lab import host as lab_host
from devstack.lab import layout as lab_layout
from devstack.lab import owner as lab_owner
from devstack.lab import services
from devstack.lab import supervision
from tests.lab import computes
from tests.lab import standing
from tests.lab import traces
from tests.lab import victims

# The outcomes.
ANEW = 'attested anew'
BARE = 'attested anew, without a secret'
RUNS_ON = 'runs on'
REFUSED = 'refused'
OFF = 'off, then attested anew'
DESTROYED = 'destroyed, recorded, then attested anew'
GONE = 'gone'
# The kernel finds no first program: it panics, and panic=-1 resets.
RESETTING = guest_build.COMMAND_LINE + ' rdinit=/none'
# Nova's own, whatever the image says.
RESCUE = ('root=/dev/vda console=tty0 console=ttyS0 console=hvc0 '
          'no_timer_check')
_RECORDED = 'sev_attest_destroy'
_SNAPSHOT_REFUSED = 'sev_attest_snapshot'
_SECONDS = 90
_POLL = 0.3
_TRIES = 3


class Unexpected(Exception):
    """The outcome is not the one that was promised."""


class Refused(Exception):
    """Nova took the request, and told the user of its refusal later."""


@dataclasses.dataclass
class Result:
    """What came of an action.

    :ivar action: what was done.
    :ivar outcome: one of those above, or what was found instead.
    :ivar message: what the user was told, where it was refused.
    :ivar launches: of the server, that the key service began in its course.
    """

    action: str
    promised: str
    outcome: str = ''
    message: str = ''
    launches: int = 0
    seconds: float = 0.0

    @property
    def held(self):
        return self.outcome == self.promised


class Actions:
    """The actions, on one server after the other.

    :param project: :class:`standing.Standing`.
    """

    def __init__(self, project):
        self._project = project
        self._layout = project.layout
        self._owner = project.owner
        self._nova = project.owner.cloud.compute
        self._admin = project.admin.cloud.compute
        self._host = lab_host.Host(project.layout)
        self._traces = traces.Traces(project.layout,
                                     project.guest.passphrase)
        self.server = None

    # What is looked at.

    def boot(self, images=None):
        """Have a server that runs attested."""
        self.server = self._owner.boot_server(
            lab_owner.unique('action'), images or self._project.images,
            self._project.policy['name'])
        self.reach('ACTIVE')
        return self.server

    def reach(self, status, seconds=_SECONDS):
        shown = self._owner.wait(self.server, status, seconds)
        if shown.status != status:
            raise Unexpected(f'{shown.status}: '
                             f'{(shown.fault or {}).get("message")}')

    def seen(self):
        """Number of launches: of the key service, of the platforms."""
        return (len(self._owner.launches(self.server)),
                len(self._host.launches(self.server)))

    def _check_new(self, before):
        """The last launch is a new one, and verified.

        :returns: it, as the key service shows it, and as the platform does.
        """
        launches, platforms = self.seen()
        if (launches, platforms) != (before[0] + 1, before[1] + 1):
            raise Unexpected(f'launches, of the platform: {before} before, '
                             f'{(launches, platforms)} after')
        last = self._owner.launches(self.server)[-1]
        deadline = time.monotonic() + 10
        while last['status'] != 'running' and time.monotonic() < deadline:
            time.sleep(_POLL)
            last = self._owner.launches(self.server)[-1]
        if last['status'] != 'running':
            raise Unexpected(f'its last launch is {last["status"]}')
        return last, self._host.launches(self.server)[-1]

    def check_anew(self, before):
        """The last launch is a new one, and got its secret."""
        _, measured = self._check_new(before)
        if not measured['secrets']:
            raise Unexpected('the platform got no secret for it')
        self.check_runs()

    def check_bare(self, before):
        """The last launch is a new one, a rescue, and got no secret.

        The guest ends by itself: it finds nothing that opens its disk.
        """
        last, measured = self._check_new(before)
        if last['purpose'] != 'rescue' or not last['verdict']:
            raise Unexpected(f'its last launch is a {last["purpose"]}, its '
                             f'verdict {last["verdict"]}')
        events = [event['event'] for event in measured['events']]
        if measured['secrets'] or 'measured' not in (
                events[:events.index('finished')]):
            raise Unexpected(f'the platform saw {events}')
        self.wait_for(lambda: not victims.hypervisors(self.server),
                      'it runs on without the secret of its disk')

    def check_runs(self):
        status = self._traces.guest_status(self.server)
        if status != 'running':
            raise Unexpected(f'QEMU says: {status}')

    def check_runs_on(self, before):
        if self.seen() != before:
            raise Unexpected(f'launches: {before} before, {self.seen()} '
                             f'after')
        self.check_runs()

    def unattested(self):
        return self._traces.unattested(self.server)

    def host(self):
        name = self._admin.get_server(self.server).compute_host
        return next(host for host in self._layout.computes
                    if host.name == name)

    def domain(self):
        """The server's domain, past Nova; on whichever host it is."""
        for host in self._layout.computes:
            connection = libvirt.open(host.libvirt_uri)
            with contextlib.suppress(libvirt.libvirtError):
                return connection.lookupByUUIDString(self.server)
            connection.close()
        raise Unexpected('no host has a domain of it')

    def wait_for(self, condition, text, seconds=_SECONDS):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise Unexpected(text)
            time.sleep(_POLL)

    # What is done.

    def stop_start(self):
        self._nova.stop_server(self.server)
        self.reach('SHUTOFF')
        if self._host.processes(self.server):
            raise Unexpected('a stopped server has a process')
        self._nova.start_server(self.server)
        self.reach('ACTIVE')

    def reboot(self, kind):
        self._nova.reboot_server(self.server, kind)
        self.reach('ACTIVE')

    def pause_unpause(self):
        self._nova.pause_server(self.server)
        self.reach('PAUSED')
        if self._traces.guest_status(self.server) != 'paused':
            raise Unexpected('QEMU does not pause')
        self._nova.unpause_server(self.server)
        self.reach('ACTIVE')

    def suspend(self):
        self._nova.suspend_server(self.server)
        self.reach('SUSPENDED')

    def live_migrate(self):
        self._admin.live_migrate_server(self.server, host=None,
                                        block_migration='auto')
        self.reach('ACTIVE')
        raise Unexpected('live migration was accepted')

    def snapshot(self):
        image = self._nova.create_server_image(
            self.server, lab_owner.unique('snapshot'))
        self.wait_for(lambda: self._owner.cloud.image.get_image(
            image.id).status == 'active', 'the snapshot is not made')
        self.reach('ACTIVE')
        self._owner.cloud.image.delete_image(image.id)

    def snapshot_stopped(self):
        self._nova.stop_server(self.server)
        self.reach('SHUTOFF')
        image = self._nova.create_server_image(
            self.server, lab_owner.unique('snapshot'))
        self.wait_for(lambda: self._owner.cloud.image.get_image(
            image.id).status == 'active', 'the snapshot is not made')
        self.reach('SHUTOFF')
        self._owner.cloud.image.delete_image(image.id)
        self._nova.start_server(self.server)
        self.reach('ACTIVE')

    def snapshot_cold(self):
        """Nova's own would save the guest to a file, and start it again."""
        with computes.configured(self.host(), {
                'workarounds': {'disable_libvirt_livesnapshot': 'true'}}):
            image = self._nova.create_server_image(
                self.server, lab_owner.unique('snapshot'))
            self.wait_for(lambda: not self._owner.cloud.image.find_image(
                image.id), 'the snapshot is not given up')
            self.reach('ACTIVE')
        raise Refused(self._told('createImage', _SNAPSHOT_REFUSED))

    def _told(self, action, event):
        """What Nova shows an administrator of the last such action."""
        request = next(shown.request_id for shown
                       in self._admin.server_actions(self.server)
                       if shown.action == action)
        shown = self._admin.get_server_action(request, self.server)
        return next(part.details for part in shown.events
                    if part.event == event)

    def rescue(self, secrets=()):
        """Rescue it, under a policy that gives these to a rescue."""
        self._owner.attestation.policies.change(
            self._project.policy['id'], lambda policy: {'rescue': {
                'command_lines': [RESCUE], 'secrets': list(secrets)}})
        self._nova.rescue_server(self.server,
                                 image=self._project.images.disk)
        self.reach('RESCUE')

    def rescue_with_secret(self):
        self.rescue(self._project.policy['secrets'])

    def unrescue(self):
        self._nova.unrescue_server(self.server)
        self.reach('ACTIVE')

    def rebuild(self):
        self._nova.rebuild_server(self.server, self._project.images.disk)
        self.reach('ACTIVE')

    def resize(self, flavor='m1.sev2'):
        found = self._nova.find_flavor(flavor, ignore_missing=False)
        self._nova.resize_server(self.server, found.id)
        self.reach('VERIFY_RESIZE')

    def confirm(self):
        self._nova.confirm_server_resize(self.server)
        self.reach('ACTIVE')

    def revert(self):
        self._nova.revert_server_resize(self.server)
        self.reach('ACTIVE')

    def migrate(self):
        self._admin.migrate_server(self.server)
        self.reach('VERIFY_RESIZE')

    def shelve_unshelve(self):
        self._nova.shelve_server(self.server)
        self.reach('SHELVED_OFFLOADED')
        if self._host.processes(self.server):
            raise Unexpected('a shelved server has a process')
        self._nova.unshelve_server(self.server)
        self.reach('ACTIVE')

    def evacuate(self):
        """Its host is lost: nova-compute and the guest end."""
        host = self.host()
        name = host.name
        service = host.service('nova-compute')
        supervision.stop_service(self._layout, service)
        found, = self._admin.services(binary='nova-compute', host=name)
        try:
            victims.Victim('QEMU', lambda layout, server:
                           victims.hypervisors(server)).kill(
                self._layout, self.server)
            self._admin.update_service_forced_down(
                found, name, 'nova-compute', True)
            self._admin.evacuate_server(self.server)
            self.wait_for(lambda: self._admin.get_server(
                self.server).compute_host != name, 'it is not evacuated')
            # Nova (from microversion 2.95 on) leaves it to be started.
            self.reach('SHUTOFF')
        finally:
            since = time.time()
            supervision.start_service(self._layout, service)
            self.wait_for(lambda: self._is_forced_up(found),
                          f'{service} does not end what was evacuated')
            probe = services.table(self._layout)[service].probe
            self.wait_for(lambda: probe(since) is None,
                          f'{service} does not come back')
        left = [domain for domain in self._domains(host)
                if domain == self.server]
        if left:
            raise Unexpected('the lost host kept its domain')
        # It was launched there, and stopped again.
        before = self.seen()
        self._nova.start_server(self.server)
        self.reach('ACTIVE')
        return before

    def _is_forced_up(self, service):
        """Nova refuses it until the host has removed what was evacuated."""
        try:
            self._admin.update_service_forced_down(
                service, service.host, 'nova-compute', False)
        except sdk_exceptions.BadRequestException:
            return False
        return True

    def _domains(self, host):
        connection = libvirt.openReadOnly(host.libvirt_uri)
        try:
            return [domain.UUIDString()
                    for domain in connection.listAllDomains()]
        finally:
            connection.close()

    def reset_from_inside(self):
        images = dataclasses.replace(
            self._project.images, disk=self._owner.upload_image(
                'resetting', self._project.guest.disk, 'raw',
                kernel_id=self._project.images.kernel,
                ramdisk_id=self._project.images.initramfs,
                os_command_line=RESETTING, **lab_owner.IMAGE_PROPERTIES))
        self.boot(images)
        before = self.seen()
        self.wait_for(lambda: not victims.hypervisors(self.server),
                      'it did not end')
        if self.seen() != before:
            raise Unexpected('it was launched again')
        self.off_then_start(before)
        return before

    def off_then_start(self, before):
        """Nova notices, and a start is a launch of its own."""
        self.reach('SHUTOFF')
        if self.seen() != before:
            raise Unexpected('it was launched again')
        self._nova.start_server(self.server)
        self.reach('ACTIVE')

    def virsh_reset(self):
        before = self.seen()
        self.domain().reset()
        self.wait_for(lambda: not victims.hypervisors(self.server),
                      'it did not end')
        self.off_then_start(before)

    def virsh_suspend_resume(self):
        domain = self.domain()
        domain.suspend()
        if self._traces.guest_status(self.server) != 'paused':
            raise Unexpected('QEMU does not pause')
        domain.resume()

    def virsh_start(self):
        """Start the domain again from its persistent definition."""
        domain = self.domain()
        self._nova.stop_server(self.server)
        self.reach('SHUTOFF')
        self._run_behind(domain.create)

    def virsh_start_paused_resume(self):
        domain = self.domain()
        self._nova.stop_server(self.server)
        self.reach('SHUTOFF')
        self._run_behind(domain.resume, lambda: domain.createWithFlags(
            libvirt.VIR_DOMAIN_START_PAUSED))

    def _run_behind(self, run, prepare=lambda: None):
        """Run a stopped guest; it is destroyed, and that is recorded.

        Nova looks for what should be stopped from time to time, and may stop
        it before it runs. Then it is run again.
        """
        ran, recorded = len(self.unattested()), self._recorded()
        for _ in range(_TRIES):
            prepare()
            begun = time.monotonic()
            # It may be destroyed before libvirt has done with it.
            with contextlib.suppress(libvirt.libvirtError):
                run()
            self.wait_for(lambda: not victims.hypervisors(self.server),
                          'it runs and nobody destroys it')
            self.ran_seconds = round(time.monotonic() - begun, 2)
            if len(self.unattested()) > ran or self._recorded() > recorded:
                break
            self.reach('SHUTOFF')
        self.wait_for(lambda: self._recorded() > recorded,
                      'its run was not recorded')
        self.reach('SHUTOFF')

    def _recorded(self):
        return [action.action for action in self._admin.server_actions(
            self.server)].count(_RECORDED)


@dataclasses.dataclass(frozen=True)
class Action:
    """One row.

    :ivar do: called with Actions, whose server runs attested.
    :ivar cheap: whether it is a part of the tests' lab tier.
    :ivar refusal: pattern of what the user is told.
    """

    name: str
    promised: str
    do: collections.abc.Callable
    cheap: bool = False
    refusal: str = ''


TABLE = (
    Action('stop, start', ANEW, Actions.stop_start, cheap=True),
    Action('soft reboot', ANEW, lambda run: run.reboot('SOFT'), cheap=True),
    Action('hard reboot', ANEW, lambda run: run.reboot('HARD')),
    Action('pause, unpause', RUNS_ON, Actions.pause_unpause, cheap=True),
    Action('suspend', REFUSED, Actions.suspend, cheap=True,
           refusal='suspend'),
    Action('live migration', REFUSED, Actions.live_migrate, cheap=True,
           refusal='migration|encrypt'),
    Action('live snapshot', RUNS_ON, Actions.snapshot),
    Action('cold snapshot', REFUSED, Actions.snapshot_cold,
           refusal='stop it first'),
    Action('snapshot, stopped; start', ANEW, Actions.snapshot_stopped),
    Action('rescue', BARE, Actions.rescue),
    Action('unrescue', ANEW, Actions.unrescue),
    Action('rescue, with a secret', ANEW, Actions.rescue_with_secret),
    Action('unrescue, again', ANEW, Actions.unrescue),
    Action('rebuild', ANEW, Actions.rebuild),
    Action('resize', ANEW, Actions.resize),
    Action('resize: revert', ANEW, Actions.revert),
    Action('resize, again', ANEW, Actions.resize),
    Action('resize: confirm', RUNS_ON, Actions.confirm),
    Action('cold migration', ANEW, Actions.migrate),
    Action('cold migration: revert', ANEW, Actions.revert),
    Action('cold migration, again', ANEW, Actions.migrate),
    Action('cold migration: confirm', RUNS_ON, Actions.confirm),
    Action('shelve, unshelve', ANEW, Actions.shelve_unshelve),
    Action('evacuate, start', ANEW, Actions.evacuate),
    Action('virsh suspend, resume', RUNS_ON, Actions.virsh_suspend_resume,
           cheap=True),
    Action('virsh reset', OFF, Actions.virsh_reset, cheap=True),
    Action('virsh start', DESTROYED, Actions.virsh_start, cheap=True),
    Action('virsh start, paused; resume', DESTROYED,
           Actions.virsh_start_paused_resume),
    Action('reset from inside', OFF, Actions.reset_from_inside),
)


def run(actions, action):
    """Do one action; returns its Result."""
    result = Result(action.name, action.promised)
    begun = time.monotonic()
    server, before = actions.server, actions.seen()
    ran_before = actions.unattested()
    try:
        result.outcome = _outcome(actions, action, before, result)
    except (Unexpected, lab_owner.OwnerError, libvirt.libvirtError,
            sdk_exceptions.SDKException) as error:
        result.outcome = f'{type(error).__name__}: {error}'
    if actions.server != server:
        # The action was done to one of its own.
        before, ran_before = (0, 0), []
    result.launches = actions.seen()[0] - before[0]
    result.seconds = round(time.monotonic() - begun, 1)
    # What an operator runs behind Nova's back ran, and was destroyed.
    ran = actions.unattested()[len(ran_before):]
    if result.outcome == BARE:
        # To the platform a release without a secret looks like none.
        ran = ran[1:]
    if ran and action.promised != DESTROYED:
        result.outcome = f'UNATTESTED: {ran}'
    if action.promised == DESTROYED:
        result.message += (', the platform saw it' if ran
                           else ', the platform saw nothing of it')
    return result


def _outcome(actions, action, before, result):
    if action.promised == REFUSED:
        try:
            action.do(actions)
        except (sdk_exceptions.HttpException, Refused) as refusal:
            result.message = str(getattr(refusal, 'details', None) or refusal)
            if not re.search(action.refusal, result.message, re.IGNORECASE):
                raise
            actions.check_runs_on(before)
            return REFUSED
        raise Unexpected('it was not refused')
    # What a later launch is counted from, where there was one in between.
    before = action.do(actions) or before
    if action.promised == RUNS_ON:
        actions.check_runs_on(before)
        return RUNS_ON
    if action.promised == DESTROYED:
        result.message = f'ran for at most {actions.ran_seconds} s'
        before = actions.seen()
        actions.reboot('HARD')
        actions.check_anew(before)
        return DESTROYED
    if action.promised == BARE:
        actions.check_bare(before)
    else:
        actions.check_anew(before)
    return action.promised


def delete(actions):
    """Delete the server; returns the Result."""
    result = Result('delete', GONE)
    begun = time.monotonic()
    name = actions._admin.get_server(actions.server).instance_name
    actions._owner.delete_server(actions.server)
    left = actions._traces.wait_for_nothing(actions.server, name)
    result.outcome = f'left: {left}' if left else GONE
    result.seconds = round(time.monotonic() - begun, 1)
    return result


def perform(project, chosen, say=lambda result: None):
    """Do actions, one after the other; returns their Results.

    A server that an action ended badly is replaced for the next.
    """
    actions = Actions(project)
    actions.boot()
    actions._owner.wait_for_console(actions.server, 'marker-sha256: ')
    done = []
    for action in chosen:
        done.append(run(actions, action))
        say(done[-1])
        if not done[-1].held:
            actions._owner.delete_server(actions.server)
            actions.boot()
    done.append(delete(actions))
    say(done[-1])
    return done


def summary(done):
    return {
        'actions': len(done),
        'held': sum(result.held for result in done),
        'unattested': sum('UNATTESTED' in result.outcome for result in done),
        'launches': sum(result.launches for result in done),
        'table': [dataclasses.asdict(result) for result in done],
    }


_FORM = '{:28} {:40} {:>8} {:>6}  {}'


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog='python -m tests.lab.user_actions',
        description=__doc__.splitlines()[0])
    parser.add_argument('--json', action='store_true',
                        help='print the result as JSON, last')
    parser.add_argument('--only', action='append', default=[],
                        metavar='ACTION', help='only these, in their order')
    options = parser.parse_args(arguments)
    chosen = [action for action in TABLE
              if not options.only or action.name in options.only]
    if not chosen:
        parser.error('there are: ' + '; '.join(
            action.name for action in TABLE))

    def say(text):
        print(text, file=sys.stderr if options.json else sys.stdout,
              flush=True)

    layout = lab_layout.Layout.from_environment()
    with standing.prepared(layout, say, command_lines=[
            guest_build.COMMAND_LINE, RESETTING]) as project:
        say(_FORM.format('ACTION', 'OUTCOME', 'LAUNCHES', 'S', 'MESSAGE'))
        done = perform(project, chosen, lambda result: say(_FORM.format(
            result.action, result.outcome, result.launches, result.seconds,
            result.message)))
    result = summary(done)
    if options.json:
        print(json.dumps(result))
    return 0 if result['held'] == result['actions'] else 1


if __name__ == '__main__':
    sys.exit(main())
