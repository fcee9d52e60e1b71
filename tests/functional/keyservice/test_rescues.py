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

"""Launches for a rescue: what they may have, and what they get."""

import dataclasses
import json
import uuid

import pytest
import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice.objects import policies
from tests.functional.keyservice import fakes
from tests.functional.keyservice import harness
from tests.functional.keyservice.harness import error
from tests.functional.keyservice import test_launches
from tests.functional.keyservice import test_rpc
from tests.unit.launch import platforms

#: What Nova gives a rescue.
LINE = 'root=/dev/vda console=tty0 console=ttyS0 console=hvc0'
KEY = b'what a rescue may know, and no boot'
GUID = str(uuid.UUID(int=0x5e5c0e))
BOOT_GETS = {uuid.UUID(harness.LUKS_GUID).bytes_le: harness.PASSPHRASE}
RESCUE_GETS = {uuid.UUID(GUID).bytes_le: KEY}

nova_user, server, transport = (
    test_rpc.nova_user, test_rpc.server, test_rpc.transport)


def part(keyservice, project='p', **changes):
    """A part for rescues with a command line and a secret of its own."""
    return {'command_lines': [LINE], 'secrets': [
        {'guid': GUID, 'secret_ref': keyservice.secret(KEY, project)}]
    } | changes


def fetched(keyservice, authored):
    """Secrets that were fetched, but for the author's proof."""
    return keyservice.cloud.barbican.payload_requests()[authored:]


class Host(harness.Host):
    """A compute host that says what its launch is for.

    :param purpose: None says nothing, as drivers from before rescues do
    """

    def __init__(self, keyservice, purpose='rescue', **options):
        super().__init__(keyservice, **options)
        self.purpose = purpose

    def request(self, **changes):
        said = {} if self.purpose is None else {'purpose': self.purpose}
        return super().request(**said | changes)

    def put_into(self, state, task=None):
        """Let Nova say so of the server."""
        self.keyservice.cloud.nova.servers[self.server_id] |= {
            'OS-EXT-STS:vm_state': state, 'OS-EXT-STS:task_state': task}

    def gets(self, **measured):
        """Launch, and return what the guest reads; None for no secret."""
        self.launch()
        evidence = self.measure(**measured)
        answer = self.send(evidence)
        assert answer.status_code == 200, answer.text
        release = answer.json()['release']
        return release and self.inject(release, evidence)


@pytest.mark.parametrize('purpose, line, gets', [
    (None, harness.COMMAND_LINE, BOOT_GETS),
    ('boot', harness.COMMAND_LINE, BOOT_GETS),
    ('rescue', LINE, RESCUE_GETS)])
def test_whole_launch(either, purpose, line, gets):
    policy = either.policy(rescue=part(either))
    assert policy['warnings'][1:] == []
    main, own = (found['secrets'][0]['secret_ref']
                 for found in (policy, policy['rescue']))
    host = Host(either, purpose)
    assert host.gets(command_line=line) == gets
    expected = [own if purpose == 'rescue' else main]
    assert fetched(either, 2) == expected
    assert host.outcome('running').status_code == 200
    shown = host.show()
    assert shown['status'] == 'running'
    assert shown['purpose'] == (purpose or 'boot')
    assert either.operator().get(
        f'/v1/launches/{host.id}').json()['launch']['purpose'] == (
            purpose or 'boot')
    events = harness.Owner(host).get('/events')['events']
    assert {event['details']['purpose'] for event in events} == {
        purpose or 'boot'}
    released, = (event for event in events
                 if event['event'] == 'launch.released')
    assert released['details']['secrets'] == expected


