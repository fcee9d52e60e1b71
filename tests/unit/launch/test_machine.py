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

import copy
import functools
import inspect
import pickle
import uuid

from hypothesis import stateful
from hypothesis import strategies
import pytest

from nova_sev_attest.launch import digest
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import kernel_hashes
from nova_sev_attest.launch import machine
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import secret
from nova_sev_attest.launch import session
from tests.unit.launch import platforms

POLICY = launch_policy.LaunchPolicy.for_technology('amd-sev')
DATA = platforms.firmware()
IMAGE = firmware.Firmware.parse(DATA)
HASHES = kernel_hashes.KernelHashes.from_bytes(b'kernel', b'initrd', 'quiet')
DIGEST = digest.launch_digest(IMAGE, HASHES)
NAMED = {'firmware_sha256': IMAGE.sha256.hex(), 'kernel_sha256': 'aa'}
ALLOWED = {DIGEST: NAMED}
SECRETS = {secret.LUKS_PASSPHRASE_GUID: b'correct horse'}


@functools.lru_cache(maxsize=None)
def verified_platform():
    return platforms.platform().parse().verify([platforms.anchor()])


def begin(policy=POLICY):
    return machine.begin(verified_platform(), uuid.uuid4(), policy)


def start(issued, word=0x3b):
    """The host launches the guest."""
    return platforms.platform().launch(issued.godh_certificate,
                                       issued.session, word)


def evidence(guest, *memory):
    return measurement.Evidence.parse(
        guest.measure(*(memory or (DATA, HASHES.table()))), 1, 51, 3)


def bad_evidence():
    return measurement.Evidence.parse(bytes(48), 1, 51, 3)


@pytest.fixture
def issued():
    return begin()


@pytest.fixture
def guest(issued):
    return start(issued)


@pytest.fixture
def verified(issued, guest):
    return issued.verify(evidence(guest), ALLOWED)


def test_whole_launch(issued, guest):
    given = evidence(guest)
    verified = issued.verify(given, {bytes(32): {}, DIGEST: NAMED})
    assert verified.digest == DIGEST
    released = verified.release(SECRETS, IMAGE.require_secret_area())
    assert released.gpa == 0x810000
    table = guest.inject(released.packet.header, released.packet.data,
                         given.measure)
    assert platforms.read_secret_table(table) == [
        (secret.LUKS_PASSPHRASE_GUID.bytes_le, b'correct horse')]
    assert (issued.launch_id == verified.launch_id == released.launch_id)
    assert issued.platform == verified.platform == released.platform
    assert released.platform.anchor_name == 'emulated'


def test_verdict(verified):
    assert verified.claims == {
        **NAMED, 'platform_root': 'emulated', 'emulated': True,
        'cek_fingerprint': verified_platform().cek_fingerprint.hex(),
        'api_version': '1.51', 'build_id': 3, 'policy_word': 0x3b,
        'launch_digest': DIGEST.hex()}
    assert verified.release().claims == verified.claims


def test_named_claims_do_not_hide_the_platforms(issued, guest):
    verified = issued.verify(
        evidence(guest), {DIGEST: {'emulated': False, 'policy_word': 0}})
    assert verified.claims['emulated'] is True
    assert verified.claims['policy_word'] == 0x3b


def test_launch_without_a_secret(verified):
    released = verified.release()
    assert released.packet is None and released.gpa is None


class TestRefused:

    def refused(self, issued, given, allowed=ALLOWED):
        with pytest.raises(errors.MeasurementMismatch):
            issued.verify(given, allowed)
        with pytest.raises(errors.StateError, match='taken before'):
            issued.verify(given, allowed)

    def test_nothing_allowed(self, issued, guest):
        self.refused(issued, evidence(guest), {})

    def test_changed_initrd(self, issued, guest):
        other = kernel_hashes.KernelHashes.from_bytes(b'kernel', b'initrD',
                                                      'quiet')
        self.refused(issued, evidence(guest, DATA, other.table()))

    def test_replay_of_an_earlier_launch(self, issued):
        self.refused(issued, evidence(start(begin())))

    def test_right_evidence_after_wrong_evidence(self, issued, guest):
        with pytest.raises(errors.MeasurementMismatch):
            issued.verify(bad_evidence(), ALLOWED)
        with pytest.raises(errors.StateError):
            issued.verify(evidence(guest), ALLOWED)

    def test_old_platform(self):
        policy = launch_policy.LaunchPolicy.for_technology('amd-sev', (1, 52))
        issued = begin(policy)
        given = evidence(start(issued, policy.word))
        with pytest.raises(errors.ApiVersionTooOld):
            issued.verify(given, ALLOWED)
        with pytest.raises(errors.StateError):
            issued.verify(given, ALLOWED)


