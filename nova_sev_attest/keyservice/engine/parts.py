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

"""What the engine works with."""

import dataclasses
import typing

from nova_sev_attest.keyservice.objects import firmwares
from nova_sev_attest.launch import expectation


@dataclasses.dataclass(frozen=True)
class Parts:
    """The collaborators of the engine.

    :ivar conf: ConfigOpts
    :ivar database: Database
    :ivar journal: Journal
    :ivar store: SecretReader
    :ivar servers: ServerReader
    :ivar keys: KeyRepository
    :ivar anchors: the configured trust anchors
    :ivar chips: ChipCertificates
    :ivar sightings: Sightings
    :ivar expected: the launch digests of policies, kept
    :ivar firmwares: the images that they are of, kept
    """

    conf: typing.Any
    database: typing.Any
    journal: typing.Any
    store: typing.Any
    servers: typing.Any
    keys: typing.Any
    anchors: typing.Any
    chips: typing.Any
    sightings: typing.Any
    expected: typing.Any = dataclasses.field(
        default_factory=expectation.Cache)
    firmwares: typing.Any = dataclasses.field(
        default_factory=firmwares.Parsed)
