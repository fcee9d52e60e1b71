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

"""Bring the lab up and down."""

import fcntl
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time

from devstack.lab import cloud
from devstack.lab import configuration
from devstack.lab import databases
from devstack.lab import debroot
from devstack.lab import errors
from devstack.lab import layout as lab_layout
from devstack.lab import namespace
from devstack.lab import services
from devstack.lab import services_root
from devstack.lab import steps
from devstack.lab import supervision

# The longest that a service may take until it is ready, on a slow machine.
_READY_SECONDS = 240
_POLL_SECONDS = 0.4


class Lab:
    """One lab, running or not.

    :param layout: where it is.
    :param say: called with one line for each thing that happened.
    """

    def __init__(self, layout, say):
        self.layout = layout
        self._say = say
        self.services = services.table(layout)
        self._lock = None

    def up(self, names=()):
        """Start all services, or some and what they need.

        What runs already is left as it is, so that this also goes on where
        an earlier call was interrupted.

        :raises LabError: when something does not get ready; what runs stays
            running, for a look at it. Or when it is up at other ports.
        """
        self._take_lock()
        is_up = supervision.answers(self.layout)
        if is_up:
            self._require_same_ports()
        else:
            # Never under the feet of what runs in them.
            self._build_roots()
        configuration.write(self.layout)
        databases.make_files(self.layout)
        supervision.write_configuration(self.layout, self.services.values())
        if is_up:
            supervision.reload(self.layout)
        else:
            # Whatever is left of a supervisor that was killed.
            namespace.kill(self.layout)
            supervision.start(self.layout)
        since = time.time()
        plan = self.plan(since)
        if names:
            plan = steps.with_needs(plan, names)
        steps.run(plan)

    def down(self):
        """Stop all services in order, then end whatever is left of them.

        :raises SomethingLeft: when a process, mount or port remains.
        """
        self._take_lock()
        if supervision.answers(self.layout):
            steps.run([
                steps.Step(service.name, self._stopper(service.name),
                           self.needed_by(service.name))
                for service in self.services.values()])
        namespace.kill(self.layout)
        shutil.rmtree(self.layout.run_dir, ignore_errors=True)
        self._check_nothing_left()

    def reset(self):
        """Bring the lab down and delete its state.

        Downloads, unpacked trees and the cached databases stay.
        """
        self.down()
        for folder in (self.layout.data, self.layout.etc, self.layout.log,
                       self.layout.emulator):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.layout.clouds, self.layout.openrc):
            path.unlink(missing_ok=True)

    def start(self, name):
        """Start one service and wait until it is ready."""
        self._starter(self._service(name), time.time())(threading.Event())

    def stop(self, name):
        """Stop one service, and no other."""
        self._service(name)
        self._require_running()
        supervision.stop_service(self.layout, name)

    def status(self):
        """What is known of each service.

        :returns: a list of dictionaries: name, state as supervisord calls
            it, pid as seen from outside of the namespace, port, log. The
            pid and the port are None where there is none.
        """
        running = supervision.answers(self.layout)
        states = supervision.states(self.layout) if running else {}
        pids = namespace.outer_pids(self.layout) if running else {}
        return [{
            'name': name,
            'state': states.get(name, {}).get('statename', 'STOPPED'),
            'pid': pids.get(states.get(name, {}).get('pid')),
            'port': service.port,
            'log': str(self.layout.log / f'{name}.log'),
        } for name, service in self.services.items()]

    def plan(self, since):
        layout = self.layout

        def task(name, needs, function, *arguments):
            return steps.Step(
                name, lambda give_up: function(layout, *arguments), needs)

        return [
            task('databases', ('mariadb',), databases.bring_up_to_date,
                 self._say),
            task('identity', ('databases',), cloud.bootstrap_identity),
            task('catalog', ('keystone',), cloud.fill_catalog),
            task('attestation-accounts', ('catalog',),
                 cloud.make_attestation_accounts),
            task('attestation-database', ('mariadb',),
                 databases.migrate_attestation),
            task('flavors', ('nova-api', 'catalog'), cloud.make_flavors),
            task('hosts', tuple(host.service('nova-compute')
                                for host in layout.computes),
                 cloud.map_hosts),
            *(steps.Step(service.name, self._starter(service, since),
                         service.needs)
              for service in self.services.values()),
        ]

    def _starter(self, service, since):
        def start(give_up):
            self._require_running()
            begun = time.monotonic()
            supervision.start_service(self.layout, service.name)
            while (missing := service.probe(since)) is not None:
                if give_up.wait(_POLL_SECONDS):
                    return
                self._check_alive(service)
                if time.monotonic() - begun > _READY_SECONDS:
                    raise errors.StepFailed(
                        f'{service.name} is not ready after '
                        f'{_READY_SECONDS} s ({missing}); '
                        f'{self._log_end(service)}')
            self._say(f'{service.name} is ready '
                      f'({time.monotonic() - begun:.1f} s)')
        return start

    def _stopper(self, name):
        return lambda give_up: supervision.stop_service(self.layout, name)

    def needed_by(self, name):
        """Services that must be stopped before this one is.

        Needs that go through a task (the databases) count as well.
        """
        by_name = {step.name: step for step in self.plan(0)}

        def reaches(step):
            return any(need == name or reaches(by_name[need])
                       for need in step.needs)

        return tuple(other for other in self.services
                     if other != name and reaches(by_name[other]))

    def _check_alive(self, service):
        state = supervision.states(self.layout)[service.name]['statename']
        if state not in ('RUNNING', 'STARTING'):
            raise errors.StepFailed(
                f'{service.name} ended ({state}); {self._log_end(service)}')

    def _log_end(self, service):
        path = self.layout.log / f'{service.name}.log'
        return f'the end of {path}:\n{supervision.tail(path)}'

    def _service(self, name):
        if name not in self.services:
            raise errors.LabError(f'there is no service {name!r}; there '
                                  f'are: {", ".join(self.services)}')
        return self.services[name]

    def _require_same_ports(self):
        """What runs would be left at its ports, and looked for at others."""
        clouds = self.layout.clouds
        if clouds.exists() and (
                self.layout.url('keystone') not in clouds.read_text()):
            raise errors.LabError(
                f'it is up, but not at ports {self.layout.port_base} and up. '
                f'Set LAB_PORT_BASE as you did when you brought it up, or '
                f'bring it down first.')

    def _require_running(self):
        if not supervision.answers(self.layout):
            raise errors.LabError('the lab is not running: tools/lab up')

    def _build_roots(self):
        try:
            if services_root.build(self.layout, self._say):
                self._say('MariaDB and RabbitMQ are unpacked')
        except debroot.DebRootError as error:
            raise errors.StepFailed(str(error))
        command = [
            sys.executable, '-u',
            str(pathlib.Path(__file__).with_name('compute_root.py')),
            'build', '--root', str(self.layout.compute_root),
            '--cache', str(self.layout.cache)]
        said = []
        with subprocess.Popen(command, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True) as build:
            for line in build.stdout:
                said.append(line.rstrip())
                self._say(said[-1])
        if build.returncode:
            raise errors.StepFailed('\n'.join(said))

    def _take_lock(self):
        """Only one command at a time changes what runs."""
        self.layout.lab_dir.mkdir(parents=True, exist_ok=True)
        self._lock = (self.layout.lab_dir / 'lock').open('w')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._say('waiting for another tools/lab to end')
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _check_nothing_left(self):
        left = [f'process {pid}' for pid in namespace.marked(self.layout)]
        left += [f'mount {point}' for point in namespace.mounts(self.layout)]
        for name in lab_layout.PORTS:
            with socket.socket() as probe:
                probe.settimeout(1)
                address = ('127.0.0.1', self.layout.port(name))
                if probe.connect_ex(address) == 0:
                    left.append(f'port {address[1]} ({name})')
        if left:
            raise errors.SomethingLeft(
                f'the lab is down, but there is still: {", ".join(left)}')