def test_without_a_part_a_rescue_gets_nothing(either):
    policy = either.policy()
    assert policy['rescue'] is None and len(policy['warnings']) == 1
    host = Host(either)
    assert host.gets() is None
    # The same evidence again gets the same.
    assert host.outcome('running').status_code == 200
    shown = host.show()
    assert (shown['status'], shown['purpose']) == ('running', 'rescue')
    assert shown['verdict']['kernel_sha256'] == harness.KERNEL.hex()
    assert fetched(either, 1) == []
    assert test_launches.row(either, host).sealed_keys is None
    assert either.member().get(
        f'/v1/policies/{policy["id"]}').json()['policy'][
            'release_count'] == 1
    # A boot does.
    assert Host(either, 'boot').gets() == BOOT_GETS


def test_repeated_evidence_gets_the_same_nothing(keyservice):
    keyservice.policy()
    host = Host(keyservice)
    host.launch()
    evidence = host.measure()
    for _ in range(2):
        answer = host.send(evidence)
        assert answer.status_code == 200
        assert answer.json()['release'] is None
    assert fetched(keyservice, 1) == []


@pytest.mark.parametrize('purpose, line, other', [
    (None, LINE, 'rescue'), ('boot', LINE, 'rescue'),
    ('rescue', harness.COMMAND_LINE, 'boot')])
def test_a_host_that_lies_is_found_out(keyservice, purpose, line, other):
    keyservice.policy(rescue=part(keyservice))
    host = Host(keyservice, purpose)
    host.launch()
    evidence = host.measure(command_line=line)
    # Whatever it claims, and as often as it tries.
    for claims in (host.claims(), host.claims(command_line=line)):
        detail = error(host.send(evidence, claims), 403,
                       'purpose_not_allowed')
    assert detail == (
        f'The policy allows what was launched for a {other} only, and this '
        f'launch is a {purpose or "boot"}.')
    test_launches.assert_closed(keyservice, host, 'denied')
    assert fetched(keyservice, 2) == []
    assert host.show()['reason']['claimed'] == host.claims()


def test_what_nothing_tells_apart(keyservice):
    """The host's word decides, and the owner was warned."""
    policy = keyservice.policy(rescue=part(keyservice, command_lines=None))
    warning, = (text for text in policy['warnings'] if 'coincides' in text)
    assert 'a host that lies gets the other one\'s secrets' in warning
    assert Host(keyservice, 'boot').gets() == BOOT_GETS
    assert Host(keyservice, 'rescue').gets() == RESCUE_GETS


@pytest.mark.parametrize('changes, warned', [
    ({}, False),
    ({'command_lines': [LINE, harness.COMMAND_LINE]}, True),
    ({'command_lines': None, 'kernels': ['ab' * 32]}, False),
    ({'command_lines': None, 'initrds': []}, False),
    ({'kernels': []}, False),
    ({'command_lines': None, 'secrets': None}, False),
    ({'secrets': []}, False),
    ({'command_lines': [harness.COMMAND_LINE], 'secrets': []}, True),
])
def test_warning_of_what_coincides(keyservice, changes, warned):
    """None for secrets stands for those of a boot."""
    body = keyservice.policy_body(rescue=part(keyservice, **changes))
    if body['rescue']['secrets'] is None:
        body['rescue']['secrets'] = body['secrets']
    created = keyservice.member().post('/v1/policies', json={'policy': body})
    found = created.json()['policy']['warnings']
    assert any('coincides' in text for text in found) == warned
    assert any('emulated' in text for text in found)


def test_firmware_boot_tells_nothing_apart(keyservice):
    policy = keyservice.policy(
        kernels=[], initrds=[], command_lines=[], firmware_boot=True,
        rescue=part(keyservice, command_lines=None))
    assert any('coincides' in text for text in policy['warnings'])
    assert Host(keyservice).gets(kernel=None) == RESCUE_GETS


