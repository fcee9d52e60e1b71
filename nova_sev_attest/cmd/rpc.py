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

"""nova-sev-attest-rpc: the key service for compute hosts behind RabbitMQ."""

import argparse
import os
import signal
import socket
import sys
import threading

from oslo_log import log as logging
import oslo_messaging

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice import rpc
from nova_sev_attest.keyservice import service as keyservice
from nova_sev_attest.launch import errors as launch_errors

LOG = logging.getLogger(__name__)


def _stop_event():
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def handle(signum, frame):
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop


def _give_up(seconds):
    LOG.error('Messages are still being worked on after %g s; they are left '
              'unanswered.', seconds)
    # Threads that hang would keep the process.
    os._exit(1)


def _serve(server, conf, stop):
    """Serve until told to stop, then finish what was begun."""
    server.start(override_pool_size=conf.rpc.threads)
    LOG.info('nova-sev-attest-rpc takes messages, %d at a time.',
             conf.rpc.threads)
    stop.wait()
    LOG.info('nova-sev-attest-rpc finishes what it works on, and stops.')
    watchdog = threading.Timer(conf.rpc.stop_timeout, _give_up,
                               (conf.rpc.stop_timeout,))
    watchdog.daemon = True
    watchdog.start()
    server.stop()
    server.wait()
    watchdog.cancel()


def main(argv=None):
    """Run the server until SIGTERM; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='nova-sev-attest-rpc',
        description=__doc__.partition(': ')[2])
    parser.add_argument(
        '--config-file', action='append', metavar='PATH',
        help='configuration file; may be given several times')
    args = parser.parse_args(argv)
    conf = conf_keyservice.load(config_files=args.config_file)
    logging.setup(conf, conf_keyservice.PROJECT)
    stop = _stop_event()
    try:
        service = keyservice.Service(conf)
        transport = rpc.make_transport(conf)
        server = rpc.make_server(service, transport, socket.gethostname())
    except (launch_errors.LaunchError, oslo_messaging.MessagingException,
            OSError) as exc:
        LOG.critical('nova-sev-attest-rpc cannot start: %s', exc)
        print(f'nova-sev-attest-rpc: {exc}', file=sys.stderr)
        return 1
    _serve(server, conf, stop)
    transport.cleanup()
    service.database.dispose()
    return 0


if __name__ == '__main__':
    sys.exit(main())
