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

"""Instance action events: what became of a launch, step by step.

An operator and, from microversion 2.51, a server's owner see them with
``openstack server event show``; from 2.84 with the reason of a failure.
Writing one is a call to nova-conductor, which may be slow or down. No launch
waits for it: a thread of the launch's own writes them in their order.
"""

import contextlib
import queue
import threading

from nova.compute import utils as compute_utils
from nova import exception
from oslo_log import log as logging

LOG = logging.getLogger(__name__)

_END = object()


class ActionEvents:
    """The events of one launch.

    :param context: RequestContext of the action; a boot that nobody
        requested has no action, and no events
    :param host: this compute host's name
    :param instance: nova.objects.Instance
    """

    def __init__(self, context, host, instance):
        self._context = context
        self._host = host
        self._instance = instance
        self._queue = queue.Queue()
        self._thread = None
        self._given_up = False

    @contextlib.contextmanager
    def event(self, name, to_show):
        """An event that lasts as long as its block.

        :param to_show: called with an exception that ends the block, gives
            the one to be shown
        """
        reporter = compute_utils.EventReporter(
            self._context, name, self._host, self._instance.uuid,
            graceful_exit=True)
        self._write(reporter.__enter__)
        try:
            yield
        except BaseException as failure:
            shown = to_show(failure)
            self._write(reporter.__exit__, type(shown), shown,
                        failure.__traceback__)
            raise
        self._write(reporter.__exit__, None, None, None)

    def close(self, timeout):
        """Write no more; wait a moment for what is being written."""
        if self._thread is not None:
            self._queue.put(_END)
            self._thread.join(timeout)
            self._thread = None

    def _write(self, write, *arguments):
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._queue.put((write, arguments))

    def _run(self):
        while (item := self._queue.get()) is not _END:
            if self._given_up:
                continue
            write, arguments = item
            try:
                write(*arguments)
            except exception.InstanceActionNotFound:
                self._given_up = True
            except Exception:
                # For the record only: the launch goes on without.
                self._given_up = True
                LOG.exception('The launch\'s action events cannot be '
                              'written', instance=self._instance)