@pytest.mark.parametrize('state, task, said, purpose', [
    ('active', 'rescuing', None, 'rescue'),
    ('active', 'rescuing', 'boot', 'rescue'),
    ('stopped', 'rescuing', None, 'rescue'),
    ('rescued', None, None, 'rescue'),
    ('rescued', 'reboot_started_hard', 'boot', 'rescue'),
    ('rescued', 'unrescuing', None, 'boot'),
    ('rescued', 'unrescuing', 'boot', 'boot'),
    ('rescued', 'unrescuing', 'rescue', 'rescue'),
    ('active', None, None, 'boot'),
    ('error', 'reboot_started_hard', None, 'boot'),
    ('active', None, 'rescue', 'rescue'),
    (None, None, None, 'boot'),
])
def test_nova_is_asked_too(keyservice, state, task, said, purpose):
    """So that a driver from before rescues, or a lie, makes it no boot."""
    keyservice.policy()
    host = Host(keyservice, said)
    host.put_into(state, task)
    assert host.gets() == (BOOT_GETS if purpose == 'boot' else None)
    assert host.show()['purpose'] == purpose


@pytest.mark.parametrize('measured, code, member, allowed', [
    ({'command_line': LINE + ' quiet'}, 'command_line_not_allowed',
     'command_lines', [LINE]),
    ({'kernel': bytes(32), 'command_line': LINE}, 'kernel_not_allowed',
     'kernels', [harness.KERNEL.hex()]),
    ({'initrd': bytes(32), 'command_line': LINE}, 'initrd_not_allowed',
     'initrds', [harness.INITRD.hex()]),
])
def test_what_a_rescue_may_not_have(keyservice, measured, code, member,
                                    allowed):
    keyservice.policy(rescue=part(keyservice))
    host = Host(keyservice)
    host.launch()
    detail = error(host.send(host.measure(**measured),
                             host.claims(**measured)), 403, code)
    assert LINE not in detail and allowed[0] not in detail
    # What is allowed is the rescue's, and the owner's to see.
    assert host.show()['reason']['allowed'] == {member: allowed}
    assert fetched(keyservice, 2) == []


def test_diagnosis_without_claims(keyservice):
    keyservice.policy(rescue=part(keyservice, kernels=['ab' * 32]))
    host = Host(keyservice)
    host.launch()
    # Neither a boot nor a rescue has it, and both parts are known.
    error(host.send(host.measure(kernel=bytes.fromhex('ab' * 32))), 403,
          'command_line_not_allowed')
    assert harness.COMMAND_LINE in host.show()['reason']['diagnosis']


def test_a_part_that_allows_nothing(keyservice):
    keyservice.policy(rescue={'kernels': []})
    host = Host(keyservice)
    host.launch()
    error(host.send(host.measure(), host.claims()), 403,
          'purpose_not_allowed')


def test_other_purpose_under_the_same_id(keyservice):
    keyservice.policy()
    host = Host(keyservice)
    host.launch()
    assert host.create().status_code == 200
    error(host.create(purpose='boot'), 409, 'launch_conflict')


@pytest.mark.parametrize('purpose', ['', 'Rescue', 'unrescue', None, 1])
def test_no_such_purpose(keyservice, purpose):
    keyservice.policy()
    error(harness.Host(keyservice).create(purpose=purpose), 400,
          'request_invalid')


@pytest.mark.parametrize('purpose, other', [
    ('rescue', 'boot'), ('rescue', None), ('boot', 'rescue')])
def test_keys_are_bound_to_the_purpose(keyservice, purpose, other):
    """Whoever writes to the database, or takes every launch for a boot."""
    keyservice.policy()
    host = Host(keyservice, purpose)
    host.launch()
    with keyservice.service.database.writer() as session:
        session.execute(sa.update(models.Launch).where(
            models.Launch.id == host.id).values(purpose=other))
    error(host.send(host.measure()), 503, 'sealing_key_missing')
    assert fetched(keyservice, 1) == []
    assert test_launches.row(keyservice, host).release_header is None


def test_launches_from_before_are_boots(keyservice):
    keyservice.policy()
    host = Host(keyservice, None)
    host.launch()
    with keyservice.service.database.writer() as session:
        session.execute(sa.update(models.Launch).where(
            models.Launch.id == host.id).values(purpose=None))
    evidence = host.measure()
    assert host.inject(host.send(evidence).json()['release'],
                       evidence) == BOOT_GETS
    assert host.show()['purpose'] == 'boot'


