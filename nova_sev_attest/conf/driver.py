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

"""Options of nova-compute's side: the group [sev_attest] of nova.conf."""

from keystoneauth1 import loading as ks_loading
from oslo_config import cfg

GROUP = cfg.OptGroup(
    'sev_attest',
    title='Launch attestation of memory-encrypted guests')

DRIVER_OPTS = [
    cfg.StrOpt(
        'mode',
        default='required',
        choices=[
            ('required',
             'Every server with encrypted memory is attested before its '
             'first instruction, or refused.'),
            ('optional',
             'Only servers that ask for it are attested: those with a '
             'property attestation_policy, a flavor with the extra spec '
             'sev_attest:mode=required, or an image with the property '
             'sev_attest_mode=required. All others boot as without this '
             'driver.'),
        ],
        help='Which servers with encrypted memory are attested. Flavor and '
             'image can demand more than this, never less.'),
    cfg.StrOpt(
        'transport',
        default='http',
        help='Entry point of the namespace nova_sev_attest.transports by '
             'which this host reaches the key service: "http" for its REST '
             'API, "rpc" for nova-sev-attest-rpc over RabbitMQ.'),
    cfg.StrOpt(
        'rpc_transport_url',
        secret=True,
        help='Message broker of the transport "rpc", in the form of '
             'oslo.messaging\'s transport_url. Unset: Nova\'s own '
             'transport_url.'),
    cfg.FloatOpt(
        'launch_timeout',
        default=60.0, min=1.0,
        help='Seconds within which a guest must be attested, from the first '
             'request to the key service to its release; past them it is '
             'destroyed. Keep it below the [launches] expiry of the key '
             'service. Each launch under way holds one of nova-compute\'s '
             'build threads that long at most.'),
    cfg.FloatOpt(
        'owner_timeout',
        default=600.0, min=1.0,
        help='Seconds that a launch waits for the server\'s owner, where '
             'its policy wants the owner to make the session, to verify or '
             'to approve; each time at most as long as the key service '
             'allows. launch_timeout does not run meanwhile.'),
    cfg.IntOpt(
        'max_waiting',
        default=4, min=0,
        help='How many launches may wait for owners at the same time on '
             'this host; more are refused with a message. Each holds a '
             'of the max_concurrent_builds, of which one is always left '
             'for other servers, or one of nova-compute\'s RPC workers.'),
    cfg.FloatOpt(
        'report_timeout',
        default=5.0, min=0.1,
        help='Seconds that the report of a launch\'s outcome may take. The '
             'report is for the record only: a guest that was attested '
             'keeps running when it fails.'),
    cfg.IntOpt(
        'max_retries',
        default=4, min=0, max=20,
        help='How often a request to the key service is repeated after a '
             'connection error or an answer of the 5xx class, as far as the '
             'time allows. Answers of the 4xx class are final.'),
    cfg.FloatOpt(
        'retry_delay',
        default=0.5, min=0.0, max=60.0,
        help='Seconds before the first repetition, doubled for each further '
             'one. A longer Retry-After of the key service is honoured.'),
]

# keystoneauth would repeat requests by rules of its own, blind to the
# deadline of a launch, and versions are ours to know, not the operator's.
_NOT_OFFERED = frozenset([
    'version', 'min_version', 'max_version',
    'connect_retries', 'connect_retry_delay',
    'status_code_retries', 'status_code_retry_delay',
    'retriable_status_codes',
])


def _adapter_opts():
    offered = ks_loading.get_adapter_conf_options(include_deprecated=False)
    opts = [opt for opt in offered if opt.dest not in _NOT_OFFERED]
    cfg.set_defaults(opts, service_type='attestation',
                     valid_interfaces=['internal', 'public'])
    return opts


def _session_opts():
    opts = ks_loading.get_session_conf_options()
    # Without one, a single silent peer would hold a launch for ever.
    cfg.set_defaults(opts, timeout=10.0)
    return opts


def register_opts(conf):
    """Register the group [sev_attest] on conf; harmless when repeated."""
    conf.register_group(GROUP)
    conf.register_opts(DRIVER_OPTS, group=GROUP)
    conf.register_opts(_session_opts(), group=GROUP)
    conf.register_opts(_adapter_opts(), group=GROUP)
    conf.register_opts(ks_loading.get_auth_common_conf_options(),
                       group=GROUP)


def list_opts():
    """All options with their group, in the form of oslo.config.opts."""
    return [(GROUP, [
        *DRIVER_OPTS,
        *_session_opts(),
        *_adapter_opts(),
        *ks_loading.get_auth_common_conf_options(),
        *ks_loading.get_auth_plugin_conf_options('password'),
    ])]
