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

import base64
import uuid

import hypothesis
from hypothesis import strategies
import pytest

from nova_sev_attest.launch import errors
from nova_sev_attest.launch import secret
from nova_sev_attest.launch import session
from tests.unit.launch import platforms
from tests import vectors

SEVCTL = 'virtee-sevctl/tests/data/secret'
GUID = uuid.UUID('23058844-597b-42fb-8259-a0f5d9d495af')


class TestSevctl:
    """Packets that virtee's sevctl makes."""

    @pytest.fixture
    def published(self):
        return vectors.expected()['launch_secret']

    @pytest.mark.parametrize('index', (0, 1))
    def test_packet(self, published, index):
        case = published['cases'][index]
        table = secret.build_secret_table({
            uuid.UUID(guid): vectors.read(f'{SEVCTL}/{name}')
            for guid, name in case['secrets'].items()})
        packet = secret._encrypt(
            session.TransportKeys(vectors.read(f'{SEVCTL}/tek1.bin'),
                                  vectors.read(f'{SEVCTL}/tik1.bin')),
            base64.b64decode(published['measure_blob_b64'])[:32], table,
            base64.b64decode(published['iv_b64']))
        assert packet.header == base64.b64decode(case['header_b64'])
        assert packet.data == base64.b64decode(case['payload_b64'])

    def test_size_rule(self):
        first, second = (
            secret.build_secret_table({GUID: vectors.read(
                f'{SEVCTL}/secret{number}.txt')}) for number in (3, 4))
        assert len(first) == len(second) == secret.MAX_SIZE
        assert first != second


@pytest.mark.parametrize('index', (0, 1))
def test_packet_of_a_whole_launch(index):
    vector = vectors.expected('session-ecdh/EXPECTED.json')['vectors'][index]
    folder = f'session-ecdh/{vector["name"]}'
    header = vectors.read(f'{folder}/secret_header.bin')
    packet = secret._encrypt(
        session.TransportKeys(bytes.fromhex(vector['tek']),
                              bytes.fromhex(vector['tik'])),
        bytes.fromhex(vector['measure']),
        vectors.read(f'{folder}/secret_plain.bin'), header[4:20])
    assert packet == secret.LaunchSecret(
        header, vectors.read(f'{folder}/secret_ciphertext.bin'))


class TestTable:

    @hypothesis.given(strategies.dictionaries(
        strategies.uuids(), strategies.binary(min_size=1, max_size=200),
        min_size=1, max_size=8))
    def test_guest_reads_it(self, secrets):
        table = secret.build_secret_table(secrets)
        assert len(table) % 16 == 0
        assert platforms.read_secret_table(table) == [
            (guid.bytes_le, data) for guid, data in secrets.items()]

    @pytest.mark.parametrize(('size', 'padded'), [
        (1, 48), (8, 48), (9, 64), (24, 64), (16344, 16384)])
    def test_padding(self, size, padded):
        assert len(secret.build_secret_table({GUID: bytes(size)})) == padded

    def test_too_large_for_the_platform(self):
        with pytest.raises(errors.SecretTooLarge,
                           match='needs 16400 .* room for 16384') as exc:
            secret.build_secret_table({GUID: bytes(16345)})
        assert (exc.value.size, exc.value.limit) == (16400, 16384)

    def test_nothing(self):
        with pytest.raises(errors.SecretMalformed,
                           match='^a secret table needs a secret$'):
            secret.build_secret_table({})

    def test_empty_secret(self):
        with pytest.raises(errors.SecretMalformed, match=f'{GUID} is empty'):
            secret.build_secret_table({GUID: b''})

    def test_guid_as_text(self):
        with pytest.raises(errors.SecretMalformed, match='is a str'):
            secret.build_secret_table({str(GUID): b'x'})


def test_largest_packet():
    assert len(secret.LaunchSecret(bytes(52), bytes(16384)).data) == 16384


@pytest.mark.parametrize(('header', 'data'), [
    (51, 16), (53, 16), (52, 0), (52, 17), (52, 16400)])
def test_shape_of_a_packet(header, data):
    with pytest.raises(errors.SecretMalformed, match='header of 52 bytes'):
        secret.LaunchSecret(bytes(header), bytes(data))