class TestRestore:

    def restore(self, issued):
        keys = issued.keys
        return machine.SessionIssued.restore(
            issued.launch_id, issued.platform, session.Session(
                issued.godh_certificate, issued.session,
                session.TransportKeys(keys.tek, keys.tik),
                launch_policy.LaunchPolicy.parse(issued.policy.word)))

    def test_goes_on(self, issued, guest):
        restored = self.restore(issued)
        assert restored.policy == issued.policy
        assert restored.session == issued.session
        assert restored.godh_certificate == issued.godh_certificate
        given = evidence(guest)
        released = restored.verify(given, ALLOWED).release(
            SECRETS, IMAGE.require_secret_area())
        assert released.claims['platform_root'] == 'emulated'
        assert guest.inject(released.packet.header, released.packet.data,
                            given.measure)

    def test_keys_cannot_be_had_after_verification(self, issued, guest):
        issued.verify(evidence(guest), ALLOWED)
        with pytest.raises(errors.StateError, match='moved on'):
            issued.keys


class TestExplain:

    CANDIDATES = {bytes(32): 'nothing', DIGEST: 'as planned'}

    def test_not_before_the_evidence(self, issued):
        with pytest.raises(errors.StateError, match='explain evidence'):
            issued.explain(self.CANDIDATES)

    def test_not_after_success(self, issued, guest):
        issued.verify(evidence(guest), ALLOWED)
        with pytest.raises(errors.StateError, match='explain evidence'):
            issued.explain(self.CANDIDATES)

    def test_confirmed_claim(self, issued, guest):
        changed = kernel_hashes.KernelHashes.from_bytes(b'kernel', b'initrD',
                                                        'quiet')
        given = evidence(guest, DATA, changed.table())
        with pytest.raises(errors.MeasurementMismatch):
            issued.verify(given, ALLOWED)
        claimed = digest.launch_digest(IMAGE, changed)
        assert issued.explain({DIGEST: 'no', claimed: 'initrd'}) == 'initrd'
        assert issued.explain(self.CANDIDATES) is None
        assert issued.explain({}) is None
        with pytest.raises(errors.StateError):
            issued.verify(given, {claimed: {}})

    def test_another_policy_word(self, issued, guest):
        guest.policy_word = 0x3a
        with pytest.raises(errors.MeasurementMismatch):
            issued.verify(evidence(guest), ALLOWED)
        assert issued.explain(self.CANDIDATES) is None
        assert issued.explain(
            self.CANDIDATES,
            policy=launch_policy.LaunchPolicy.parse(0x3a)) == 'as planned'


class TestRelease:

    def test_once(self, verified):
        area = IMAGE.require_secret_area()
        verified.release(SECRETS, area)
        for secrets in (SECRETS, None):
            with pytest.raises(errors.StateError, match='taken before'):
                verified.release(secrets, area)

    def test_secret_larger_than_the_area(self, verified):
        area = firmware.Area(0x810000, 0xC00)
        with pytest.raises(errors.SecretTooLarge) as exc:
            verified.release({secret.LUKS_PASSPHRASE_GUID: bytes(3033)}, area)
        assert (exc.value.size, exc.value.limit) == (3088, 3072)
        # The owner may mend the policy: the launch is still good.
        packet = verified.release(
            {secret.LUKS_PASSPHRASE_GUID: bytes(3032)}, area).packet
        assert len(packet.data) == 3072

    def test_no_area(self, verified):
        with pytest.raises(errors.StateError,
                           match='^secrets need the area that the firmware '
                                 'keeps for them$'):
            verified.release(SECRETS)

    def test_malformed_secret(self, verified):
        with pytest.raises(errors.SecretMalformed):
            verified.release({secret.LUKS_PASSPHRASE_GUID: b''},
                             IMAGE.require_secret_area())
        assert verified.release().packet is None

    def test_vectors_of_two_launches_differ(self):
        headers = set()
        for _ in range(2):
            issued = begin()
            headers.add(issued.verify(
                evidence(start(issued)), ALLOWED).release(
                    SECRETS, IMAGE.require_secret_area()).packet.header[4:20])
        assert len(headers) == 2


