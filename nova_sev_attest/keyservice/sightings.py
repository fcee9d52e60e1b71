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

"""Keeps what launches see of the platforms that they are begun on."""

from oslo_db import exception as db_exc
from oslo_log import log as logging
from oslo_utils import timeutils

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.objects import platforms
from nova_sev_attest.trust import roots

LOG = logging.getLogger(__name__)


class Sightings:
    """Record of platforms; not part of any decision.

    :param database: Database
    :param journal: Journal; told when a platform verified that is new to a
        project, or is not what it was
    """

    def __init__(self, database, journal):
        self._db = database
        self._journal = journal

    def began(self, launch):
        """A launch was begun: its platform's certificates verified.

        :param launch: objects.launches.Launch
        """
        self._record(self._of(launch))

    def attested(self, launch, build):
        """A launch's evidence verified: the platform has its keys.

        :param build: of the platform's firmware, as the evidence says
        """
        self._record(self._of(launch, build=build, attested=True))

    def refused(self, host, project_id, denial, platform=None):
        """A platform was refused.

        :param denial: the Denied that says why
        :param platform: VerifiedPlatform, None when its certificates did
            not verify
        """
        seen = {}
        if platform is not None:
            facts = platform.facts
            seen = {'root': facts.anchor_name, 'emulated': facts.emulated,
                    'api': facts.api, 'cek': facts.cek_fingerprint,
                    'chip': platform.chip_id and platform.chip_id.hex()}
        self._record(platforms.Sighting(
            host=host, project_id=project_id, reason_code=denial.code,
            reason_detail=denial.detail, **seen))

    @staticmethod
    def _of(launch, **more):
        return platforms.Sighting(
            host=launch.host, project_id=launch.project_id,
            root=launch.platform_root, emulated=launch.platform_emulated,
            api=launch.platform_api, cek=launch.platform_cek,
            chip=launch.platform_chip, **more)

    def _record(self, sighting):
        try:
            self._keep(sighting, timeutils.utcnow())
        except db_exc.DBError as exc:
            # The launch was decided; its record says the same.
            LOG.warning('What was seen of the platform of host %(host)s is '
                        'not kept: %(type)s', {
                            'host': sighting.host,
                            'type': type(exc).__name__})

    @db_api.retried
    def _keep(self, sighting, now):
        try:
            self._keep_once(sighting, now)
        except db_exc.DBDuplicateEntry:
            # Another launch saw it first; the row is there now.
            self._keep_once(sighting, now)

    def _keep_once(self, sighting, now):
        with self._db.reader() as session:
            if not platforms.is_news(session, sighting, now):
                return
            told = platforms.is_new_or_changed(session, sighting)
        with self._journal.writer() as entry:
            platforms.record(entry.session, sighting, now)
            if told:
                entry.record(
                    'platform.verified', sighting.project_id,
                    subject=sighting.platform_id, host=sighting.host,
                    generation=_generation(sighting.root),
                    platform_root=sighting.root,
                    platform_api='{}.{}'.format(*sighting.api),
                    platform_cek_sha256=sighting.cek.hex(),
                    chip_id=sighting.chip, emulated=sighting.emulated)


def _generation(root):
    """The generation that a root is of, None where it is not AMD's."""
    if root not in roots.AMD_ROOTS:
        return None
    return root.removeprefix('amd-')
