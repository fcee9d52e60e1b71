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

"""RabbitMQ, which the key service's notifications go to: the lab's."""

from devstack.lab import credentials
from devstack.lab import lab as lab_module
from devstack.lab import layout as lab_layout
from devstack.lab import supervision
from tests.lab import victims

_NAME = 'rabbitmq'
_CONFIG = """
[oslo_messaging_notifications]
driver = messagingv2
transport_url = {url}
"""


class Broker:
    """The lab's RabbitMQ, started without the rest unless the lab is up.

    :param say: called with one line for each thing that happened
    """

    def __init__(self, say):
        self._layout = lab_layout.Layout.from_environment()
        self._lab = lab_module.Lab(self._layout, say)
        self._was_up = supervision.answers(self._layout)
        self._lab.up([_NAME])

    @property
    def config(self):
        """Lines for the key service's configuration."""
        return _CONFIG.format(url=credentials.messaging_url(self._layout))

    def kill(self):
        """End it with SIGKILL."""
        victim, = (victim for victim in victims.ALL
                   if victim.service == _NAME)
        victim.kill(self._layout, None)

    def start(self):
        """Start it again and wait until it takes messages."""
        self._lab.start(_NAME)

    def stop(self):
        """Leave the lab as it was found."""
        if not self._was_up:
            self._lab.down()
