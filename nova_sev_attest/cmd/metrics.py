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

"""nova-sev-attest-metrics: the key service's numbers, to Prometheus.

A process of its own, so that the API's workers need not share a port, are read
while they are busy, and do not listen for anything else. It may be stopped and
started at any time.
"""

import argparse
import os
import signal
import sys
import threading

from oslo_log import log as logging
import prometheus_client

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice import metrics

LOG = logging.getLogger(__name__)


def main(argv=None):
    """Serve until SIGTERM; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='nova-sev-attest-metrics',
        description='the key service\'s numbers, to Prometheus')
    parser.add_argument(
        '--config-file', action='append', metavar='PATH',
        help='configuration file; may be given several times; default: what '
             'NOVA_SEV_ATTEST_CONFIG_FILE names')
    args = parser.parse_args(argv)
    files = os.environ.get('NOVA_SEV_ATTEST_CONFIG_FILE')
    conf = conf_keyservice.load(
        config_files=args.config_file or (files and files.split(':')))
    logging.setup(conf, conf_keyservice.PROJECT)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: stop.set())
    directory = os.environ.get(metrics.VARIABLE)
    if not directory:
        return _fail(f'{metrics.VARIABLE} names no directory')
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        server, thread = prometheus_client.start_http_server(
            conf.metrics.port, conf.metrics.listen,
            metrics.gathered(conf, directory))
    except OSError as exc:
        return _fail(exc)
    LOG.info('Serving metrics at %s:%d.', *server.server_address[:2])
    stop.wait()
    server.shutdown()
    server.server_close()
    thread.join()
    return 0


def _fail(why):
    LOG.critical('nova-sev-attest-metrics cannot start: %s', why)
    print(f'nova-sev-attest-metrics: {why}', file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main())
