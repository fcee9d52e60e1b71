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

"""What the service counts and times, for Prometheus.

Each process writes its numbers into files of a directory that the environment
variable PROMETHEUS_MULTIPROC_DIR names, as prometheus-client does for servers
with several processes; nova-sev-attest-metrics adds them up and serves them.
No process of the API listens for this, and what does holds no keys. Without
the variable the numbers stay in the process.

No label names a project, server, host or user: there may be many, and who
reads metrics need not know them.
"""

import contextlib
import datetime
import os
import time

from oslo_log import log as logging
import prometheus_client
from prometheus_client import multiprocess
from prometheus_client import registry

from nova_sev_attest.keyservice.audit import chain
from nova_sev_attest.keyservice.schemas import document
from nova_sev_attest.keyservice import sealing
from nova_sev_attest.keyservice.stores import base

LOG = logging.getLogger(__name__)

VARIABLE = 'PROMETHEUS_MULTIPROC_DIR'
#: In the environment of a request: the operation of the API document.
OPERATION = 'nova_sev_attest.operation'

_PREFIX = 'nova_sev_attest_'
_FAST = (.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60)
# An owner may take hours.
_SLOW = (.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400)
_CLOSED = frozenset((
    'launch.released', 'launch.running', 'launch.failed', 'launch.denied',
    'launch.expired', 'launch.superseded'))


@contextlib.contextmanager
def _counting():
    """What cannot be counted stops nothing."""
    try:
        yield
    except Exception:
        LOG.exception('Metrics cannot be written')


class Metrics:
    """The numbers of one process.

    :raises OSError: the directory cannot be made
    """

    def __init__(self):
        directory = os.environ.get(VARIABLE)
        if directory:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        self.registry = prometheus_client.CollectorRegistry()
        self._events = self._make(
            prometheus_client.Counter, 'events',
            'What was decided, as in the audit.',
            'event', 'technology', 'reason_code')
        self._steps = self._make(
            prometheus_client.Histogram, 'launch_step_seconds',
            'From the launch\'s change before to this one.',
            'event', 'technology', buckets=_SLOW)
        self._launches = self._make(
            prometheus_client.Histogram, 'launch_seconds',
            'From the launch\'s beginning to this event.',
            'event', 'technology', buckets=_SLOW)
        self._unsigned = self._make(
            prometheus_client.Counter, 'audit_heads_unsigned',
            'Heads of the audit that no key signed.')
        self._requests = self._make(
            prometheus_client.Histogram, 'http_request_seconds',
            'Requests by operation of the API document and status.',
            'operation', 'status', buckets=_FAST)
        self._store = self._make(
            prometheus_client.Histogram, 'secret_store_seconds',
            'Calls of the secret store.', 'call', buckets=_FAST)
        self._store_failures = self._make(
            prometheus_client.Counter, 'secret_store_failures',
            'Calls of the secret store that failed.', 'call', 'error')
        self._dropped = self._make(
            prometheus_client.Counter, 'notifications_dropped',
            'Notifications that were not sent.')

    def _make(self, kind, name, text, *labels, **options):
        return kind(_PREFIX + name, text, labels, registry=self.registry,
                    **options)

    def record(self, event, record, head):
        """A listener of the Journal."""
        details = event.details
        technology = details.get('technology', '')
        self._events.labels(event.name, technology,
                            details.get('reason_code', '')).inc()
        if head is not None and head.signature is None:
            self._unsigned.inc()
        if event.began is None:
            return
        at = datetime.datetime.strptime(record.at, chain.TIME_FORMAT)
        # Clocks of several nodes: never below zero.
        if event.previous is not None:
            self._steps.labels(event.name, technology).observe(
                max(0.0, (at - event.previous).total_seconds()))
        if event.name in _CLOSED:
            self._launches.labels(event.name, technology).observe(
                max(0.0, (at - event.began).total_seconds()))

    def drop(self):
        """Count a notification that is not sent."""
        with _counting():
            self._dropped.inc()

    def request(self, operation, status, seconds):
        """Count a request of the API."""
        with _counting():
            self._requests.labels(operation, status).observe(seconds)

    def store(self, call, function, *args):
        """Call the secret store; returns what the function does."""
        began = time.monotonic()
        try:
            return function(*args)
        except base.StoreError as exc:
            with _counting():
                self._store_failures.labels(call, type(exc).__name__).inc()
            raise
        finally:
            with _counting():
                self._store.labels(call).observe(time.monotonic() - began)


class MeasuredStore:
    """A SecretReader whose calls are counted.

    :param reader: SecretReader
    :param metrics: Metrics
    """

    def __init__(self, reader, metrics):
        self._reader = reader
        self._metrics = metrics

    def check_readable(self, secret_ids, context):
        """See SecretReader.check_readable()."""
        return self._metrics.store(
            'check_readable', self._reader.check_readable, secret_ids,
            context)

    def fetch(self, secret_ids, project_id):
        """See SecretReader.fetch()."""
        return self._metrics.store('fetch', self._reader.fetch, secret_ids,
                                   project_id)


class Operations:
    """Falcon middleware: which operation of the API document it is."""

    def __init__(self):
        self._names = {
            (path, method.upper()): operation['operationId']
            for path, item in document.load()['paths'].items()
            for method, operation in item.items()
            if isinstance(operation, dict) and 'operationId' in operation}

    def process_resource(self, req, resp, resource, params):
        req.env[OPERATION] = self._names.get(
            (req.uri_template, req.method), 'other')


class MeasuredRequests:
    """WSGI middleware: counts requests.

    Those that are answered before they are routed (no valid token, health
    checks) are of the operation "other".
    """

    def __init__(self, application, metrics):
        self._application = application
        self._metrics = metrics

    def __call__(self, environ, start_response):
        began = time.monotonic()
        found = []

        def start(status, headers, exc_info=None):
            found[:] = [status.partition(' ')[0]]
            return start_response(status, headers, exc_info)

        answer = self._application(environ, start)
        if found:
            self._metrics.request(environ.get(OPERATION, 'other'), found[0],
                                  time.monotonic() - began)
        return answer


class SealingKeyCollector(registry.Collector):
    """When the primary sealing key began to seal.

    :param keys: KeyRepository; no key is read, only the times of the files
    """

    def __init__(self, keys):
        self._keys = keys

    def collect(self):
        found = prometheus_client.Metric(
            _PREFIX + 'sealing_key_since_timestamp_seconds',
            'When the primary sealing key began to seal.', 'gauge')
        try:
            since = [key.since for key in self._keys.keys()
                     if key.state == sealing.PRIMARY]
        except sealing.SealingError as exc:
            LOG.error('The sealing key\'s age is not known: %s', exc)
            since = []
        for found_at in since:
            found.add_sample(found.name, {}, found_at.replace(
                tzinfo=datetime.UTC).timestamp())
        yield found


def gathered(conf, directory):
    """What all processes wrote to a directory, and the sealing key's age.

    :returns: CollectorRegistry; what it gives is read anew each time
    :raises ValueError: there is no such directory
    """
    found = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(found, directory)
    found.register(SealingKeyCollector(
        sealing.KeyRepository(conf.sealing.key_repository)))
    return found
