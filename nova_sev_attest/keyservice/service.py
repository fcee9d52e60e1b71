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

"""The parts of a running key service, put together from its configuration."""

from oslo_log import log as logging

from nova_sev_attest.keyservice.audit import keys as audit_keys
from nova_sev_attest.keyservice import authoring
from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice import engine
from nova_sev_attest.keyservice.engine import parts
from nova_sev_attest.keyservice import hosts
from nova_sev_attest.keyservice import journal
from nova_sev_attest.keyservice import metrics
from nova_sev_attest.keyservice import notifications
from nova_sev_attest.keyservice import policy
from nova_sev_attest.keyservice import sealing
from nova_sev_attest.keyservice import servers
from nova_sev_attest.keyservice import sightings
from nova_sev_attest.keyservice import stores
from nova_sev_attest.trust import chips
from nova_sev_attest.trust import roots

LOG = logging.getLogger(__name__)


class Service:
    """What the handlers work with.

    :param conf: ConfigOpts
    :raises nova_sev_attest.launch.errors.LaunchError: a configured root is
        refused
    """

    def __init__(self, conf):
        self.conf = conf
        self.database = db_api.Database(conf)
        self.authorizer = policy.Authorizer(conf)
        self.host_credentials = hosts.HostCredentials(conf)
        anchors = roots.load_anchors(conf.trust.amd_certificates,
                                     conf.trust.extra_anchors)
        LOG.info('Trusted platform roots: %s.', ', '.join(
            anchor.name + (' (emulated)' if anchor.emulated else '')
            for anchor in anchors) or 'none')
        keys = sealing.KeyRepository(conf.sealing.key_repository)
        try:
            keys.check()
        except sealing.SealingError as exc:
            LOG.warning('No launch will be accepted: %s', exc)
        self.metrics = metrics.Metrics()
        store = metrics.MeasuredStore(stores.load(conf), self.metrics)
        self.journal = make_journal(conf, self.database, self.metrics)
        self.authoring = authoring.Authoring(
            conf, self.database, self.journal, store, anchors)
        self.engine = engine.Engine(parts.Parts(
            conf=conf, database=self.database, journal=self.journal,
            store=store, servers=servers.ServerReader(conf), keys=keys,
            anchors=anchors, chips=chips.from_conf(conf.trust, anchors),
            sightings=sightings.Sightings(self.database, self.journal)))


def make_journal(conf, database, measured=None):
    """The Journal with all that listens to it, as configured.

    :param measured: Metrics, or None
    """
    listeners = [
        measured and measured.record,
        notifications.load(conf, measured and measured.drop)]
    return journal.Journal(database, _audit_keys(conf),
                           list(filter(None, listeners)))


def _audit_keys(conf):
    """The keys that sign the audit, with a word where they cannot."""
    keys = audit_keys.AuditKeys(conf.audit.key_repository)
    try:
        if keys.signer() is None:
            LOG.warning(
                'The heads of the audit are not signed, so that who can write '
                'to the database can write the audit anew: there is no key '
                'in %s; make one with "nova-sev-attest-manage audit-key '
                'create".', keys.path)
    except audit_keys.AuditKeyError as exc:
        LOG.error('The heads of the audit are not signed: %s', exc)
    return keys
