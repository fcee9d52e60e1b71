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

"""Whether the service can do its work: backends of oslo.middleware.

They are loaded by their names in [healthcheck] backends.
"""

from oslo_db import exception as db_exc
from oslo_middleware.healthcheck import pluginbase
import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.db import models
from nova_sev_attest.keyservice import sealing


class DatabaseCheck(pluginbase.HealthcheckBaseExtension):
    """Ready when the database answers and has the service's tables."""

    def __init__(self, oslo_conf, conf):
        super().__init__(oslo_conf, conf)
        self._db = db_api.Database(oslo_conf)

    def healthcheck(self, server_port):
        try:
            with self._db.reader() as session:
                session.execute(sa.select(models.Launch.id).limit(1))
        except (db_exc.DBError, sa_exc.SQLAlchemyError) as exc:
            return pluginbase.HealthcheckResult(
                available=False, reason='database unavailable',
                details=type(exc).__name__)
        return pluginbase.HealthcheckResult(available=True,
                                            reason='database answers')


class SealingCheck(pluginbase.HealthcheckBaseExtension):
    """Ready when there is a key that launches can be sealed under."""

    def __init__(self, oslo_conf, conf):
        super().__init__(oslo_conf, conf)
        self._keys = sealing.KeyRepository(oslo_conf.sealing.key_repository)

    def healthcheck(self, server_port):
        try:
            self._keys.check()
        except sealing.SealingError as exc:
            return pluginbase.HealthcheckResult(
                available=False, reason='no usable sealing key',
                details=str(exc))
        return pluginbase.HealthcheckResult(available=True,
                                            reason='sealing key is there')
