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

"""What both ends of the RPC transport agree on.

A method is called with one argument, REQUEST: an object with the members
``launch_id``, ``keystone_token``, ``launch_token``, ``body`` (text: the JSON
body of the HTTP request) and ``wait`` (seconds, or null). It returns an object
with one member, ANSWER: an object with the members ``status`` (integer),
``headers`` (object) and ``body`` (text) of the HTTP answer. Errors are
answers, too; nothing is raised across the wire.

A new method or member makes a new minor version, anything else a new major
one.
"""

import importlib
import logging

import oslo_messaging
from oslo_messaging import opts as oslo_messaging_opts

EXCHANGE = 'sev-attest'
TOPIC = 'sev-attest'
VERSION = '1.0'

# By these names a message of ours is known in the logs.
REQUEST = 'sev_attest_request'
ANSWER = 'sev_attest_answer'

#: Method -> what its path has below /v1/launches/{launch_id}.
METHODS = {
    'create_launch': '',
    'send_evidence': '/evidence',
    'report_outcome': '/outcome',
}

#: Headers of the HTTP answer that an answer carries.
HEADERS = ('X-Openstack-Request-Id', 'Retry-After')

#: Largest body of an answer, in characters.
MAX_ANSWER = 128 * 1024

# oslo.messaging logs an answer that comes too late at DEBUG, and every
# message at its level TRACE.
_LOGGERS = ('oslo_messaging._drivers.amqpdriver',
            'oslo_messaging._drivers.impl_rabbit',
            'oslo_messaging.rpc.client', 'oslo_messaging.rpc.server')


# oslo.messaging registers these on oslo.config's global object only, and reads
# them of whichever it is given: module and name of the options, which is the
# group's, too.
_GLOBAL_ONLY = (('oslo_messaging._metrics.client', 'oslo_messaging_metrics'),
                ('oslo_messaging._tracing.client', 'oslo_messaging_tracing'))


def register_opts(conf):
    """Register oslo.messaging's options on a ConfigOpts of one's own."""
    for group, options in oslo_messaging_opts.list_opts():
        conf.register_opts(options, group=group)
    for module, name in _GLOBAL_ONLY:
        try:
            options = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            # Of a release that has none of them.
            continue
        conf.register_opts(options, group=name)


def target(server=None):
    """Where the key service listens.

    :param server: name of one server, for the server itself
    """
    return oslo_messaging.Target(exchange=EXCHANGE, topic=TOPIC,
                                 version=VERSION, server=server)


class _NotLogged(logging.Filter):
    """Leaves messages of ours out of the log; they hold tokens."""

    def filter(self, record):
        text = record.getMessage()
        if REQUEST in text or ANSWER in text:
            record.msg = 'A message of the key service is not logged.'
            record.args = ()
        return True


_FILTER = _NotLogged()


def keep_out_of_logs():
    """See to it that oslo.messaging logs no message of ours, at any level."""
    for name in _LOGGERS:
        # A filter that is there already is not added again.
        logging.getLogger(name).addFilter(_FILTER)
