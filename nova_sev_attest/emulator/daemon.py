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

"""The secure processor's daemon: platform keys and the guests' launches.

Runs as root; QEMU's side reaches it over a socket and sees neither keys nor
a secret's plaintext, which goes straight into the guest's memory. The log of
each launch says whether the guest ever ran.
"""

import base64
import binascii
import collections
import logging
import os
import pathlib
import socket
import socketserver
import struct
import threading
import time

from nova_sev_attest.emulator import channel
from nova_sev_attest.emulator import holds
from nova_sev_attest.emulator import launch
from nova_sev_attest.emulator import platform

LOG = logging.getLogger(__name__)

# Launches that ended and are still told of.
_HISTORY = 1000
_LONGEST_NAME = 256
# A measured file: the firmware, or the pages of one update.
_LONGEST_UPDATE = 64 * 1024 * 1024
# Where memory starts a second time, above the devices, on all machines.
_LOW_MEMORY = 0x80000000
_CBIT_POSITION = 51
_REDUCED_PHYS_BITS = 1


class RequestError(Exception):
    """A request that makes no sense; the text says why."""


class Record:
    """What is told of a launch: never a key or a secret.

    :ivar vcpus: vCPUs whose registers were measured; 0 without SEV-ES.
    :ivar instructions_run: whether the guest's vCPUs were ever let run.
    """

    def __init__(self, name, domain_uuid):
        self.name = name
        self.uuid = domain_uuid
        self.policy = None
        self.digest = None
        self.vcpus = 0
        self.secrets = 0
        self.instructions_run = False
        self.state = str(launch.State.UNINIT)
        self.events = []

    def note(self, event, **more):
        """Add an event to the launch's log."""
        self.events.append({'event': event, 'at': time.time(), **more})
        LOG.info('%s (%s): %s %s', self.name, self.uuid, event,
                 more.get('reason', ''))

    def to_dict(self):
        """The record as it is told."""
        technology = None
        if self.policy is not None:
            technology = ('amd-sev-es' if self.policy & launch.Policy.ES
                          else 'amd-sev')
        return {'name': self.name, 'uuid': self.uuid,
                'technology': technology, 'policy': self.policy,
                'state': self.state, 'digest': self.digest,
                'vcpus': self.vcpus, 'secrets': self.secrets,
                'instructions_run': self.instructions_run,
                'events': list(self.events)}


class Guest:
    """One guest: its launch, its memory and its record."""

    def __init__(self, identity, record):
        self._launch = launch.Launch(identity.key, platform.API,
                                     platform.BUILD)
        self._memory = None
        self._memory_size = 0
        self.record = record

    def start(self, request, descriptors):
        """LAUNCH_START; takes the guest's memory."""
        if len(descriptors) != 1:
            raise RequestError("start takes the guest's memory")
        if self._memory is not None:
            raise RequestError('the guest has started already')
        self._memory = os.dup(descriptors[0])
        self._memory_size = os.fstat(self._memory).st_size
        self.record.policy = _integer(request, 'policy')
        self._launch.start(
            self.record.policy,
            _bytes(request, 'dh_cert', channel.REQUEST_LIMIT, None),
            _bytes(request, 'session', channel.REQUEST_LIMIT, None))
        self.record.note('started')
        return {}

    def update(self, request, descriptors):
        """LAUNCH_UPDATE_DATA of a file, or of bytes put into memory."""
        if descriptors:
            size = os.fstat(descriptors[0]).st_size
            if size > _LONGEST_UPDATE:
                raise RequestError(f'{size} bytes are too many to measure')
            data = os.pread(descriptors[0], size, 0)
        else:
            data = _bytes(request, 'data', channel.REQUEST_LIMIT)
            self._write(_integer(request, 'address'), data)
        self._launch.update(data)
        return {}

    def update_vmsa(self, request, descriptors):
        """LAUNCH_UPDATE_VMSA of one vCPU's registers."""
        self._launch.update_vmsa(_bytes(request, 'page', launch.VMSA_SIZE))
        self.record.vcpus += 1
        return {}

    def measure(self, request, descriptors):
        """LAUNCH_MEASURE."""
        measurement = self._launch.measure()
        self.record.digest = self._launch.digest.hex()
        self.record.note('measured')
        return {'measurement': base64.b64encode(measurement).decode()}

    def secret(self, request, descriptors):
        """LAUNCH_SECRET: the plaintext goes into the guest's memory."""
        address = _integer(request, 'address')
        plaintext = self._launch.secret(
            _bytes(request, 'header', launch.SECRET_HEADER_SIZE),
            _bytes(request, 'data', launch.SECRET_LIMIT))
        self._write(address, plaintext)
        self.record.secrets += 1
        self.record.note('secret_injected')
        return {}

    def finish(self, request, descriptors):
        """LAUNCH_FINISH, asked for before the guest's first instruction."""
        if self._launch.state == launch.State.RUNNING:
            return {}
        self._launch.finish()
        self.record.instructions_run = True
        self.record.note('finished')
        return {}

    def query(self, request, descriptors):
        """What QEMU answers to query-sev."""
        return {'api-major': platform.API[0], 'api-minor': platform.API[1],
                'build-id': platform.BUILD, 'policy': self._launch.policy,
                'state': str(self._launch.state)}

    def command(self, name, request, descriptors):
        """Run one command; a refusal is kept in the record."""
        commands = {'start': self.start, 'update': self.update,
                    'update_vmsa': self.update_vmsa,
                    'measure': self.measure, 'secret': self.secret,
                    'finish': self.finish, 'query': self.query}
        if name not in commands:
            raise RequestError(f'no command {name!r:.40}')
        try:
            return commands[name](request, descriptors)
        except (launch.CommandError, RequestError) as error:
            self.record.note('refused', command=name, reason=str(error))
            raise
        finally:
            self.record.state = str(self._launch.state)

    def end(self):
        """The guest's QEMU is gone."""
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None
        self.record.state = 'ended'
        self.record.note('ended')

    def _write(self, address, data):
        limit = min(self._memory_size, _LOW_MEMORY)
        if not 0 < address <= limit - len(data):
            raise RequestError(
                f'{len(data)} bytes at {address:#x} are not in the '
                f"guest's memory")
        os.pwrite(self._memory, data, address)


