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

"""Serve one WSGI application on a loopback port, with an access log.

Run with ``python -P``, so that the modules beside this file are not in the
application's way. The application is named ``module:attribute``, or
``paste:file`` for the main application of a PasteDeploy file.
"""

import argparse
import importlib
import signal
import sys
import time

from cheroot import wsgi
from paste import deploy
from sqlalchemy import orm


def load(target):
    """The WSGI application that a target names."""
    place, _, name = target.partition(':')
    if place == 'paste':
        application = deploy.loadapp(f'config:{name}')
    else:
        application = getattr(importlib.import_module(place),
                              name or 'application')
    # Neutron looks for relations that SQLAlchemy makes when it first needs
    # them, which may be later.
    orm.configure_mappers()
    return application


def logged(application, out=None):
    """An application that writes a line for each answer that begins.

    The query is left out, and no header is written: neither is needed to
    see what happened, and both may hold what is nobody's business.
    """
    def inner(environ, start_response):
        def start(status, headers, exc_info=None):
            print('{} "{} {} {}" {}'.format(
                time.strftime('%Y-%m-%d %H:%M:%S'),
                environ['REQUEST_METHOD'],
                environ.get('SCRIPT_NAME', '') + environ['PATH_INFO'],
                environ['SERVER_PROTOCOL'], status.partition(' ')[0]),
                file=out or sys.stdout, flush=True)
            return start_response(status, headers, exc_info)

        return application(environ, start)

    return inner


class Input:
    """What is read of a request; unlike the server's, it has no close().

    PEP 3333 knows none, but Glance closes what it inspects of an upload, and
    with it the connection, under the client's next request.
    """

    def __init__(self, source):
        self.read = source.read
        self.readline = source.readline
        self.readlines = source.readlines

    def __iter__(self):
        return iter(self.readline, b'')


def kept_open(application):
    """An application that cannot close its connection."""
    def inner(environ, start_response):
        environ['wsgi.input'] = Input(environ['wsgi.input'])
        return application(environ, start_response)

    return inner


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('target')
    parser.add_argument('--port', type=int, required=True)
    parser.add_argument('--threads', type=int, default=8)
    options = parser.parse_args()
    # Several services read the command line of whatever process loads them.
    sys.argv = [options.target]
    server = wsgi.Server(
        ('127.0.0.1', options.port),
        logged(kept_open(load(options.target))),
        numthreads=options.threads, server_name='localhost',
        request_queue_size=128, timeout=60, shutdown_timeout=2)

    def stop(signum, frame):
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    try:
        server.start()
    finally:
        server.stop()


if __name__ == '__main__':
    main()