class TestOwners:

    def test_approval(self, either):
        either.policy(approval='owner', rescue=part(either))
        host = Host(either)
        host.launch()
        evidence = host.measure(command_line=LINE)
        assert host.send(evidence).status_code == 202
        owner = harness.Owner(host)
        assert owner.get()['launch']['purpose'] == 'rescue'
        assert fetched(either, 2) == []
        assert owner.decide('approve').status_code == 200
        release = host.send(evidence).json()['release']
        assert host.inject(release, evidence) == RESCUE_GETS

    def test_approval_of_nothing(self, keyservice):
        keyservice.policy(approval='owner')
        host = Host(keyservice)
        host.launch()
        evidence = host.measure()
        assert host.send(evidence).status_code == 202
        assert harness.Owner(host).decide('approve').status_code == 200
        assert host.send(evidence).json()['release'] is None

    def test_a_lie_is_not_up_to_the_owner(self, keyservice):
        keyservice.policy(approval='owner', rescue=part(keyservice))
        host = Host(keyservice, 'boot')
        host.launch()
        error(host.send(host.measure(command_line=LINE)), 403,
              'purpose_not_allowed')

    @pytest.mark.parametrize('secret', [True, False])
    def test_verifier(self, either, secret):
        """The owner sees what it is for, and packs what they like."""
        either.policy(verifier='owner', secrets=[])
        host = Host(either)
        assert host.create().status_code == 202
        owner = harness.Owner(host)
        assert owner.get()['launch']['purpose'] == 'rescue'
        assert owner.put('session', owner.make_session()).status_code == 200
        host.start(host.create())
        evidence = host.measure()
        assert host.send(evidence).status_code == 202
        packed = owner.pack(KEY) if secret else None
        assert owner.put('secret', packed).status_code == 200
        release = host.send(evidence).json()['release']
        assert (release and host.inject(release, evidence)) == (
            {uuid.UUID(harness.LUKS_GUID).bytes_le: KEY} if secret else None)


class RpcHost(test_rpc.Host):

    def open(self, purpose):
        session = self.transport.create_launch(
            self.identity, self.server_id, self.name, self.technology, {
                'pdh': self.platform.pdh,
                'cert_chain': self.platform.cert_chain},
            test_rpc.deadlines.Deadline(20), purpose=purpose)
        self.guest = self.platform.launch(session.dh_cert, session.session,
                                          session.policy)
        harness.record_guest(self.guest)

    def evidence(self, **measured):
        found = self.measure(**measured)
        found.pop('technology')
        return found


@pytest.mark.parametrize('purpose, line, gets', [
    ('boot', harness.COMMAND_LINE, BOOT_GETS),
    ('rescue', LINE, RESCUE_GETS)])
def test_over_rpc(keyservice, transport, purpose, line, gets):
    keyservice.policy(rescue=part(keyservice))
    host = RpcHost(keyservice, transport)
    host.open(purpose)
    evidence = host.evidence(command_line=line)
    release = host.release(evidence)
    assert host.show()['purpose'] == purpose
    assert host.inject(
        {'secret_header': harness.b64(release.header),
         'secret': harness.b64(release.secret)},
        evidence) == gets


def test_no_secret_over_rpc(keyservice, transport):
    keyservice.policy()
    host = RpcHost(keyservice, transport)
    host.open('rescue')
    assert host.release(host.evidence()) is None


def patch(keyservice, policy, **changes):
    api, path = keyservice.member(), f'/v1/policies/{policy["id"]}'
    return api.patch(path, json={'policy': changes},
                     headers={'If-Match': api.get(path).headers['ETag']})


