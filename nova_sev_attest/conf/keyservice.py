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

"""Options of the key service.

The options live on a ConfigOpts of the caller's own, not on oslo.config's
global one, so that two services (or two tests) can live in one process.
"""

from keystoneauth1 import loading as ks_loading
from oslo_config import cfg
from oslo_db import options as db_options
from oslo_log import log as logging
from oslo_middleware.healthcheck import opts as healthcheck_opts
from oslo_policy import opts as policy_opts

PROJECT = 'nova-sev-attest'

#: What decides by default whether the service is ready; entry points of the
#: namespace oslo.middleware.healthcheck.
HEALTHCHECK_BACKENDS = ('keyservice_database', 'keyservice_sealing')

API_OPTS = [
    cfg.IntOpt(
        'max_firmware_size',
        default=16 * 1024 * 1024, min=4096, max=64 * 1024 * 1024,
        help='Largest firmware image, in bytes, that a project may upload.'),
    cfg.IntOpt(
        'max_body_size',
        default=128 * 1024, min=16 * 1024,
        help='Largest JSON request body, in bytes.'),
    cfg.IntOpt(
        'max_limit',
        default=1000, min=1,
        help='Most items that one page of a collection holds, whatever '
             'the request\'s limit asks for.'),
    cfg.IntOpt(
        'max_wait',
        default=30, min=0, max=300,
        help='Most seconds that a compute host\'s request may wait for the '
             'owner of a launch before it is answered with 202 and sent '
             'again. Less than the time-outs of the proxy before the '
             'service.'),
    cfg.IntOpt(
        'max_waiting',
        default=6, min=1,
        help='How many requests of one process may wait for owners at the '
             'same time; more are answered with 202 at once. Each holds a '
             'thread: keep it below the threads of a worker.'),
]

LAUNCHES_OPTS = [
    cfg.IntOpt(
        'expiry',
        default=120, min=1, max=86400,
        help='Seconds between the creation of a launch and the moment at '
             'which its transport keys are destroyed when no evidence that '
             'verifies has come. Must exceed the launch_timeout of the '
             'compute hosts.'),
    cfg.IntOpt(
        'owner_expiry',
        default=900, min=1, max=604800,
        help='Seconds that the owner has, each time that a launch waits for '
             'the owner\'s session, secret or approval. Hosts may give up '
             'earlier: see their owner_timeout.'),
    cfg.FloatOpt(
        'diagnosis_seconds',
        default=2.0, min=0, max=60,
        help='How long the service may search for what was launched, when a '
             'measurement is not one that the policy allows. The result is '
             'for the owner; the compute host learns which input differs, '
             'and no value. 0 leaves it at a first look.'),
]

HOST_CREDENTIAL_OPTS = [
    cfg.StrOpt(
        'host_credentials',
        default='per-host', choices=[
            ('per-host', 'each compute host has a keystone user of its own, '
                         'which can begin launches for that host only'),
            ('shared', 'all hosts share one user: which host begins a '
                       'launch is a claim, and limits by host are '
                       'advisory')],
        help='How compute hosts identify themselves.'),
    cfg.StrOpt(
        'host_user_prefix',
        default='nova-sev-attest-',
        help='With host_credentials=per-host: a user whose name is this and '
             'the name of a host is that host\'s.'),
    cfg.StrOpt(
        'host_user_domain',
        default='Default',
        help='Name of the keystone domain of the hosts\' users. Users of '
             'the same names in other domains are nobody\'s.'),
    cfg.DictOpt(
        'host_users',
        default={},
        help='Hosts of users that are not named by the prefix, as '
             'user:host,user:host.'),
]

QUOTAS_OPTS = [
    cfg.IntOpt(
        'firmwares',
        default=100, min=-1,
        help='How many firmware images a project may store. -1: any number; '
             'so it is with the next ones.'),
    cfg.IntOpt(
        'firmware_bytes',
        default=512 * 1024 * 1024, min=-1,
        help='How many bytes the firmware images of a project may have in '
             'all.'),
    cfg.IntOpt(
        'policies',
        default=200, min=-1,
        help='How many policies a project may have.'),
    cfg.IntOpt(
        'policy_revisions',
        default=1000, min=-1,
        help='How many revisions a policy may have. All of them are kept, '
             'because launches go on under the revision that they began '
             'with.'),
]