class TestMisuse:

    def test_states_are_not_made_by_hand(self, issued):
        made = session.create_session(verified_platform(), POLICY)
        with pytest.raises(errors.StateError, match='begin'):
            machine.SessionIssued(uuid.uuid4(), issued.platform, made)
        with pytest.raises(errors.StateError, match='Verified is reached'):
            machine.Verified(issued, made.keys, bad_evidence(), DIGEST, {})
        with pytest.raises(errors.StateError, match='Released is reached'):
            machine.Released(issued, None, None)

    def test_a_packet_needs_a_verified_launch(self, issued):
        assert not hasattr(issued, 'release')
        assert not hasattr(machine.Released, 'release')
        makers = [name for name, value in inspect.getmembers(secret)
                  if not name.startswith('_') and inspect.isfunction(value)]
        assert makers == ['build_secret_table']

    def test_launch_is_named_by_a_uuid(self):
        with pytest.raises(errors.StateError, match='not by a str'):
            machine.begin(verified_platform(), str(uuid.uuid4()), POLICY)

    def test_unverified_platform(self):
        with pytest.raises(AttributeError):
            machine.begin(platforms.platform().parse(), uuid.uuid4(), POLICY)

    @pytest.mark.parametrize('action', (copy.copy, copy.deepcopy,
                                        pickle.dumps))
    def test_states_are_not_copied(self, issued, verified, action):
        for state in (issued, verified, verified.release()):
            with pytest.raises(errors.StateError,
                               match='^a launch is not to be pickled or '
                                     'copied$'):
                action(state)

    def test_states_show_no_keys(self, issued, guest):
        assert repr(issued) == f'<SessionIssued {issued.launch_id}>'
        texts = [repr(issued), repr(issued.__dict__)]
        verified = issued.verify(evidence(guest), ALLOWED)
        texts += [repr(verified), repr(verified.__dict__)]
        texts += [repr(verified.release(SECRETS,
                                        IMAGE.require_secret_area()))]
        for text in texts:
            for key in (guest.tek, guest.tik):
                assert repr(key) not in text and key.hex() not in text


class AnyOrder(stateful.RuleBasedStateMachine):
    """Steps in any order: a packet only after good evidence came first."""

    def __init__(self):
        super().__init__()
        self.issued = begin()
        self.guest = start(self.issued)
        self.tried = False
        self.verified = None
        self.released = False

    @stateful.rule(good=strategies.booleans())
    def verify(self, good):
        given = evidence(self.guest) if good else bad_evidence()
        if self.tried:
            with pytest.raises(errors.StateError):
                self.issued.verify(given, ALLOWED)
        elif good:
            self.verified = self.issued.verify(given, ALLOWED)
        else:
            with pytest.raises(errors.MeasurementMismatch):
                self.issued.verify(given, ALLOWED)
        self.tried = True

    @stateful.rule()
    def explain(self):
        if self.tried and self.verified is None:
            assert self.issued.explain({DIGEST: 1}) is None
        else:
            with pytest.raises(errors.StateError):
                self.issued.explain({DIGEST: 1})

    @stateful.rule()
    def take_keys(self):
        if self.tried:
            with pytest.raises(errors.StateError):
                self.issued.keys
        else:
            assert self.issued.keys.tik == self.guest.tik

    @stateful.precondition(lambda self: self.verified is not None)
    @stateful.rule()
    def release(self):
        area = IMAGE.require_secret_area()
        if self.released:
            with pytest.raises(errors.StateError):
                self.verified.release(SECRETS, area)
        else:
            assert self.verified.release(SECRETS, area).packet is not None
        self.released = True


TestAnyOrder = AnyOrder.TestCase
