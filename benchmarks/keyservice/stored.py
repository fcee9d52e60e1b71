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

"""What the database holds: what was lost of a load, and old launches."""

import asyncio
import statistics
import time

import sqlalchemy as sa

from benchmarks.keyservice import cloud
from benchmarks.keyservice import http
from nova_sev_attest.keyservice.db import models

_BATCH = 50_000
_ROUNDS = 60
_LIMIT = 50
_STEPS = ('list', 'list_by_server', 'show', 'evidence')
#: SQL, by the database's kind, that gives each new row other values.
_NEW_ID = {'postgresql': 'gen_random_uuid()::text', 'mysql': 'uuid()',
           'sqlite': 'lower(hex(randomblob(18)))'}
_NEW_SHA256 = {
    'postgresql': "sha256(gen_random_uuid()::text::bytea)",
    'mysql': 'unhex(sha2(uuid(), 256))', 'sqlite': 'randomblob(32)'}
_EARLIER = {
    'postgresql': "{0} - random() * interval '300 days'",
    'mysql': '{0} - interval floor(rand() * 25920000) second',
    'sqlite': "datetime({0}, -abs(random() % 25920000) || ' seconds')"}
_PROJECT = {
    'postgresql': "'project-' || lpad(floor(random() * 100)::text, 2, '0')",
    'mysql': "concat('project-', lpad(floor(rand() * 100), 2, '0'))",
    'sqlite': "printf('project-%02d', abs(random() % 100))"}


def count_lost(url, released):
    """Launches that their clients saw released, and that are not on record.

    :param released: ids of launches
    """
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        running = set(connection.scalars(
            sa.select(models.Launch.id).where(
                models.Launch.status == 'running',
                models.Launch.sealed_keys.is_(None),
                models.Launch.release_data.is_not(None))))
        audited = list(connection.scalars(
            sa.select(models.AuditRecord.subject).where(
                models.AuditRecord.event == 'launch.released')))
    engine.dispose()
    return len(released.keys() - (running & set(audited)))


def growth(around, made, options):
    """Latencies with few and with many launches stored.

    :param made: Load
    :returns: {step: milliseconds before and after, and their ratio}
    """
    before = asyncio.run(_medians(around, made))
    options.say(f'storing {options.stored} launches')
    started = time.monotonic()
    fill(around.database, options.stored)
    seconds = time.monotonic() - started
    after = asyncio.run(_medians(around, made))
    return {'launches': options.stored, 'fill_seconds': round(seconds, 1)} | {
        step: {'before_ms': round(1000 * before[step], 2),
               'after_ms': round(1000 * after[step], 2),
               'growth': round(after[step] / before[step], 3)}
        for step in _STEPS}


def fill(url, number):
    """Store closed launches: copies of those there, with other ids."""
    engine = sa.create_engine(url)
    kind = engine.dialect.name
    changed = {
        'id': _NEW_ID[kind], 'server_id': _NEW_ID[kind],
        'project_id': _PROJECT[kind], 'evidence_fingerprint':
            _NEW_SHA256[kind], 'token_hash': _NEW_SHA256[kind],
        'session_nonce': 'NULL'} | {
        name: _EARLIER[kind].format(name)
        for name in ('created_at', 'updated_at')}
    columns = [column.name for column in models.Launch.__table__.columns]
    chosen = ', '.join(changed.get(name, name) for name in columns)
    copy = sa.text(f'INSERT INTO launches ({", ".join(columns)}) '
                   f'SELECT {chosen} FROM launches '
                   f"WHERE status = 'running' LIMIT :limit")
    left = number
    while left > 0:
        with engine.begin() as connection:
            left -= connection.execute(
                copy, {'limit': min(left, _BATCH)}).rowcount
    with engine.connect().execution_options(
            isolation_level='AUTOCOMMIT') as connection:
        connection.execute(sa.text(
            'ANALYZE TABLE launches' if kind == 'mysql'
            else 'ANALYZE launches'))
    engine.dispose()


async def _medians(around, made):
    """{step: median seconds}, one request after the other."""
    api = http.Client(around.nodes[0].url,
                      cloud.token_of('member0'))
    shown = (await api('GET', f'/v1/launches?limit={_LIMIT}')).json()
    ids = [launch['id'] for launch in shown['launches']]
    servers = [launch['server_id'] for launch in shown['launches']]
    taken = {step: [] for step in _STEPS}

    async def timed(step, path):
        started = time.monotonic()
        answer = await api('GET', path)
        assert answer.status == 200, answer.body
        taken[step].append(time.monotonic() - started)

    for number in range(_ROUNDS):
        await timed('list', f'/v1/launches?limit={_LIMIT}')
        await timed('list_by_server', '/v1/launches?server_id='
                    + servers[number % len(servers)])
        await timed('show', f'/v1/launches/{ids[number % len(ids)]}')
    seen = len(made.figures.seconds['evidence'])
    await made.run(['of-fake'] * _ROUNDS, 1, 0)
    taken['evidence'] = made.figures.seconds['evidence'][seen:]
    return {step: statistics.median(seconds)
            for step, seconds in taken.items()}
