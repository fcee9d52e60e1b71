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

"""Leaks, each of which has to be found: run by test_hygiene only."""

import base64
import json
import logging

from nova_sev_attest.keyservice.db import models
from tests.functional.keyservice import harness

LOG = logging.getLogger('planted')


def launched(keyservice):
    keyservice.policy()
    host = harness.Host(keyservice)
    host.launch()
    return host


def test_nothing(keyservice):
    launched(keyservice)


def test_log(keyservice):
    launched(keyservice)
    LOG.debug('%s', base64.b64encode(b'of ' + harness.PASSPHRASE))


def test_answer(keyservice):
    """A detail that quotes what it read."""
    launched(keyservice)
    keyservice.member().post('/v1/policies', json={'policy': {
        'name': 'x', 'firmwares': [harness.PASSPHRASE.decode()]}})


def test_column(keyservice):
    host = launched(keyservice)
    with keyservice.service.database.writer() as session:
        session.get(models.Launch, host.id).sealed_keys = (
            b'plain' + host.guest.tek + host.guest.tik)


def test_deleted_row(keyservice):
    """SQLite leaves it in the file."""
    host = launched(keyservice)
    with keyservice.service.database.writer() as session:
        row = session.get(models.Launch, host.id)
        kept, row.sealed_keys = row.sealed_keys, harness.PASSPHRASE * 400
    with keyservice.service.database.writer() as session:
        session.get(models.Launch, host.id).sealed_keys = kept


def test_notification(keyservice):
    launched(keyservice)
    logging.getLogger('oslo.messaging.notification.launch').info(
        json.dumps({'payload': {'secret': harness.PASSPHRASE.hex()}}))


def test_logged_tik(keyservice):
    LOG.debug('%r', {'tik': launched(keyservice).guest.tik})


def test_stored_sealing_key(keyservice):
    host = launched(keyservice)
    path, = (keyservice.directory / 'sealing-keys').glob('*.key')
    with keyservice.service.database.writer() as session:
        session.get(models.Launch, host.id).sealed_keys = bytes.fromhex(
            path.read_text())


def test_logged_token(keyservice):
    LOG.debug('token %s', launched(keyservice).token)