SEALING_OPTS = [
    cfg.StrOpt(
        'key_repository',
        default='/etc/nova-sev-attest/sealing-keys',
        help='Directory of the keys that seal the transport keys of open '
             'launches in the database. Keep it outside the database and '
             'its backups. Mode 0700, its files 0600. There is no default '
             'key: make one with "nova-sev-attest-manage sealing-key '
             'create"; no launch is accepted without.'),
]

AUDIT_OPTS = [
    cfg.StrOpt(
        'key_repository',
        default='/etc/nova-sev-attest/audit-keys',
        help='Directory of the keys that sign the heads of the audit, and '
             'of the public keys that verify them. Keep it outside the '
             'database and its backups. Make a key with '
             '"nova-sev-attest-manage audit-key create"; without one the '
             'audit is written, but its heads are not signed.'),
]

SECRET_STORE_OPTS = [
    cfg.StrOpt(
        'driver',
        default='barbican',
        help='Entry point of the namespace nova_sev_attest.secret_stores '
             'that names the store of the owners\' secrets: barbican, '
             'castellan (Vault and others, by castellan\'s own options in '
             '[key_manager] and [vault]), or one of your own.'),
    cfg.IntOpt(
        'max_secret_size',
        default=16 * 1024, min=1, max=1024 * 1024,
        help='Largest secret, in bytes, that is read from the store.'),
    cfg.FloatOpt(
        'deadline',
        default=15.0, min=0.1,
        help='Seconds that reading the secrets of one launch, or asking '
             'whether the author of a policy may read those it names, may '
             'take in all. Whatever the store does, nobody waits longer.'),
    cfg.IntOpt(
        'max_calls',
        default=64, min=1, max=1024,
        help='How many calls of the secret store one process makes at the '
             'same time, those counted that it has given up and that have '
             'not ended. More are answered with 503 at once.'),
]

RPC_OPTS = [
    cfg.IntOpt(
        'threads',
        default=16, min=2, max=1024,
        help='How many messages one process of nova-sev-attest-rpc works on '
             'at the same time. Half of them may wait for an owner.'),
    cfg.FloatOpt(
        'stop_timeout',
        default=60.0, min=0.0,
        help='Seconds that nova-sev-attest-rpc gives to the messages it '
             'works on when it is told to stop (SIGTERM). What is left then '
             'is not answered, and asked again by the compute hosts.'),
]

NOTIFICATIONS_OPTS = [
    cfg.IntOpt(
        'queue_size',
        default=10000, min=1,
        help='How many notifications wait in one process while the message '
             'bus is down or slow; more are dropped. Notifications are sent '
             'where [oslo_messaging_notifications] driver is set, to '
             'messagingv2, say; no request waits for them.'),
    cfg.FloatOpt(
        'stop_timeout',
        default=5.0, min=0.0,
        help='Seconds that a process that ends gives to sending what waits.'),
]

METRICS_OPTS = [
    cfg.HostAddressOpt(
        'listen',
        default='127.0.0.1',
        help='Address that nova-sev-attest-metrics listens at. There is '
             'neither a credential nor TLS.'),
    cfg.PortOpt(
        'port',
        default=8961,
        help='Port that nova-sev-attest-metrics listens at.'),
]

