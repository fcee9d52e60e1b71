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

"""Firmware images of a project."""

import hashlib
import json

import pytest
import sqlalchemy as sa

from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice.objects import firmwares
from tests.functional.keyservice.harness import error
from tests.unit.launch import platforms
from tests import vectors

OCTETS = {'Content-Type': 'application/octet-stream'}


def put(api, image, sha256=None, headers=OCTETS):
    sha256 = sha256 or hashlib.sha256(image).hexdigest()
    return api.put(f'/v1/firmwares/{sha256}', data=image, headers=headers)


def test_upload_and_show(either):
    image, api = platforms.firmware(), either.member()
    response = put(api, image)
    assert response.status_code == 201
    firmware = response.json()['firmware']
    assert firmware['sha256'] == hashlib.sha256(image).hexdigest()
    assert firmware['size'] == len(image)
    assert firmware['secret_area'] == {'base': 0x810000, 'size': 0xC00}
    assert firmware['hash_table'] == {'base': 0x810C00, 'size': 0x400}
    assert firmware['project_id'] == 'p'
    again = put(api, image)
    assert again.status_code == 200 and again.json() == response.json()
    shown = either.api('reader').get(firmware['links'][0]['href'])
    assert shown.json() == response.json()


def test_image_of_several_parts(either):
    either.service.conf.set_override('max_firmware_size', 1 << 24,
                                     group='api')
    image = platforms.firmware(size=3 * (1 << 20) + 4096)
    sha256 = either.upload(image)
    with either.service.database.reader() as session:
        found = firmwares.get(session, 'p', sha256)
        assert firmwares.data(session, found) == image


def test_no_hash_table(keyservice):
    image = platforms.firmware(hash_table=None)
    answer = put(keyservice.member(), image)
    assert answer.json()['firmware']['hash_table'] is None


@pytest.mark.parametrize('image', [
    platforms.firmware(secret=None), platforms.firmware(secret=(0, 0)),
    platforms.firmware(secret=(0x810000, 0)), bytes(8192)])
def test_without_a_real_secret_area(keyservice, image):
    detail = error(put(keyservice.member(), image), 400,
                   'firmware_unusable')
    assert 'AmdSev' in detail
    assert keyservice.member().get(
        '/v1/firmwares').json()['firmwares'] == []


def test_debians_stock_ovmf(keyservice):
    tail = vectors.read('debian-ovmf/OVMF.fd.last4096')
    error(put(keyservice.member(), bytes(4096) + tail), 400,
          'firmware_unusable')


@pytest.mark.parametrize('image', [
    b'', b'x', bytes(4095), platforms.with_table(b'', length=40000)])
def test_malformed(keyservice, image):
    error(put(keyservice.member(), image), 400, 'firmware_malformed')


def test_other_sha256(keyservice):
    image = platforms.firmware()
    error(put(keyservice.member(), image, '0' * 64), 400,
          'firmware_sha256_mismatch')
    for name in ('x', '0' * 63, hashlib.sha256(image).hexdigest().upper()):
        error(put(keyservice.member(), image, name), 404, 'not_found')


def test_too_large(keyservice):
    error(put(keyservice.member(), bytes(65536 + 4096)), 413,
          'body_too_large')


def test_media_type_and_length(keyservice):
    image, api = platforms.firmware(), keyservice.member()
    error(put(api, image, headers={'Content-Type': 'application/json'}),
          415, 'media_type_unsupported')
    error(put(api, image, headers={}), 415, 'media_type_unsupported')
    sha256 = hashlib.sha256(image).hexdigest()
    error(api.put(f'/v1/firmwares/{sha256}', data=iter([image]),
                  headers=OCTETS), 411, 'length_required')


def test_delete(keyservice):
    policy = keyservice.policy()
    api, path = keyservice.member(), '/v1/firmwares/' + policy['firmwares'][0]
    error(api.delete(path), 409, 'firmware_in_use')
    api.delete(f'/v1/policies/{policy["id"]}')
    assert api.delete(path).status_code == 204
    error(api.get(path), 404, 'firmware_not_found')
    error(api.delete(path), 404, 'firmware_not_found')


def test_delete_in_use(either):
    policy = either.policy()
    error(either.member().delete('/v1/firmwares/' + policy['firmwares'][0]),
          409, 'firmware_in_use')


def test_delete_names_the_upload(keyservice):
    api, path = keyservice.member(), '/v1/firmwares/' + keyservice.upload()
    first = api.get(path).headers['ETag']
    assert api.delete(path, headers={'If-Match': first}).status_code == 204
    keyservice.upload()
    error(api.delete(path, headers={'If-Match': first}), 412,
          'firmware_changed')
    assert api.get(path).status_code == 200


def test_writes_are_recorded(either):
    image, api = platforms.firmware(), either.member()
    sha256 = hashlib.sha256(image).hexdigest()
    for _ in range(2):
        put(api, image)
    put(api, image + b'x', sha256)
    for _ in range(2):
        api.delete(f'/v1/firmwares/{sha256}')
    with either.service.database.reader() as session:
        found = [(record.event, record.actor, json.loads(record.details))
                 for record in session.scalars(
                     sa.select(models.AuditRecord)
                     .where(models.AuditRecord.subject == sha256)
                     .order_by(models.AuditRecord.sequence))]
    assert found == [
        ('firmware.uploaded', 'user-of-p', {'size': len(image)}),
        ('firmware.deleted', 'user-of-p', {})]


