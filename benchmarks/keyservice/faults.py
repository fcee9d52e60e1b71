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

"""Faults during a load: each at its share of the launches, in turn."""

import argparse
import json
import os
import signal
import threading
import time
import urllib.request

#: Seconds by which the clock of the second node is ahead.
SKEW = 300
NAMES = ('clock', 'workers', 'database', 'rabbitmq', 'barbican')
_SLOW_SECONDS = 3.0
_DOWN_SECONDS = 5.0
_KILLS = 6


def parse(text):
    """Names of faults from the command line."""
    names = tuple(text.split(','))
    if not set(names) <= set(NAMES):
        raise argparse.ArgumentTypeError(
            f'faults are {", ".join(NAMES)}, not {text}')
    return names


class Plan:
    """Faults, spread evenly over a number of launches.

    :param around: Surroundings
    :param names: of the faults; a wrong clock is there from the start
    """

    def __init__(self, around, names, launches):
        self._around = around
        self._started = time.monotonic()
        self._log = [f'0 s: the clock of node 1 is {SKEW} s ahead'] if (
            'clock' in names) else []
        steps = [step for name in names if name != 'clock'
                 for step in self._steps(name)]
        self._due = {launches * (number + 1) // (len(steps) + 1): step
                     for number, step in enumerate(steps)}
        self._threads = []

    def done(self, count):
        """To be called with the number of launches that have ended."""
        step = self._due.pop(count, None)
        if step is not None:
            thread = threading.Thread(target=step)
            thread.start()
            self._threads.append(thread)

    def finish(self):
        """Wait for the faults under way; returns what was done."""
        for thread in self._threads:
            thread.join()
        return self._log

    def _steps(self, name):
        return {'workers': [self._kill_worker] * _KILLS,
                'database': [self._stop_database, self._kill_database],
                'rabbitmq': [self._kill_broker],
                'barbican': [self._slow_store, self._no_store]}[name]

    def _say(self, text):
        self._log.append(
            f'{time.monotonic() - self._started:.0f} s: {text}')

    def _kill_worker(self):
        node = self._around.nodes[len(self._threads)
                                  % len(self._around.nodes)]
        pid = node.children()[0]
        os.kill(pid, signal.SIGKILL)
        self._say(f'worker {pid} of {node.name} was killed')

    def _stop_database(self):
        self._restart_database(None, 'stopped')

    def _kill_database(self):
        self._restart_database(signal.SIGKILL, 'killed')

    def _restart_database(self, signum, word):
        server = self._around.server
        if server is None:
            self._say('SQLite has no server')
            return
        server.stop(signum)
        self._say(f'the database was {word}')
        time.sleep(_DOWN_SECONDS / 2)
        server.start()
        self._say('the database is back')

    def _kill_broker(self):
        self._around.broker.kill()
        self._say('RabbitMQ was killed')
        time.sleep(_DOWN_SECONDS)
        self._around.broker.start()
        self._say('RabbitMQ is back')

    def _slow_store(self):
        self._set_store(_SLOW_SECONDS, f'takes {_SLOW_SECONDS} s')

    def _no_store(self):
        self._set_store(None, 'hangs up')

    def _set_store(self, delay, text):
        self._control(delay)
        self._say(f'the secret store {text}')
        time.sleep(_DOWN_SECONDS)
        self._control(0.0)
        self._say('the secret store answers')

    def _control(self, delay):
        urllib.request.urlopen(urllib.request.Request(
            self._around.cloud.url + '/control/secrets', method='PUT',
            data=json.dumps(delay).encode()), timeout=30).close()
