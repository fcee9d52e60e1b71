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

"""What owners do: firmwares and policies."""

import re
import uuid

from oslo_db import exception as db_exc
from oslo_log import log as logging
from oslo_utils import timeutils

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice import expectations
from nova_sev_attest.keyservice import guarding
from nova_sev_attest.keyservice import hosts
from nova_sev_attest.keyservice import limits
from nova_sev_attest.keyservice.objects import firmwares
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.keyservice.objects import policies
from nova_sev_attest.keyservice import quotas
from nova_sev_attest.keyservice.stores import base as store_base
from nova_sev_attest.launch import errors as launch_errors
from nova_sev_attest.launch import firmware as launch_firmware
from nova_sev_attest.launch import profile as launch_profile
from nova_sev_attest.trust import roots

LOG = logging.getLogger(__name__)

_DEFAULTS = {
    'technologies': ['amd-sev'],
    'trusted_roots': list(roots.AMD_ROOTS),
    'firmwares': [],
    'kernels': [],
    'initrds': [],
    'command_lines': [],
    'vcpus': None,
    'cpu_models': [],
    'cpu_signatures': [],
    'launch_profiles': [],
    'firmware_boot': False,
    'min_api_version': None,
    'min_build': None,
    'allowed_chips': None,
    'allowed_owners': None,
    'secrets': [],
    'verifier': policies.SERVICE,
    'approval': policies.AUTOMATIC,
    'limits': None,
    'rescue': None,
    'is_default': False,
}

_UUID = '[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}'
_SECRET_REF = re.compile(rf'(?:(?:[^\s?#]*/)?secrets/)?({_UUID})/?')


def _secret_id(reference):
    """The UUID of a reference; nothing else of it is ever used."""
    match = _SECRET_REF.fullmatch(reference)
    if match is None:
        raise errors.BadRequest(
            'secret_ref_malformed',
            'A secret_ref is a UUID or ends in /v1/secrets/{uuid}.')
    return str(uuid.UUID(match[1]))


def _wants_application_processors(content):
    return (launch_profile.SEV_ES in content.technologies
            and max(content.vcpus or (1,)) > 1)


def _check_roles(content):
    """Refuse a policy that gives the service and the owner the same part."""
    if content.verifier == policies.SERVICE:
        if not content.firmwares:
            raise errors.BadRequest(
                'firmware_missing',
                'A policy names the firmwares that may run, unless its '
                'verifier is the owner.')
        return
    if content.approval == policies.OWNER:
        raise errors.BadRequest(
            'owner_approves_alone',
            'With verifier "owner" it is the owner who releases each launch; '
            'approval "owner" is for what the service verifies.')
    if content.secret_ids():
        raise errors.BadRequest(
            'owner_has_secrets',
            'With verifier "owner" the owner encrypts the secrets; the '
            'policy names none, lest the service could read them.')


def _check_sev_es(content):
    """Refuse a policy that could allow no SEV-ES launch."""
    missing = [words for words, values in (
        ('vcpus', content.vcpus),
        ('cpu_models or cpu_signatures',
         content.cpu_models or content.cpu_signatures),
        ('launch_profiles', content.launch_profiles)) if not values]
    if (launch_profile.SEV_ES in content.technologies and missing
            and content.verifier == policies.SERVICE):
        raise errors.BadRequest(
            'sev_es_incomplete',
            f'SEV-ES measures the vCPUs, so a policy that allows amd-sev-es '
            f'lists what they may be; it lacks {", ".join(missing)}.')


def _check_breadth(content):
    """Refuse a policy that allows too many launches to look through."""
    if expectations.count(content) > expectations.MAX_DIGESTS:
        raise errors.BadRequest(
            'policy_too_broad',
            f'Firmwares, kernels, initrds, command lines and what SEV-ES '
            f'measures make {expectations.count(content)} launches, at '
            f'most {expectations.MAX_DIGESTS} are possible; use several '
            f'policies.')
    if expectations.count_save_areas(content) > expectations.MAX_SAVE_AREAS:
        raise errors.BadRequest(
            'policy_too_broad',
            f'The policy\'s SEV-ES launches have '
            f'{expectations.count_save_areas(content)} vCPUs in all, at '
            f'most {expectations.MAX_SAVE_AREAS} are possible; use '
            f'several policies.')


def _check_command_lines(content):
    if content.kernels and not content.command_lines:
        raise errors.BadRequest(
            'command_line_missing',
            'A policy that names kernels names their command lines too; an '
            'empty text stands for none. So it is with its part for '
            'rescues.')


