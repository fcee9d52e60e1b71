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

"""Many compute hosts that launch guests at the same time.

Each launch is a whole one: the platform's side is the emulated platform's,
which unwraps the session, measures the guest and decrypts what is released;
what comes out has to be the secret, or the launch is an error.
"""

import asyncio
import base64
import collections
import dataclasses
import hashlib
import itertools
import secrets
import time
import uuid

from benchmarks.keyservice import cloud
from benchmarks.keyservice import http
from nova_sev_attest.emulator import launch as emulated
from nova_sev_attest.emulator import platform as emulated_platform
from tests.unit.launch import platforms

LUKS = uuid.UUID('736869e5-84f0-4973-92ec-06879ce3da0b')
FIRMWARE = platforms.firmware()
# A host asks again what got no answer or 503, as nova-compute does.
_ATTEMPTS = 60
_PAUSE = 0.5
_PAUSE_LIMIT = 4.0
#: Answers after which the same request may be sent again.
_TRANSIENT = (502, 503, 504)


def b64(data):
    return base64.b64encode(data).decode()


@dataclasses.dataclass
class Figures:
    """What was seen.

    :ivar seconds: {step: [seconds of each answered request]}
    :ivar retries: {step: requests that were sent again}
    :ivar errors: [what was wrong with a launch]
    :ivar transient: {error code or missing answer: how often}
    :ivar double_releases: launches that got more than one ciphertext
    :ivar duplicates: launches whose evidence was sent several times at once
    :ivar released: {launch id: SHA-256 of the packet}
    """

    seconds: dict = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list))
    retries: collections.Counter = dataclasses.field(
        default_factory=collections.Counter)
    transient: collections.Counter = dataclasses.field(
        default_factory=collections.Counter)
    errors: list = dataclasses.field(default_factory=list)
    double_releases: int = 0
    duplicates: int = 0
    released: dict = dataclasses.field(default_factory=dict)


class Failed(Exception):
    """A launch did not come to its good end."""


class Load:
    """:param urls: of the key service's nodes; hosts ask them in turn

    :param platform: the emulated platform that every host has
    :param payloads: {name of a policy: the secret that it releases}
    """

    def __init__(self, urls, platform, payloads):
        self.figures = Figures()
        self._urls = itertools.cycle(urls)
        self._platform = platform
        self._certificates = {'pdh': b64(platform.pdh),
                              'cert_chain': b64(platform.cert_chain)}
        self._payloads = payloads

    async def run(self, plan, clients, duplicated, done=lambda count: None):
        """Launch servers, so many at once.

        :param plan: names of policies, one for each launch
        :param duplicated: each launch of a number that this divides sends
            its evidence several times at once; 0: none
        :param done: called with the number of launches that have ended
        """
        numbered = enumerate(plan)
        ended = itertools.count(1)

        async def client():
            for number, policy in numbered:
                try:
                    await self._launch(
                        cloud.server_id(number, policy), policy,
                        bool(duplicated) and number % duplicated == 0)
                except Failed as exc:
                    self.figures.errors.append(str(exc))
                done(next(ended))

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())

    async def _launch(self, server, policy, duplicated):
        launch_id = str(uuid.uuid4())
        path, host = f'/v1/launches/{launch_id}', cloud.host_of(server)
        headers = {'X-Attestation-Launch-Token': secrets.token_hex(32),
                   'X-Auth-Token': cloud.token_of(
                       f'nova-sev-attest-{host}')}
        begun = (await self._put('create', path, headers, {'launch': {
            'server_id': server, 'host': host,
            'technology': 'amd-sev', 'platform': self._certificates}}))[
                'launch']
        guest = self._start(begun['session'])
        measurement = guest.measure()
        evidence = {'evidence': {
            'technology': 'amd-sev', 'measurement': b64(measurement),
            'api_major': emulated_platform.API[0],
            'api_minor': emulated_platform.API[1],
            'build_id': emulated_platform.BUILD,
            'policy': int(guest.policy)}}
        if duplicated:
            release = await self._send_many(path, headers, evidence)
        else:
            release = (await self._put('evidence', path + '/evidence',
                                       headers, evidence))['release']
        self._open(launch_id, guest, release, self._payloads[policy])
        await self._put('outcome', path + '/outcome', headers,
                        {'outcome': {'status': 'running', 'reason': None}})

    def _start(self, session):
        guest = emulated.Launch(self._platform.key, emulated_platform.API,
                                emulated_platform.BUILD)
        try:
            guest.start(session['policy'],
                        base64.b64decode(session['dh_cert']),
                        base64.b64decode(session['session']))
        except emulated.CommandError as exc:
            raise Failed(f'LAUNCH_START: {exc}') from exc
        guest.update(FIRMWARE)
        return guest

    def _open(self, launch_id, guest, release, payload):
        try:
            table = guest.secret(base64.b64decode(release['secret_header']),
                                 base64.b64decode(release['secret']))
        except emulated.CommandError as exc:
            raise Failed(f'LAUNCH_SECRET: {exc}') from exc
        if dict(platforms.read_secret_table(table)) != {
                LUKS.bytes_le: payload}:
            raise Failed('what was released is not the secret')
        self.figures.released[launch_id] = _digest(release)

    async def _send_many(self, path, headers, evidence):
        """The same evidence several times at once, and once more after."""
        self.figures.duplicates += 1

        def send():
            return self._put('evidence', path + '/evidence', headers,
                             evidence)

        answers = await asyncio.gather(*(send() for _ in range(3)))
        answers.append(await send())
        if len({_digest(answer['release']) for answer in answers}) > 1:
            self.figures.double_releases += 1
        return answers[0]['release']

    async def _put(self, step, path, headers, value):
        """PUT until there is an answer that counts; returns its JSON."""
        pause = _PAUSE
        for attempt in range(_ATTEMPTS):
            if attempt:
                self.figures.retries[step] += 1
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _PAUSE_LIMIT)
            client = http.Client(next(self._urls))
            started = time.monotonic()
            try:
                answer = await client('PUT', path, value, headers)
            except http.Unanswered as exc:
                self.figures.transient[str(exc)] += 1
                continue
            if answer.status in _TRANSIENT:
                self.figures.transient[answer.code] += 1
                continue
            if answer.status not in (200, 201):
                raise Failed(f'{step}: {answer.code}')
            self.figures.seconds[step].append(time.monotonic() - started)
            return answer.json()
        raise Failed(f'{step}: no answer in {_ATTEMPTS} attempts')


def _digest(release):
    return hashlib.sha256(repr(sorted(release.items())).encode()).hexdigest()