TRUST_OPTS = [
    cfg.StrOpt(
        'amd_certificates',
        help='Directory of AMD\'s ARK and ASK files. Each is accepted only '
             'if it is one of those whose SHA-256 this release knows. '
             'Unset: no real AMD platform is trusted.'),
    cfg.ListOpt(
        'extra_anchors',
        default=[],
        help='Further roots, as name=/path/to/ask_ark.cert (ASK followed by '
             'ARK). They are for emulated platforms: verdicts say so, and '
             'only a policy that names the root accepts it.'),
    cfg.StrOpt(
        'chip_certificates',
        help='Directory of CEK certificates that AMD signed, one or more of '
             'each chip, named <chip id in hexadecimal>.cert or .cek. '
             'Looked into before the cache and the key server.'),
    cfg.StrOpt(
        'chip_cache',
        default='/var/cache/nova-sev-attest/chips',
        help='Directory that keeps the CEK certificates that the key server '
             'gave, for all processes of the service. They do not expire. '
             'Unused without key_server.'),
    cfg.URIOpt(
        'key_server', schemes=['https', 'http'],
        help='Base URL of AMD\'s key server, https://kdsintf.amd.com, or of '
             'a mirror. It is asked once for the signed CEK of each chip. '
             'Unset: no network is used, and a chip whose host shows no '
             'signed CEK is refused unless chip_certificates or the cache '
             'has it.'),
    cfg.URIOpt(
        'key_server_proxy', schemes=['https', 'http'],
        help='HTTP proxy on the way to the key server. The proxies of the '
             'environment are not used.'),
    cfg.StrOpt(
        'key_server_ca_file',
        help='PEM file of the CAs that may vouch for the key server. Unset: '
             'those that Python\'s requests brings along.'),
    cfg.FloatOpt(
        'key_server_timeout',
        default=5.0, min=0.1, max=60.0,
        help='Seconds without a byte from the key server after which an '
             'attempt has failed.'),
    cfg.FloatOpt(
        'key_server_deadline',
        default=10.0, min=0.1, max=300.0,
        help='Seconds for all attempts at one certificate. When the key '
             'server asks for more patience, launches are answered with 503 '
             'and it is left alone for as long as it asks.'),
]

#: Group -> service type of the services that are called with the key
#: service's own credential.
CLIENTS = {'nova': 'compute', 'barbican': 'key-manager'}

# Group names, not OptGroup objects: those would carry values from one
# ConfigOpts to the next.
_OPTS = [
    ('api', API_OPTS),
    ('launches', LAUNCHES_OPTS + HOST_CREDENTIAL_OPTS),
    ('quotas', QUOTAS_OPTS),
    ('sealing', SEALING_OPTS),
    ('audit', AUDIT_OPTS),
    ('secret_store', SECRET_STORE_OPTS),
    ('rpc', RPC_OPTS),
    ('notifications', NOTIFICATIONS_OPTS),
    ('metrics', METRICS_OPTS),
    ('trust', TRUST_OPTS),
]


def register_opts(conf):
    """Register all options of the key service on a ConfigOpts."""
    for group, opts in _OPTS:
        conf.register_opts(opts, group=group)
    db_options.set_defaults(
        conf,
        connection='sqlite:////var/lib/nova-sev-attest/keyservice.sqlite')
    for group, service_type in CLIENTS.items():
        ks_loading.register_auth_conf_options(conf, group)
        ks_loading.register_session_conf_options(conf, group)
        ks_loading.register_adapter_conf_options(conf, group)
        conf.set_default('service_type', service_type, group=group)
        conf.set_default('valid_interfaces', ['internal', 'public'],
                         group=group)
        conf.set_default('timeout', 10, group=group)
    policy_opts.set_defaults(conf, 'policy.yaml')
    conf.register_opts(healthcheck_opts.HEALTHCHECK_OPTS,
                       group='healthcheck')
    conf.set_default('backends', list(HEALTHCHECK_BACKENDS),
                     group='healthcheck')


def longest_launch(conf):
    """Seconds that a launch can need its sealed keys at most."""
    # For the evidence, and then for its owner's approval.
    return conf.launches.expiry + conf.launches.owner_expiry


def load(args=(), config_files=None):
    """Read the configuration.

    :param args: command line arguments of oslo.config (--config-file ...)
    :param config_files: the files to read; None looks for
        nova-sev-attest.conf where oslo.config looks by default
    :returns: a new ConfigOpts with logging options registered
    """
    conf = cfg.ConfigOpts()
    logging.register_options(conf)
    register_opts(conf)
    conf(list(args), project=PROJECT, default_config_files=config_files)
    return conf


def list_opts():
    """Options for oslo.config's sample generator."""
    found = list(_OPTS)
    for group in CLIENTS:
        found.append((group,
                      ks_loading.get_auth_common_conf_options()
                      + ks_loading.get_session_conf_options()
                      + ks_loading.get_adapter_conf_options(
                          include_deprecated=False)))
    return found
