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

import dataclasses
import hashlib
import json
import string

import hypothesis
from hypothesis import strategies as st
import pytest

from nova_sev_attest.keyservice.audit import chain

TEXT = st.text(st.characters(exclude_categories=['Cs']), max_size=40)
NAMES = st.text(string.ascii_lowercase + '_', min_size=1, max_size=12)
SCALARS = (st.none() | st.booleans() | TEXT
           | st.integers(-2 ** 53 + 1, 2 ** 53 - 1))
DETAILS = st.dictionaries(NAMES, st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        NAMES, inner, max_size=3), max_leaves=6), max_size=5)
RECORDS = st.builds(
    chain.Record, project_id=TEXT, sequence=st.integers(1, 2 ** 53 - 1),
    at=st.datetimes().map(lambda at: at.strftime('%Y').zfill(4)
                          + at.strftime('-%m-%dT%H:%M:%S.%fZ')),
    event=TEXT, subject=TEXT, actor=st.none() | TEXT,
    request_id=st.none() | TEXT, details=DETAILS.map(chain.canonical))
HASHES = st.binary(min_size=32, max_size=32)

RECORD = chain.Record(
    project_id='p', sequence=1, at='2026-11-24T03:43:00.000000Z',
    event='launch.released', subject='l', actor='host', request_id=None,
    details='{"count":2}')
POINT = chain.Point('p', 7, '2026-11-24T03:43:00.000000Z', b'\x11' * 32)


def same(one, other):
    """Whether two JSON values are the same; 1 and true are not."""
    return json.dumps(one, sort_keys=True) == json.dumps(other,
                                                         sort_keys=True)


class TestCanonical:
    @pytest.mark.parametrize('value, text', [
        # RFC 8785, 3.2.2.2 and 3.2.3, as far as there are no fractions.
        ({'string': '\u20ac$\u000f\nA\'B"\\\\"/'},
         '{"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'),
        ({'b': 1, 'a': [True, False, None]}, '{"a":[true,false,null],"b":1}'),
        ({'text': '\u2028\x7f\b\t\f\r'}, '{"text":"\u2028\x7f\\b\\t\\f\\r"}'),
    ])
    def test_form(self, value, text):
        assert chain.canonical(value) == text

    @hypothesis.given(DETAILS)
    def test_says_all(self, value):
        assert same(json.loads(chain.canonical(value)), value)

    @hypothesis.given(DETAILS, DETAILS)
    def test_two_values_have_two_forms(self, one, other):
        assert (chain.canonical(one) == chain.canonical(other)) == same(
            one, other)

    @pytest.mark.parametrize('value', [
        1.0, float('nan'), {'a': 0.5}, {'a': b'bytes'}, {1: 'a'},
        {'\u00e9': 1}, {'a': 2 ** 53}, [-2 ** 53], {'a': '\ud800'},
        {'a': {'b': {'c': {'d': {'e': {'f': {'g': {'h': {}}}}}}}}}])
    def test_what_has_none(self, value):
        with pytest.raises(chain.ChainError):
            chain.canonical(value)


