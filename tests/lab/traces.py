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

"""What a server must not leave behind, nor do."""

import base64
import json
import mmap
import os
import pathlib
import time

import libvirt
import libvirt_qemu

from devstack.lab import host as lab_host
from devstack.lab import namespace
from devstack.lab import probes
from tests.lab import victims

_PROC = pathlib.Path('/proc')
_TICKS = os.sysconf('SC_CLK_TCK')
_CHUNK = 16 << 20
# A vCPU's thread that never runs a guest's code still has to be started.
_IDLE_SECONDS = 0.05
# libvirt's client prints each error that it raises.
libvirt.registerErrorHandler(lambda context, error: None, None)


class Traces:
    """The lab, seen by somebody who believes none of its reports.

    :param layout: the lab.
    :param secrets: each bytes that may be in the guest only.
    """

    def __init__(self, layout, *secrets):
        self._layout = layout
        self._host = lab_host.Host(layout)
        self._needles = {
            form for secret in secrets for form in
            (secret, base64.b64encode(secret), secret.hex().encode())}
        self._longest = max(map(len, self._needles))

    def unattested(self, server):
        """How a server ran without having been released for that run.

        A run counts as released where the platform took a launch secret
        before its first instruction: nothing but the key service's packet
        for just this launch passes the secret's MAC.

        :returns: a list of sentences, empty when it did not.
        """
        found = []
        # In this order: what runs now was finished before.
        busy = {pid: seconds for pid in victims.hypervisors(server)
                if (seconds := _vcpu_seconds(pid)) > _IDLE_SECONDS}
        launches = self._host.launches(server)
        for launch in launches:
            events = [event['event'] for event in launch['events']]
            if 'finished' in events or launch['instructions_run']:
                before = events[:events.index('finished')]
                if 'secret_injected' not in before:
                    found.append(f'the platform saw it run after {before}')
        # What lives is of the last launch: each has to end for the next.
        if busy and not (launches and launches[-1]['instructions_run']):
            found.append(f'its vCPUs ran, seconds by process: {busy}')
        return found

    def was_released(self, server):
        """Whether a server's last launch was given its secret."""
        launches = self._host.launches(server)
        return bool(launches and launches[-1]['secrets'])

    def guest_status(self, server):
        """What QEMU itself says of a server's guest, None without one.

        Asked past what libvirt and Nova believe: 'running', 'paused', ...
        """
        for host in self._layout.computes:
            connection = libvirt.open(host.libvirt_uri)
            try:
                domain = connection.lookupByUUIDString(server)
                if domain.isActive():
                    answer = libvirt_qemu.qemuMonitorCommand(
                        domain, '{"execute": "query-status"}', 0)
                    return json.loads(answer)['return']['status']
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
            finally:
                connection.close()
        return None

    def secrets(self, since, services=()):
        """Where a secret is, other than in a guest's memory.

        Looked through are all files of the lab that changed, the arguments
        and environments of its processes, and the memory of nova-compute
        and libvirtd.

        :param since: seconds since the epoch.
        :param services: names of others whose memory is looked through.
        :returns: a list of places.
        """
        found = []
        for folder in (self._layout.log, self._layout.data,
                       self._layout.etc, self._layout.run_dir):
            for path in folder.rglob('*'):
                try:
                    if (path.is_file() and not path.is_symlink() and
                            path.stat().st_mtime >= since and
                            self._is_in_file(path)):
                        found.append(str(path))
                except FileNotFoundError:
                    continue
        for pid in namespace.outer_pids(self._layout).values():
            for name in ('cmdline', 'environ'):
                try:
                    text = (_PROC / str(pid) / name).read_bytes()
                except OSError:
                    continue
                if any(needle in text for needle in self._needles):
                    found.append(f'/proc/{pid}/{name}')
        for service in (*services, *(
                host.service(kind) for host in self._layout.computes
                for kind in ('nova-compute', 'libvirtd'))):
            for pid in victims.tree(victims.main_pid(self._layout, service)):
                if self._is_in_memory(pid):
                    found.append(f'the memory of {service}')
        return found

    def _is_in_file(self, path):
        if not path.stat().st_size:
            return False
        with path.open('rb') as source, mmap.mmap(
                source.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return any(data.find(needle) >= 0 for needle in self._needles)

    def _is_in_memory(self, pid):
        try:
            maps = (_PROC / str(pid) / 'maps').read_text().splitlines()
            memory = (_PROC / str(pid) / 'mem').open('rb', buffering=0)
        except (FileNotFoundError, ProcessLookupError):
            return False
        with memory:
            for line in maps:
                span, mode = line.split()[:2]
                if not mode.startswith('rw'):
                    continue
                start, end = (int(part, 16) for part in span.split('-'))
                rest = b''
                while start < end:
                    try:
                        memory.seek(start)
                        part = memory.read(min(_CHUNK, end - start))
                    except OSError:
                        break
                    if not part:
                        break
                    data = rest + part
                    if any(needle in data for needle in self._needles):
                        return True
                    rest = data[-self._longest:]
                    start += len(part)
        return False

    def left(self, server, name):
        """What is there of a server that was deleted, by kind.

        :param name: what libvirt called its domain, None if it is not known.
        """
        layout = self._layout
        left = self._host.leftovers(server)
        left['process'] = [line[:100] for line in left['process']]
        for host in layout.computes:
            left['file'] += map(str, (host.state / 'sev_attest').rglob(
                f'{server}*'))
            if name is None:
                continue
            for folder in (host.run, host.state):
                # Domains' folders are called domain-<id>-<name>.
                left['file'] += [
                    str(path) for path in folder.rglob(f'*{name}*')]
        with probes.admin(layout) as cloud:
            answer = cloud.placement.get(f'/allocations/{server}').json()
        left['allocation'] = sorted(answer['allocations'])
        return {kind: found for kind, found in left.items() if found}

    def wait_for_nothing(self, server, name, seconds=60):
        """What is still left of a server after a while; see left()."""
        deadline = time.monotonic() + seconds
        while (left := self.left(server, name)) and (
                time.monotonic() < deadline):
            time.sleep(0.5)
        return left


def _vcpu_seconds(pid):
    """How long a QEMU's vCPUs used a processor."""
    ticks = 0
    for task in (_PROC / str(pid) / 'task').glob('*'):
        try:
            stat = (task / 'stat').read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        name, _, rest = stat.partition('(')[2].rpartition(')')
        if name.startswith('CPU '):
            fields = rest.split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS
