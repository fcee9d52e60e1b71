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

"""openstack attestation launch ..."""

import datetime
import shutil
import sys
import time

from osc_lib import exceptions

from nova_sev_attest.osc import base
from nova_sev_attest.osc import columns
from nova_sev_attest.osc import names
from nova_sev_attest.osc import timeline as timelines

_ORDER = (
    'id', 'server_id', 'host', 'status', 'waiting_for', 'expires_in',
    'reason', 'technology', 'purpose', 'policy_id', 'policy_revision',
    'verifier', 'approval', 'platform', 'policy_word', 'verdict', 'decided_by',
    'decided_at', 'project_id', 'created_at', 'updated_at', 'expires_at')
_BRIEF = ('id', 'server_id', 'status', 'waiting_for', 'reason', 'verdict')
_STATUSES = ('awaiting_session', 'session_issued', 'awaiting_release',
             'released', *sorted(timelines.CLOSED))
# What the table's other column and its rules take of a line.
_BESIDE = 26
_RUNNING, _ENDED_OTHERWISE, _NOT_DONE = 0, 1, 2


def _now():
    return datetime.datetime.now(datetime.timezone.utc)


def _timeline(client, launch):
    """A launch's Timeline; None where the caller may not see its events."""
    from nova_sev_attest.client import exceptions as client_exceptions

    try:
        events = client.launches.events(launch['id'])
    except client_exceptions.RequestRefused as error:
        if error.status not in (403, 404):
            raise
        return None
    return timelines.Timeline(
        events, None if launch['status'] in timelines.CLOSED else _now())


def _block():
    """What a bar is made of on this terminal."""
    encoding = (getattr(sys.stdout, 'encoding', None) or '').lower()
    return '\u2588' if encoding.replace('-', '') == 'utf8' else '#'


def _width():
    return shutil.get_terminal_size().columns


class _One(base.ShowOne):
    """Commands on one launch.

    :cvar waiting_for: what the launch of a server has to wait for
    """

    waiting_for = None

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        which = ('the newest launch of this server is meant'
                 if self.waiting_for is None else
                 f'its launch that waits for your {self.waiting_for} is '
                 f'meant')
        parser.add_argument(
            'launch', metavar='<launch>',
            help=f'Id of the launch; or name or id of a server: {which}')
        return parser

    def find(self, parsed_args):
        return names.launch(self.app.client_manager, parsed_args.launch,
                            self.waiting_for)


class List(base.Lister):
    """List launches, the newest first.

    A launch is one boot of one server.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--server', metavar='<server>',
                            help='Only launches of this server (name or ID)')
        parser.add_argument('--policy', metavar='<policy>',
                            help='Only launches under this policy (name or '
                                 'ID)')
        parser.add_argument('--status', choices=_STATUSES,
                            metavar='<status>',
                            help='Only launches in this status: '
                                 f'{", ".join(_STATUSES)}')
        parser.add_argument('--host', metavar='<host>',
                            help='Only launches on this compute host')
        parser.add_argument('--technology',
                            choices=('amd-sev', 'amd-sev-es'),
                            help='Only launches of this kind')
        parser.add_argument('--project', metavar='<project-id>',
                            help='Only launches of this project\'s servers '
                                 '(for who sees those of all)')
        parser.add_argument('--sort', metavar='<key>[:<direction>]',
                            help='Keys created_at, updated_at, expires_at, '
                                 'status, host and server_id')
        parser.add_argument('--limit', metavar='<number>', type=int,
                            default=100,
                            help='Show at most so many (default: 100)')
        parser.add_argument('--long', action='store_true',
                            help='Show policy, reason and times')
        return parser

    def take_action(self, parsed_args):
        import itertools

        server = policy = None
        if parsed_args.server is not None:
            server = names.server(self.app.client_manager,
                                  parsed_args.server)
        if parsed_args.policy is not None:
            policy = names.policy(self.client, parsed_args.policy)
        found = list(itertools.islice(self.client.launches.each(
            server_id=server, policy_id=policy, status=parsed_args.status,
            host=parsed_args.host, technology=parsed_args.technology,
            project_id=parsed_args.project, sort=parsed_args.sort),
            parsed_args.limit))
        shown = ['id', 'server_id', 'host', 'status', 'created_at']
        titles = ['ID', 'Server', 'Host', 'Status', 'Created At']
        if parsed_args.long:
            for each in found:
                each['code'] = (each.get('reason') or {}).get('code')
            shown += ['waiting_for', 'code', 'technology', 'purpose',
                      'policy_id', 'policy_revision', 'updated_at']
            titles += ['Waiting For', 'Reason', 'Technology', 'Purpose',
                       'Policy', 'Revision', 'Updated At']
        return columns.table(found, shown, titles)


class Show(_One):
    """Show a launch, and where its time went."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--svg', metavar='<file>',
                            help='Also write a picture of it to this new '
                                 'file')
        return parser

    def take_action(self, parsed_args):
        launch = self.find(parsed_args)
        timeline = _timeline(self.client, launch)
        if parsed_args.svg is not None:
            self._draw(parsed_args.svg, launch,
                       timeline or timelines.Timeline([]))
        shown, values = columns.row(launch, _ORDER)
        if timeline is not None:
            shown += ('timeline',)
            values += (columns.Shown(
                [phase.shown() for phase in timeline.phases],
                '\n'.join(timeline.draw(_width() - _BESIDE, _block()))),)
        return shown, values

    def _draw(self, path, launch, timeline):
        from nova_sev_attest.client import exceptions as client_exceptions
        from nova_sev_attest import files
        from nova_sev_attest.osc import picture

        policy = None
        if launch.get('policy_id'):
            try:
                policy = self.client.policies.revision(
                    launch['policy_id'], launch['policy_revision'])
            except client_exceptions.RequestRefused as error:
                self.warn(f'The policy is not in the picture: {error}')
        files.write_new({path: (picture.draw(launch, timeline, policy),
                                files.PUBLIC)})


class _Decide(_One):
    """Commands that decide on a launch."""

    action = None

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--reason', metavar='<text>',
                            help='Why; it is kept with the launch')
        return parser

    def take_action(self, parsed_args):
        launch = self.find(parsed_args)
        return columns.row(self.client.launches.decide(
            launch['id'], self.action, parsed_args.reason), _BRIEF)


class Approve(_Decide):
    """Release a launch that the key service has verified.

    For policies whose approval is the owner's.
    """

    action = 'approve'
    waiting_for = 'approval'


class Deny(_Decide):
    """Refuse a launch that waits for you. Its guest never runs."""

    action = 'deny'


class SetSession(_One):
    """Give a launch the session that you made for its platform.

    For policies whose verifier is the owner: with the files of "sev-attest
    session create" or "sevctl session". TEK and TIK stay with you.
    """

    waiting_for = 'session'

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--godh', metavar='<file>', required=True,
                            help='GODH certificate, in base64 or as it is')
        parser.add_argument('--session', metavar='<file>', required=True,
                            help='Session, in base64 or as it is; - is the '
                                 'standard input')
        return parser

    def take_action(self, parsed_args):
        from nova_sev_attest.client import launches
        from nova_sev_attest import files

        reader = files.Reader()
        godh = reader.binary(parsed_args.godh,
                             launches.GODH_CERTIFICATE_SIZE,
                             'GODH certificate')
        session = reader.binary(parsed_args.session, launches.SESSION_SIZE,
                                'session')
        launch = self.find(parsed_args)
        return columns.row(self.client.launches.set_session(
            launch['id'], godh, session), _BRIEF)


class SetSecret(_One):
    """Release a launch that you verified, with the secret that you packed.

    For policies whose verifier is the owner: with the files of "sev-attest
    secret pack" or virt-qemu-sev-validate. They are encrypted to this one
    launch.
    """

    waiting_for = 'secret'

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--header', metavar='<file>',
                            help='Header of the packed secret, in base64 or '
                                 'as it is')
        parser.add_argument('--payload', metavar='<file>',
                            help='The packed secret, in base64 or as it is; '
                                 '- is the standard input')
        parser.add_argument('--gpa', metavar='<address>',
                            type=lambda text: int(text, 0),
                            help='Guest-physical address to put it at '
                                 '(default: where the firmware declares)')
        parser.add_argument('--none', action='store_true',
                            help='Let the guest run without a secret')
        return parser

    def take_action(self, parsed_args):
        given = (parsed_args.header, parsed_args.payload)
        if parsed_args.none != (given == (None, None)) or (
                not parsed_args.none and None in given):
            raise exceptions.CommandError(
                'Give --header and --payload, or --none.')
        release = None
        if not parsed_args.none:
            release = self._read(*given, parsed_args.gpa)
        launch = self.find(parsed_args)
        return columns.row(self.client.launches.set_secret(
            launch['id'], release), _BRIEF)

    @staticmethod
    def _read(header, payload, gpa):
        from nova_sev_attest.client import launches
        from nova_sev_attest import files

        reader = files.Reader()
        return launches.SevRelease(
            header=reader.binary(header, launches.PACKET_HEADER_SIZE,
                                 'secret header'),
            secret=reader.packet(payload, launches.MAX_PACKET_DATA), gpa=gpa)