def _secrets(listed):
    """The secrets of a request, as {GUID: UUID}."""
    found = {}
    for secret in listed:
        guid = str(uuid.UUID(secret['guid']))
        if guid in found:
            raise errors.BadRequest(
                'secret_guid_repeated', f'Two secrets have the GUID {guid}.')
        found[guid] = _secret_id(secret['secret_ref'])
    return found


def _rescue(part):
    """The part for rescues of a request, None where it says nothing."""
    found = policies.Rescue(**(part or {}) | {
        'secrets': _secrets((part or {}).get('secrets', ()))})
    return None if found == policies.Rescue() else found


def _identity(policy):
    """What tells the revisions of policies apart, for the journal."""
    return {'name': policy.content.name, 'revision': policy.revision,
            'content_sha256': policy.content_sha256}


def _close_launches(entry, policy_id, word, detail):
    """Deny the open launches of a policy that is withdrawn."""
    code = 'attestation.' + word
    for launch in launches.close_all_of_policy(entry.session, policy_id,
                                               code, detail):
        entry.record_launch('launch.denied', launch, reason_code=code)


def _is_uuid(text):
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


class Authoring:
    """Operations on the firmwares and policies of a project.

    :param conf: ConfigOpts
    :param database: Database
    :param journal: Journal
    :param store: SecretReader
    :param anchors: the configured trust anchors
    """

    def __init__(self, conf, database, journal, store, anchors):
        self._quotas = quotas.Quotas(conf)
        self._hosts_are_claims = hosts.are_claims(conf)
        self._db = database
        self._journal = journal
        self._store = store
        self._emulated = {
            anchor.name for anchor in anchors if anchor.emulated}
        self._roots = set(roots.AMD_ROOTS) | {
            anchor.name for anchor in anchors}

    def upload_firmware(self, project_id, sha256, data):
        """Store an image after inspection.

        :returns: (Firmware, whether it is new)
        :raises BadRequest: not the image of that SHA-256, or not usable
        """
        try:
            parsed = launch_firmware.Firmware.parse(data)
        except launch_errors.FormatError as exc:
            raise errors.BadRequest('firmware_malformed', str(exc)) from exc
        if parsed.sha256.hex() != sha256:
            raise errors.BadRequest(
                'firmware_sha256_mismatch',
                f'The image has SHA-256 {parsed.sha256.hex()}, the path says '
                f'{sha256}.')
        try:
            parsed.require_secret_area()
        except launch_errors.FirmwareUnusable as exc:
            raise errors.BadRequest('firmware_unusable', str(exc)) from exc
        try:
            return self._store_firmware(project_id, parsed, data)
        except db_exc.DBDuplicateEntry:
            with self._db.reader() as session:
                return firmwares.get(session, project_id, sha256), False

    @db_api.retried
    def _store_firmware(self, project_id, parsed, data):
        with self._journal.writer() as entry:
            found = firmwares.find(entry.session, project_id,
                                   parsed.sha256.hex())
            if found is not None:
                return found, False
            self._quotas.check_firmware(entry.session, project_id,
                                        parsed.size)
            firmware = firmwares.create(entry.session, project_id, parsed,
                                        data)
            entry.record('firmware.uploaded', project_id,
                         subject=firmware.sha256, size=firmware.size)
            return firmware, True

    def create_policy(self, context, request):
        """Create a policy of the caller's project.

        :param context: RequestContext, with the caller's token
        :param request: the policy of the request body, as documented
        :returns: Policy
        """
        content = self._content(_DEFAULTS | request)
        self._prove_readable(context, content)

        def create(session):
            policy = policies.create(session, context.project_id, content)
            self._quotas.check_policies(session, context.project_id)
            return policy

        return self._write('policy.created', create, content,
                           context.project_id)

    def update_policy(self, context, policy_id, matches, request):
        """Make a new revision of a policy of the caller's project.

        :param matches: function that tells whether a Policy is the one that
            the caller read
        :returns: Policy
        """
        with self._db.reader() as session:
            policy = policies.get(session, context.project_id, policy_id)
        if not matches(policy):
            raise errors.PreconditionFailed(
                'policy_changed',
                'If-Match does not name the current revision of the policy; '
                'read it again.')
        content = self._content(policy.content.members() | request)
        # All secrets, not only new ones: a change may loosen what guards
        # them.
        self._prove_readable(context, content)
        self._quotas.check_revision(policy)
        return self._write(
            'policy.updated',
            lambda session: policies.update(session, policy, content),
            content, context.project_id)

    @db_api.retried
    def _write(self, event, change, content, project_id):
        with self._journal.writer() as entry:
            session = entry.session
            policy = change(session)
            for sha256 in content.firmwares:
                found = firmwares.get(session, project_id, sha256)
                kernels = (content.kernels
                           or content.of(policies.RESCUE).kernels)
                if kernels and found.hash_table is None:
                    raise errors.BadRequest(
                        'firmware_unusable',
                        f'Firmware {sha256} has no table of kernel hashes, '
                        f'so no kernel can be measured with it.')
                if _wants_application_processors(content):
                    image = launch_firmware.Firmware.parse(
                        firmwares.data(session, found))
                    if image.reset_eip is None:
                        raise errors.BadRequest(
                            'firmware_unusable',
                            f'Firmware {sha256} does not say where more than '
                            f'one vCPU of an SEV-ES guest start.')
            entry.record(event, project_id, subject=policy.id,
                         **_identity(policy))
            return policy

    @db_api.retried
    def revoke_policy(self, project_id, policy_id):
        """Let nothing be released under a policy, and deny what is open.

        :returns: Policy
        """
        with self._journal.writer() as entry:
            policy = policies.get_locked(entry.session, project_id,
                                         policy_id)
            if policies.revoke(entry.session, policy):
                entry.record('policy.revoked', project_id, subject=policy_id,
                             **_identity(policy))
            # One that was revoked before may have launches that began at
            # that same moment.
            _close_launches(
                entry, policy_id, 'policy_revoked',
                'The launch\'s policy was revoked in the meantime.')
            return policies.get(entry.session, project_id, policy_id)

    def restore_policy(self, context, policy_id):
        """Take the revocation of a policy back.

        :param context: RequestContext, with the caller's token
        :returns: Policy
        :raises PreconditionFailed: it was changed at the same time
        """
        with self._db.reader() as session:
            policy = policies.get(session, context.project_id, policy_id)
        if policy.revoked_at is None:
            return policy
        self._prove_readable(context, policy.content)
        return self._restore(policy)

    @db_api.retried
    def _restore(self, policy):
        with self._journal.writer() as entry:
            if policies.restore(entry.session, policy):
                entry.record('policy.restored', policy.project_id,
                             subject=policy.id, **_identity(policy))
            found = policies.get(entry.session, policy.project_id, policy.id)
            if found.revision != policy.revision:
                raise errors.PreconditionFailed(
                    'policy_changed',
                    'The policy was changed in the meantime; read it again.')
            return found

    @db_api.retried
    def delete_policy(self, project_id, policy_id, matches=None):
        """Delete a policy.

        :param matches: function that tells whether a Policy is the one that
            the caller read; None deletes it as it is
        :raises PreconditionFailed: it is not
        """
        with self._journal.writer() as entry:
            policy = policies.get_locked(entry.session, project_id,
                                         policy_id)
            if matches is not None and not matches(policy):
                raise errors.PreconditionFailed(
                    'policy_changed',
                    'If-Match does not name the current revision of the '
                    'policy; read it again.')
            policies.delete(entry.session, policy)
            entry.record('policy.deleted', project_id, subject=policy_id,
                         **_identity(policy))
            _close_launches(
                entry, policy_id, 'policy_deleted',
                'The launch\'s policy was deleted in the meantime.')

    @db_api.retried
    def delete_firmware(self, project_id, sha256, matches=None):
        """Delete a firmware that no policy names.

        :param matches: function that tells whether a Firmware is the one
            that the caller read; None deletes it as it is
        :raises PreconditionFailed: it is not
        """
        with self._journal.writer() as entry:
            firmware = firmwares.get(entry.session, project_id, sha256)
            if matches is not None and not matches(firmware):
                raise errors.PreconditionFailed(
                    'firmware_changed',
                    'If-Match does not name this upload of the firmware; '
                    'read it again.')
            firmwares.delete(entry.session, firmware)
            entry.record('firmware.deleted', project_id, subject=sha256)

    def warnings(self, project_id, found):
        """What the owners of policies may not have meant.

        :param found: list of Policy of one project, current revisions
        :returns: {id of one of them: list of sentences}
        """
        with self._db.reader() as session:
            sharing = policies.sharing_secrets(session, project_id, found)
        shared = guarding.warnings(found, sharing)
        return {policy.id: self._own_warnings(policy) + shared[policy.id]
                for policy in found}

    def _own_warnings(self, policy):
        content = policy.content
        found = []
        if (content.verifier == policies.SERVICE
                and not expectations.count(content)):
            found.append(
                'This policy allows no launch: it names no kernel and '
                'firmware_boot is false.')
        if content.firmware_boot and content.secret_ids():
            found.append(
                'With firmware_boot the guest gets its secrets whatever the '
                'firmware finds on the disks and boots.')
        found += self._rescue_warnings(content)
        for root in sorted(self._emulated & set(content.trusted_roots)):
            found.append(
                f'The root {root} is that of an emulated platform, which '
                f'protects nothing from its host.')
        if limits.window(content.limits)[1] <= timeutils.utcnow():
            found.append(
                f'This policy allows no launch any more: its limits ended at '
                f'{content.limits[limits.NOT_AFTER]}.')
        most = limits.max_releases(content.limits)
        if most is not None and policy.release_count >= most:
            found.append(
                f'This policy allows no launch any more: all of its {most} '
                f'releases are used up.')
        if limits.need_aggregates(content.limits) and self._hosts_are_claims:
            found.append(
                'The limit host_aggregates is advisory: the compute hosts '
                'share one keystone user, so that which host begins a launch '
                'is its own claim. allowed_chips is not.')
        if content.is_default and policy.revoked_at is not None:
            found.append(
                'Servers that name no policy cannot launch while the '
                'project\'s default policy is revoked.')
        return found

    @staticmethod
    def _rescue_warnings(content):
        rescue = content.of(policies.RESCUE)
        # Without a part for rescues they get nothing that a boot does not.
        if (content.rescue is None or rescue.secrets == content.secrets
                or not expectations.coincide(content, rescue)):
            return []
        return [
            'What this policy allows for a boot and for a rescue coincides, '
            'and the secrets differ. Which of them a launch is, is its '
            'host\'s word: a host that lies gets the other one\'s secrets '
            'for the same guest, and the disks are not measured. Rescue '
            'with a kernel, initrd or command line that a boot may not '
            'have, and do not use firmware_boot.']

    def _content(self, request):
        if _is_uuid(request['name']):
            raise errors.BadRequest(
                'policy_name_invalid',
                'A policy\'s name cannot be a UUID, because servers name '
                'their policy by either.')
        vcpus = request['vcpus']
        try:
            profiles = [launch_profile.initial_state(name).name
                        for name in request['launch_profiles']]
            for name in request['cpu_models']:
                launch_profile.cpu_signature(name)
        except launch_profile.ProfileUnknown as exc:
            raise errors.BadRequest(exc.code, str(exc)) from exc
        content = policies.Content(**(request | {
            'secrets': _secrets(request['secrets']),
            'rescue': _rescue(request['rescue']),
            'vcpus': vcpus and [int(number) for number in vcpus],
            'cpu_signatures': [
                int(number) for number in request['cpu_signatures']],
            'launch_profiles': profiles,
            'limits': limits.normalize(request['limits']),
            'min_build': request['min_build'] and int(
                request['min_build'])}))
        _check_roles(content)
        _check_sev_es(content)
        for purpose in (policies.BOOT, policies.RESCUE):
            _check_command_lines(content.of(purpose))
        if max(content.min_api) > 255:
            raise errors.BadRequest(
                'request_invalid',
                'The parts of min_api_version go from 0 to 255.')
        if content.min_build and content.min_api_version is None:
            raise errors.BadRequest(
                'min_build_alone',
                'A build counts within one API version: min_build needs '
                'min_api_version.')
        unknown = sorted(set(content.trusted_roots) - self._roots)
        if unknown:
            raise errors.BadRequest(
                'trusted_root_unknown',
                f'The service knows no root {unknown[0]}; it knows '
                f'{", ".join(sorted(self._roots))}.')
        for purpose in (policies.BOOT, policies.RESCUE):
            _check_breadth(content.of(purpose))
        return content

    def _prove_readable(self, context, content):
        try:
            self._store.check_readable(sorted(content.secret_ids()), context)
        except store_base.SecretMalformed as exc:
            raise errors.BadRequest('secret_malformed', str(exc)) from exc
        except store_base.SecretUnavailable as exc:
            raise errors.Forbidden(
                'secret_forbidden',
                f'Your token is not good for reading secret {exc.secret_id}; '
                f'a policy can only name secrets that you can read '
                f'yourself.') from exc
        except store_base.SecretTooLarge as exc:
            raise errors.BadRequest('secret_too_large', str(exc)) from exc
        except store_base.SecretEmpty as exc:
            raise errors.BadRequest('secret_empty', str(exc)) from exc
        except store_base.StoreUnavailable as exc:
            LOG.warning('A policy\'s secrets cannot be checked: %s', exc)
            raise errors.Unavailable(
                'secret_store_unavailable',
                'The secret store cannot be asked now whether you may read '
                'the secrets; try again later.') from exc