def named(keyservice, policy):
    """Secrets of the current revision by table: of boots, of rescues."""
    with keyservice.service.database.reader() as session:
        return tuple(
            {row.guid: row.secret_id for row in session.scalars(
                sa.select(table).where(table.policy_id == policy['id']))}
            for table in (models.PolicySecret, models.PolicyRescueSecret))


class TestPolicies:

    def test_kept_replaced_and_taken_away(self, either):
        policy = either.policy(rescue=part(either))
        first = policy['rescue']
        assert first == {'kernels': None, 'initrds': None,
                         'command_lines': [LINE],
                         'secrets': first['secrets']}
        own, = (secret['secret_ref'] for secret in policy['secrets'])
        theirs, = (secret['secret_ref'] for secret in first['secrets'])
        assert named(either, policy) == (
            {harness.LUKS_GUID: own}, {GUID: theirs})
        # What is shown can be sent back; other changes leave it alone.
        assert patch(either, policy, rescue=first).json()['policy'][
            'rescue'] == first
        assert patch(either, policy, name='other').json()['policy'][
            'rescue'] == first
        # All of it is replaced.
        changed = patch(either, policy, rescue={'kernels': ['ab' * 32]})
        assert changed.json()['policy']['rescue'] == {
            'kernels': ['ab' * 32], 'initrds': None, 'command_lines': None,
            'secrets': []}
        assert named(either, policy) == ({harness.LUKS_GUID: own}, {})
        for nothing in (None, {}, {'kernels': None, 'secrets': []}):
            assert patch(either, policy, rescue=first).status_code == 200
            assert patch(either, policy, rescue=nothing).json()['policy'][
                'rescue'] is None
        assert named(either, policy) == ({harness.LUKS_GUID: own}, {})
        old = either.member().get(
            f'/v1/policies/{policy["id"]}/revisions/1').json()['revision']
        assert old['rescue'] == first
        assert patch(either, policy, rescue=first).status_code == 200
        assert either.member().delete(
            f'/v1/policies/{policy["id"]}').status_code == 204
        assert named(either, policy) == ({}, {})

    def test_same_guid_in_both(self, either):
        secrets = [{'guid': harness.LUKS_GUID,
                    'secret_ref': either.secret(KEY)}]
        either.policy(rescue=part(either, secrets=secrets))
        guid, = BOOT_GETS
        assert Host(either).gets(command_line=LINE) == {guid: KEY}
        assert Host(either, 'boot').gets() == BOOT_GETS

    def test_open_launches_go_on_under_their_revision(self, keyservice):
        policy = keyservice.policy(rescue=part(keyservice))
        host = Host(keyservice)
        host.launch()
        assert patch(keyservice, policy, rescue=None).status_code == 200
        evidence = host.measure(command_line=LINE)
        assert host.inject(host.send(evidence).json()['release'],
                           evidence) == RESCUE_GETS

    @pytest.mark.parametrize('rescue, code', [
        ({'firmwares': []}, 'request_invalid'),
        ({'firmware_boot': True}, 'request_invalid'),
        ([], 'request_invalid'), ('none', 'request_invalid'),
        ({'kernels': ['AB' * 32]}, 'request_invalid'),
        ({'initrds': ['ab' * 32] * 2}, 'request_invalid'),
        ({'command_lines': ['a\0']}, 'request_invalid'),
        ({'secrets': None}, 'request_invalid'),
        ({'secrets': [{'guid': GUID, 'secret_ref': 'x' * 36}]},
         'secret_ref_malformed'),
        ({'command_lines': []}, 'command_line_missing'),
        ({'kernels': [f'{number:064x}' for number in range(64)],
          'initrds': [f'{number:064x}' for number in range(64)],
          'command_lines': [LINE, 'other']}, 'policy_too_broad'),
    ])
    def test_refused(self, keyservice, rescue, code):
        error(keyservice.member().post('/v1/policies', json={
            'policy': keyservice.policy_body(rescue=rescue)}), 400, code)

    def test_a_guid_once(self, keyservice):
        rescue = part(keyservice)
        rescue['secrets'] *= 2
        error(keyservice.member().post('/v1/policies', json={
            'policy': keyservice.policy_body(rescue=rescue)}),
            400, 'secret_guid_repeated')

    def test_owner_who_verifies_names_no_secret(self, keyservice):
        body = keyservice.policy_body(verifier='owner', secrets=[])
        error(keyservice.member().post('/v1/policies', json={
            'policy': body | {'rescue': part(keyservice)}}),
            400, 'owner_has_secrets')
        assert keyservice.member().post('/v1/policies', json={
            'policy': body | {'rescue': part(keyservice, secrets=[])}
        }).status_code == 201

    def test_kernels_of_rescues_need_a_firmware_that_measures_them(
            self, keyservice):
        body = keyservice.policy_body(
            firmwares=[keyservice.upload(
                platforms.firmware(hash_table=None))],
            firmware_boot=True, kernels=[], initrds=[], command_lines=[])
        rescue = part(keyservice, kernels=['ab' * 32])
        error(keyservice.member().post('/v1/policies', json={
            'policy': body | {'rescue': rescue}}), 400, 'firmware_unusable')

    def test_its_secrets_are_the_callers_to_read(self, keyservice):
        foreign = part(keyservice, project='q')
        error(keyservice.member().post('/v1/policies', json={
            'policy': keyservice.policy_body(rescue=foreign)}),
            403, 'secret_forbidden')
        policy = keyservice.policy()
        error(patch(keyservice, policy, rescue=foreign), 403,
              'secret_forbidden')

    def test_restoring_proves_it_anew(self, keyservice):
        policy = keyservice.policy(secrets=[], rescue=part(keyservice))
        path = f'/v1/policies/{policy["id"]}/revocation'
        assert keyservice.member().put(path).status_code == 200
        colleague = keyservice.api('admin', user='colleague')
        error(colleague.delete(path), 403, 'secret_forbidden')
        assert keyservice.member().delete(path).status_code == 200

    def test_weaker_part_of_another_policy_is_warned_of(self, keyservice):
        policy = keyservice.policy()
        shared = policy['secrets']
        other = keyservice.policy(
            name='other', is_default=False, secrets=[],
            rescue={'kernels': ['ab' * 32], 'secrets': shared})
        path = f'/v1/policies/{policy["id"]}'
        told = [text for text in keyservice.member().get(
            path).json()['policy']['warnings'] if 'named by' in text]
        assert len(told) == 1
        assert other['id'] in told[0]
        assert 'which guards less: it allows more kernels.' in told[0]
        told = [text for text in other['warnings'] if 'named by' in text]
        assert 'This policy guards less than that one' in told[0]

    def test_a_release_from_before_reads_what_says_nothing(self, keyservice):
        """And it cannot read, and so cannot widen, what says something."""
        plain = keyservice.policy(name='plain', is_default=False)
        own = keyservice.policy(rescue=part(keyservice))
        known = {field.name for field in dataclasses.fields(
            policies.Content)} - {'rescue'}
        with keyservice.service.database.reader() as session:
            bodies = {row.policy_id: row.body for row in session.scalars(
                sa.select(models.PolicyRevision))}
        assert set(json.loads(
            bodies[plain['id']])) == known
        assert set(json.loads(
            bodies[own['id']])) == known | {'rescue'}


def test_other_project(keyservice):
    """A rescue gets what its own project's policy says."""
    keyservice.policy(rescue=part(keyservice))
    keyservice.policy(project='q')
    host = Host(keyservice, project='q')
    assert host.gets() is None
    error(keyservice.member('p').get(f'/v1/launches/{host.id}'), 404,
          'launch_not_found')


def test_only_compute_says_what_a_launch_is_for(keyservice):
    keyservice.policy()
    host = Host(keyservice)
    host.api = harness.Api(keyservice.url, keyservice.cloud.token(
        fakes.Identity('user-of-p', 'p', ('member', 'admin'))))
    error(host.create(), 403, 'forbidden')