def _integer(request, name):
    value = request.get(name)
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise RequestError(f'{name} is no 32-bit number')
    return value


def _bytes(request, name, limit, *default):
    value = request.get(name)
    if value is None and default:
        return default[0]
    try:
        data = base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise RequestError(f'{name} is no base64') from error
    if len(data) > limit:
        raise RequestError(f'{name} has {len(data)} bytes, {limit} at most')
    return data


class Daemon(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The server.

    :param path: socket to listen on; an old one is replaced.
    :param identity: a :class:`platform.Platform`.
    :param users: numbers of the users served beside root.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path, identity, users=()):
        self.identity = identity
        self.users = {0, os.geteuid(), *users}
        self._records = collections.deque(maxlen=_HISTORY)
        self._lock = threading.Lock()
        self.holds = holds.Holds()
        pathlib.Path(path).unlink(missing_ok=True)
        super().__init__(str(path), _Connection)

    def verify_request(self, request, client_address):
        """Serve only the users named: the socket's mode is no guard."""
        return _user_of(request) in self.users

    def new_guest(self, request):
        """A guest for a connection that starts a launch."""
        names = [request.get(key, '') for key in ('name', 'uuid')]
        if not all(isinstance(name, str) and len(name) <= _LONGEST_NAME
                   for name in names):
            raise RequestError('name and uuid are short texts')
        record = Record(*names)
        with self._lock:
            self._records.append(record)
        return Guest(self.identity, record)

    def capabilities(self):
        """What QEMU answers to query-sev-capabilities."""
        encoded = {key: base64.b64encode(value).decode() for key, value in (
            ('pdh', self.identity.pdh),
            ('cert-chain', self.identity.cert_chain),
            ('cpu0-id', self.identity.chip_id))}
        return {**encoded, 'cbitpos': _CBIT_POSITION,
                'reduced-phys-bits': _REDUCED_PHYS_BITS}

    def status(self):
        """All launches, the oldest first."""
        with self._lock:
            records = list(self._records)
        return {'launches': [record.to_dict() for record in records],
                'held': self.holds.held()}


def _user_of(connection):
    """The number of the user at the other end."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize('3i'))
    return struct.unpack('3i', credentials)[1]


class _Connection(socketserver.BaseRequestHandler):
    """One connection; the guest that started on it ends with it."""

    guest = None

    def handle(self):
        try:
            while received := channel.receive(self.request, descriptors=1):
                request, descriptors = received
                try:
                    reply = {'result': self._answer(request, descriptors)}
                except (launch.CommandError, RequestError,
                        holds.HoldError) as error:
                    reply = {'error': str(error)}
                except Exception:
                    LOG.exception('a command failed')
                    reply = {'error': 'the emulated platform failed; its '
                                      'log says how'}
                finally:
                    for descriptor in descriptors:
                        os.close(descriptor)
                channel.send(self.request, reply)
        except (channel.ProtocolError, OSError) as error:
            LOG.warning('connection closed: %s', error)
        finally:
            if self.guest is not None:
                self.guest.end()

    def _answer(self, request, descriptors):
        name = request.get('command')
        if name == 'capabilities':
            return self.server.capabilities()
        if name == 'status':
            return self.server.status()
        if name in ('hold', 'let_go'):
            return self._hold(name, request)
        if name == 'start' and self.guest is None:
            self.guest = self.server.new_guest(request)
        if self.guest is None:
            raise RequestError(f'{name!r:.40} before start')
        domain_uuid = self.guest.record.uuid
        self.server.holds.pass_by(name, 'before', domain_uuid)
        result = self.guest.command(name, request, descriptors)
        self.server.holds.pass_by(name, 'after', domain_uuid)
        return result

    def _hold(self, name, request):
        if _user_of(self.request) not in (0, os.geteuid()):
            raise RequestError('only root may have commands held')
        if name == 'hold':
            self.server.holds.hold(request.get('held'), request.get('when'))
        else:
            self.server.holds.let_go()
        return {}


def serve(path, keys, chip='chip0', group=None):
    """Serve until the process is ended.

    :param path: socket to listen on, in a folder that is made when missing.
        The platform's certificate appears there too, as pdh.cert.
    :param keys: folder of the platform's keys; see :mod:`platform`.
    :param group: number of the user and group that QEMU runs as.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = platform.open_platform(keys, chip)
    (path.parent / 'pdh.cert').write_bytes(identity.pdh)
    users = () if group is None else (group,)
    with Daemon(path, identity, users) as daemon:
        if group is not None:
            os.chown(path, 0, group)
        path.chmod(0o660)
        LOG.info('the emulated SEV platform listens at %s', path)
        daemon.serve_forever()
