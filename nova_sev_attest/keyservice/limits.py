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

"""What restricts the releases of a policy besides what was measured.

The ``limits`` of a policy's content, all of whose members are optional:
``servers`` (UUIDs), ``host_aggregates`` (names), ``not_before`` and
``not_after`` (times as in the API), and ``max_releases`` (a number, over all
revisions of the policy). None and {} stand for no limit.

Server and aggregates are Nova's word, and that the launch is on that host is
the host's: where compute hosts share one keystone user, ``host_aggregates``
keeps from mistakes, not from a hostile host.
"""

import datetime

from nova_sev_attest.keyservice import errors

SERVERS = 'servers'
AGGREGATES = 'host_aggregates'
NOT_BEFORE = 'not_before'
NOT_AFTER = 'not_after'
MAX_RELEASES = 'max_releases'


def parse_time(text):
    """A time of the API as a naive UTC datetime.

    :raises BadRequest: no such moment, such as February 30
    """
    try:
        return datetime.datetime.fromisoformat(text.removesuffix('Z'))
    except ValueError as exc:
        raise errors.BadRequest(
            'time_invalid', f'{text} is no time: {exc}.') from None


def normalize(limits):
    """What is stored of the limits that a request has.

    :param limits: as the API document has them, or None
    :returns: dict, None where nothing is limited
    :raises BadRequest: no moment is within the times
    """
    if not limits:
        return None
    found = dict(limits)
    for name in (NOT_BEFORE, NOT_AFTER):
        if name in found:
            found[name] = parse_time(found[name]).isoformat() + 'Z'
    if MAX_RELEASES in found:
        found[MAX_RELEASES] = int(found[MAX_RELEASES])
    not_before, not_after = window(found)
    if not_before >= not_after:
        raise errors.BadRequest(
            'time_invalid',
            f'The limits end at {found[NOT_AFTER]}, and begin at '
            f'{found[NOT_BEFORE]}: not_before must be earlier than '
            f'not_after.')
    return found


def window(limits):
    """Times between which releases may be, as two datetimes.

    The first is within, the second is not.
    """
    limits = limits or {}
    return (parse_time(limits[NOT_BEFORE]) if NOT_BEFORE in limits
            else datetime.datetime.min,
            parse_time(limits[NOT_AFTER]) if NOT_AFTER in limits
            else datetime.datetime.max)


def servers(limits):
    """UUIDs of the servers that may launch, None for any."""
    return (limits or {}).get(SERVERS)


def host_aggregates(limits):
    """Names of the aggregates that hosts must be in, None for any."""
    return (limits or {}).get(AGGREGATES)


def need_aggregates(limits):
    """Whether check() has to know the aggregates of the host."""
    return host_aggregates(limits) is not None


def max_releases(limits):
    """How many releases there may be in all, None for any number."""
    return (limits or {}).get(MAX_RELEASES)


def check(limits, *, server_id, aggregates, now, release_count):
    """Hold a launch to the limits of its policy.

    :param limits: of the policy's content, or None
    :param server_id: UUID as text
    :param aggregates: names of the host's aggregates; nothing is looked up in
        them when need_aggregates() is false
    :param now: naive UTC datetime
    :param release_count: releases under the policy before this one
    :raises Denied: the first limit that the launch does not keep to
    """
    limits = limits or {}
    if SERVERS in limits and server_id not in limits[SERVERS]:
        raise _denied(
            limits, SERVERS, 'server_not_allowed',
            'The policy does not allow this server.',
            f'The policy is limited to {len(limits[SERVERS])} servers, and '
            f'{server_id} is none of them.')
    if AGGREGATES in limits and not set(limits[AGGREGATES]) & set(aggregates):
        found = ', '.join(sorted(aggregates)) or 'none'
        raise _denied(
            limits, AGGREGATES, 'aggregate_not_allowed',
            'The policy does not allow the host aggregates of this host.',
            f'The policy is limited to hosts of the aggregates '
            f'{", ".join(limits[AGGREGATES])}; the aggregates of the '
            f'launch\'s host: {found}.')
    not_before, not_after = window(limits)
    if now < not_before:
        raise _denied(
            limits, NOT_BEFORE, 'too_early',
            'The policy does not allow a launch yet.',
            f'The policy is limited to the time from {limits[NOT_BEFORE]} '
            f'on; it was {now.isoformat()}Z.')
    if now >= not_after:
        raise _denied(
            limits, NOT_AFTER, 'too_late',
            'The policy does not allow a launch any more.',
            f'The policy is limited to the time before {limits[NOT_AFTER]}; '
            f'it was {now.isoformat()}Z.')
    if MAX_RELEASES in limits and release_count >= limits[MAX_RELEASES]:
        raise _denied(
            limits, MAX_RELEASES, 'releases_used_up',
            'The releases that the policy allows are used up.',
            f'The policy is limited to {limits[MAX_RELEASES]} releases, and '
            f'there were {release_count}.')


def _denied(limits, name, word, detail, diagnosis):
    """Denied with the limit for the owner alone."""
    return errors.Denied(word, detail, {
        'allowed': {'limits': {name: limits[name]}},
        'diagnosis': diagnosis})