class TestQuota:

    @pytest.fixture
    def quota(self, keyservice):
        def override(**values):
            for name, value in values.items():
                keyservice.conf.set_override(name, value, group='quotas')
        yield override
        for name in ('firmwares', 'firmware_bytes'):
            keyservice.conf.clear_override(name, group='quotas')

    def test_number(self, keyservice, quota):
        quota(firmwares=2)
        images = [platforms.firmware(size=4096 * n) for n in (2, 3, 4)]
        for image in images[:2]:
            assert put(keyservice.member(), image).status_code == 201
        detail = error(put(keyservice.member(), images[2]), 403,
                       'quota_exceeded')
        assert 'would be 3 firmwares' in detail and 'quota is 2' in detail
        # One that is there is no further one; projects have their own.
        assert put(keyservice.member(), images[1]).status_code == 200
        assert put(keyservice.member('q'), images[2]).status_code == 201
        keyservice.member().delete(
            '/v1/firmwares/' + hashlib.sha256(images[0]).hexdigest())
        assert put(keyservice.member(), images[2]).status_code == 201

    def test_bytes(self, keyservice, quota):
        quota(firmware_bytes=20480)
        assert put(keyservice.member(),
                   platforms.firmware(size=8192)).status_code == 201
        detail = error(put(keyservice.member(),
                           platforms.firmware(size=16384)), 403,
                       'quota_exceeded')
        assert 'would be 24576 bytes of firmware' in detail
        assert put(keyservice.member(),
                   platforms.firmware(size=12288)).status_code == 201
        quota(firmware_bytes=-1)
        assert put(keyservice.member(),
                   platforms.firmware(size=16384)).status_code == 201


def test_other_project(keyservice):
    path = '/v1/firmwares/' + keyservice.upload()
    other = keyservice.member('q')
    error(other.get(path), 404, 'firmware_not_found')
    error(other.delete(path), 404, 'firmware_not_found')
    assert other.get('/v1/firmwares').json()['firmwares'] == []
    # Who has the image may store it as well.
    assert put(other, platforms.firmware()).status_code == 201


def test_roles(keyservice):
    path = '/v1/firmwares/' + keyservice.upload()
    for api in (keyservice.api('reader'), keyservice.compute()):
        error(put(api, platforms.firmware()), 403, 'forbidden')
        error(api.delete(path), 403, 'forbidden')
    error(keyservice.compute().get(path), 403, 'forbidden')
    error(keyservice.compute().get('/v1/firmwares'), 403, 'forbidden')


def test_pages(either):
    images = [platforms.firmware(size=4096 * n) for n in (2, 3, 4)]
    names = [either.upload(image) for image in images]
    api, found, path = either.member(), [], '/v1/firmwares?limit=2'
    while path:
        answer = api.get(path).json()
        found += [firmware['sha256'] for firmware in answer['firmwares']]
        links = answer['firmwares_links']
        path = links[0]['href'] if links else None
    assert found == names
    error(api.get(f'/v1/firmwares?marker={"0" * 64}'), 400,
          'marker_not_found')


class TestParsed:

    @pytest.fixture
    def reads(self, monkeypatch):
        """The SHA-256 of each image whose bytes were read, in order."""
        found, data = [], firmwares.data

        def read(session, row):
            found.append(row.sha256)
            return data(session, row)

        monkeypatch.setattr(firmwares, 'data', read)
        return found

    @staticmethod
    def load(keyservice, parsed, names, project='p'):
        with keyservice.service.database.reader() as session:
            return parsed.load(session, project, names)

    def test_bytes_are_read_once(self, either, reads):
        names = [either.upload(platforms.firmware(size=4096 * n))
                 for n in (3, 2)]
        parsed = firmwares.Parsed()
        for _ in range(2):
            found = self.load(either, parsed, [*names, '0' * 64])
            assert list(found) == names
            assert [image.sha256.hex() for image in found.values()] == names
            assert [image.size for image in found.values()] == [12288, 8192]
        assert sorted(reads) == sorted(names)
        assert self.load(either, parsed, []) == {}

    def test_those_used_last_are_kept(self, keyservice, reads):
        one, two, three = [
            keyservice.upload(platforms.firmware(size=4096 * n))
            for n in (2, 3, 4)]
        parsed = firmwares.Parsed(size=2)
        for name in (one, two, one, three, one, two):
            self.load(keyservice, parsed, [name])
        assert reads == [one, two, three, two]

    def test_what_is_kept_is_not_for_other_projects(self, keyservice, reads):
        name = keyservice.upload()
        parsed = firmwares.Parsed()
        assert self.load(keyservice, parsed, [name])
        assert self.load(keyservice, parsed, [name], 'q') == {}

    def test_what_is_kept_is_not_for_who_deleted_it(self, keyservice, reads):
        name = keyservice.upload()
        parsed = firmwares.Parsed()
        assert self.load(keyservice, parsed, [name])
        assert keyservice.member().delete(
            f'/v1/firmwares/{name}').status_code == 204
        assert self.load(keyservice, parsed, [name]) == {}
        assert reads == [name]