class _Save(_One):
    """Commands that write what a launch's host showed."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--directory', metavar='<directory>', default='.',
                            help='Where to write (default: here)')
        parser.add_argument('--name', metavar='<name>', default='vm',
                            help='Beginning of the files\' names (default: '
                                 'vm)')
        return parser

    def write(self, parsed_args, contents):
        """Write new files; returns {what: path}.

        :param contents: {(what, end of the file's name): bytes}
        """
        import pathlib

        from nova_sev_attest import files

        if '/' in parsed_args.name or not parsed_args.name:
            raise exceptions.CommandError(
                f'--name {parsed_args.name!r}: expected a name without a '
                f'slash; --directory says where')
        folder = pathlib.Path(parsed_args.directory)
        paths = {what: folder / f'{parsed_args.name}_{end}'
                 for what, end in contents}
        files.write_new({
            paths[what]: (data, files.PUBLIC)
            for (what, _), data in contents.items()})
        return {f'{what}_file': str(path) for what, path in paths.items()}


class SaveCertificates(_Save):
    """Save the certificates of a launch's platform to files.

    They are as the host showed them: verify them before you use them, by
    "sev-attest platform verify" or "sev-attest session create".
    """

    def take_action(self, parsed_args):
        launch = self.find(parsed_args)
        found = self.client.launches.certificates(launch['id'])
        contents = {('pdh', 'pdh.cert'): found.pdh,
                    ('cert_chain', 'cert_chain.cert'): found.cert_chain}
        if found.signed_cek is not None:
            contents['cek', 'cek.cert'] = found.signed_cek
        return columns.row({'launch': launch['id'],
                            **self.write(parsed_args, contents)})


class SaveEvidence(_Save):
    """Save what a launch's host sent as evidence to files.

    The measurement is in base64, as libvirt and sev-attest have it; the
    other file has all that was sent and claimed, as JSON.
    """

    def take_action(self, parsed_args):
        import json

        from nova_sev_attest.client import answers

        launch = self.find(parsed_args)
        evidence, claims = self.client.launches.evidence(launch['id'])
        measurement = answers.octets(evidence, 'measurement', 48, 48)
        paths = self.write(parsed_args, {
            ('measurement', 'measurement.b64'):
                answers.encode(measurement).encode(),
            ('evidence', 'evidence.json'): json.dumps(
                {'evidence': evidence, 'claims': claims},
                indent=2, sort_keys=True).encode() + b'\n'})
        api = (f'{answers.integer(evidence, "api_major", 0, 255)}.'
               f'{answers.integer(evidence, "api_minor", 0, 255)}')
        return columns.row({
            'launch': launch['id'], 'api_version': api,
            'build_id': answers.integer(evidence, 'build_id', 0, 255),
            **paths})


class Watch(base.Command):
    """Watch a launch until it is over.

    On a terminal its steps are drawn as they come; elsewhere each is a line.
    A server that has no launch yet is waited for. Exit status: 0 the guest
    runs, 1 the launch ended otherwise, 2 it was not over in time.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'launch', metavar='<launch>',
            help='Id of the launch; or name or id of a server: its newest '
                 'launch is meant')
        parser.add_argument('--timeout', metavar='<seconds>', type=float,
                            default=600.0,
                            help='How long to watch (default: 600)')
        parser.add_argument('--interval', metavar='<seconds>', type=float,
                            default=1.0,
                            help='How often to look (default: 1)')
        return parser

    def take_action(self, parsed_args):
        screen = _Screen(self.app.stdout)
        end = time.monotonic() + parsed_args.timeout
        launch = None
        try:
            while True:
                launch = self._look(parsed_args, launch)
                if launch is not None:
                    screen.show(launch, _timeline(self.client, launch))
                    if launch['status'] in timelines.CLOSED:
                        break
                left = end - time.monotonic()
                if left <= 0:
                    self.status = _NOT_DONE
                    self.log.error('Not over after %g s: %s',
                                   parsed_args.timeout,
                                   _state(launch) if launch else
                                   'there is no launch yet')
                    return
                time.sleep(min(left, max(0.1, parsed_args.interval)))
        except KeyboardInterrupt:
            self.status = _NOT_DONE
            return
        if launch['status'] != 'running':
            self.status = _ENDED_OTHERWISE

    def _look(self, parsed_args, launch):
        """The launch as it is now; None while a server has none."""
        if launch is not None:
            return self.client.launches.get(launch['id'])
        found = names.launches(self.app.client_manager, parsed_args.launch)
        return found[0] if found else None


def _state(launch):
    """A launch's state in one line."""
    text = launch['status'].replace('_', ' ')
    if launch.get('waiting_for'):
        text += f'; waits for your {launch["waiting_for"]}'
        if launch.get('expires_in') is not None:
            text += f', for {launch["expires_in"]} s more'
    if launch.get('reason'):
        text += f': {launch["reason"]["detail"]}'
    return base.clean(text)


class _Screen:
    """Where a launch is watched."""

    def __init__(self, stream):
        self._stream = stream
        self._live = stream.isatty()
        self._drawn = 0
        self._told = 0
        self._state = None

    def show(self, launch, timeline):
        timeline = timeline or timelines.Timeline([])
        if self._live:
            self._draw(launch, timeline)
        else:
            self._tell(launch, timeline)
        self._stream.flush()

    def _draw(self, launch, timeline):
        width = _width()
        lines = [f'Launch {launch["id"]} of server {launch["server_id"]} on '
                 f'{base.clean(launch["host"])}',
                 *(self._line(step) for step in timeline.steps), '',
                 *timeline.draw(width - 1, _block()), '', _state(launch)]
        # A line that wraps would take two when it is taken back.
        lines = [line[:width - 1] for line in lines]
        if self._drawn:
            self._stream.write(f'\x1b[{self._drawn}F\x1b[J')
        self._stream.write('\n'.join(lines) + '\n')
        self._drawn = len(lines)

    def _tell(self, launch, timeline):
        for step in timeline.steps[self._told:]:
            self._stream.write(self._line(step) + '\n')
        self._told = max(self._told, len(timeline.steps))
        state = _state({**launch, 'expires_in': None})
        if state != self._state:
            self._stream.write(state + '\n')
            self._state = state

    @staticmethod
    def _line(step):
        return (f'{timelines.clock(step.at)}  '
                f'+{timelines.seconds(step.offset):>9}  {step.words}')