class TestRecord:
    def test_hash(self):
        """By hand, from the module's docstring."""
        form = ('{"actor":"host","at":"2026-11-24T03:43:00.000000Z",'
                '"details":{"count":2},"event":"launch.released",'
                '"project_id":"p","request_id":null,"sequence":1,'
                '"subject":"l"}')
        assert RECORD.digest(bytes(32)) == hashlib.sha256(
            b'nova-sev-attest audit record 1\x00' + bytes(32)
            + form.encode()).digest()
        assert RECORD.chained(bytes(32)).hash == RECORD.digest(bytes(32))

    @hypothesis.given(RECORDS, RECORDS, HASHES)
    def test_two_records_have_two_hashes(self, one, other, previous):
        assert (one.digest(previous) == other.digest(previous)) == (
            one == other)

    @hypothesis.given(RECORDS, HASHES, HASHES)
    def test_the_hash_covers_the_record_before(self, record, one, other):
        assert (record.digest(one) == record.digest(other)) == (one == other)

    @hypothesis.given(RECORDS, st.sampled_from(
        [field.name for field in dataclasses.fields(chain.Record)
         if field.name != 'hash']), RECORDS, HASHES)
    def test_the_hash_covers_each_column(self, record, name, other, previous):
        changed = dataclasses.replace(record,
                                      **{name: getattr(other, name)})
        assert (changed.digest(previous) == record.digest(previous)) == (
            changed == record)

    @pytest.mark.parametrize('changes', [
        {'sequence': 0}, {'sequence': True}, {'sequence': '1'},
        {'sequence': 2 ** 53}, {'subject': b'l'}, {'actor': 1},
        {'request_id': 1.5}, {'at': '2026-11-24T03:43:00Z'}, {'at': None},
        {'at': '2026-11-24T03:43:00.000000Z\n'}, {'details': '[]'},
        {'details': '{"count": 2}'}, {'details': '{"b":1,"a":2}'},
        {'details': '{"a":1,"a":1}'}, {'details': '{"a":1.0}'},
        {'details': '{"a":NaN}'}, {'details': '{"a":-0}'},
        {'details': '{"a":"\\u0041"}'}, {'details': '{"a":"\\ud800"}'},
        {'details': '{'}, {'details': ''}, {'details': None},
        {'details': '{"a":' + '[' * 5000 + ']' * 5000 + '}'},
        {'details': '{"a":' + '[' * 900 + ']' * 900 + '}'},
        {'details': '{"a":' + '9' * 5000 + '}'}])
    def test_what_no_record_can_have(self, changes):
        with pytest.raises(chain.ChainError):
            dataclasses.replace(RECORD, **changes).digest(chain.GENESIS)


class TestPoint:
    def test_text(self):
        assert str(POINT) == ('audit-head:1:p:7:' + '11' * 32
                              + ':20261124T034300.000000Z:-:-')

    @hypothesis.given(
        st.text(st.characters(codec='ascii'), min_size=1, max_size=64),
        st.integers(1, 10 ** 18 - 1), HASHES,
        st.none() | st.tuples(st.from_regex(r'[0-9]{4,9}-[0-9a-f]{8}',
                                            fullmatch=True),
                              st.binary(min_size=64, max_size=64)),
        st.sampled_from(['', 'head ', '{"head":"', '(']),
        st.sampled_from(['', ' and so on', '"}', ').']))
    def test_is_found_again(self, project_id, sequence, digest, signed,
                            before, behind):
        key_id, signature = signed or (None, None)
        point = chain.Point(project_id, sequence, POINT.at, digest, key_id,
                            signature and chain.encode_signature(signature))
        point.check()
        match, = chain.POINT.finditer(f'{before}{point}{behind}')
        assert chain.Point.from_match(match) == point
        if signed:
            assert point.signature_bytes == signature

    @hypothesis.given(
        *[st.builds(chain.Point, project_id=TEXT,
                    sequence=st.integers(1, 9), at=st.just(POINT.at),
                    hash=HASHES, key_id=st.sampled_from(
                        [None, '0001-00000000', '0002-00000000']))] * 2)
    def test_two_points_have_two_messages(self, one, other):
        assert (one.message() == other.message()) == (one == other)

    @pytest.mark.parametrize('changes', [
        {'hash': bytes(31)}, {'hash': 'x' * 32}, {'at': ''}, {'at': None},
        {'sequence': 0}, {'sequence': '7'}, {'key_id': '0001-00000000'},
        {'key_id': b'0001-00000000'}, {'signature': 'A' * 86},
        {'key_id': 'caf\u00e9', 'signature': 'A' * 86}, {'project_id': 5},
        {'project_id': ''}, {'key_id': '0001-00000000', 'signature': 'A' * 85},
        {'key_id': '0001-00000000', 'signature': 1}])
    def test_what_no_point_can_have(self, changes):
        with pytest.raises(chain.ChainError):
            dataclasses.replace(POINT, **changes).check()

    @pytest.mark.parametrize('signature', [None, 'A' * 85 + 'B', 'A' * 4])
    def test_signatures_have_one_spelling(self, signature):
        point = dataclasses.replace(POINT, key_id='0001-00000000',
                                    signature=signature)
        with pytest.raises(chain.ChainError):
            point.signature_bytes

    @pytest.mark.parametrize('project', ['%70', '%FF', '%e2%82%ac', '%'])
    def test_other_spellings_of_a_project(self, project):
        match = chain.POINT.fullmatch(str(POINT).replace(':p:',
                                                         f':{project}:'))
        with pytest.raises(chain.ChainError):
            chain.Point.from_match(match)
