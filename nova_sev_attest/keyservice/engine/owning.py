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

"""Launches whose owner verifies: what the owner sees and hands in."""

import hmac

from oslo_db import exception as db_exc

from nova_sev_attest.keyservice.db import api as db_api
from nova_sev_attest.keyservice.engine import denying
from nova_sev_attest.keyservice.engine import details
from nova_sev_attest.keyservice.engine import limiting
from nova_sev_attest.keyservice.engine import lookup
from nova_sev_attest.keyservice.engine import releasing
from nova_sev_attest.keyservice.engine import requests
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.objects import launches
from nova_sev_attest.keyservice.objects import policies
from nova_sev_attest.launch import errors as launch_errors
from nova_sev_attest.launch import firmware as launch_firmware
from nova_sev_attest.launch import owner


class Owning:
    """:param parts: Parts"""

    def __init__(self, parts):
        self._parts = parts
        self._lookup = lookup.Lookup(parts)
        self._limiting = limiting.Limiting(parts)
        self._releasing = releasing.Releasing(parts)
        self._denying = denying.Denying(parts)
        self._expiry = parts.conf.launches.expiry

    def certificates(self, project_id, launch_id):
        """What the platform of a project's launch showed.

        :returns: objects.launches.Certificates
        :raises NotFound: no such launch, or it did not begin
        """
        self._lookup.owned(project_id, launch_id)
        with self._parts.database.reader() as session:
            found = launches.certificates(session, launch_id)
        if found is None:
            raise errors.NotFound(
                'certificates_not_found',
                'The launch did not begin, and so it has no platform.')
        return found

    def evidence(self, project_id, launch_id):
        """What the host sent of a project's launch.

        :returns: (evidence, claims), each as in the request
        :raises NotFound: no such launch, or nothing came
        """
        self._lookup.owned(project_id, launch_id)
        with self._parts.database.reader() as session:
            found = launches.evidence(session, launch_id)
        if found is None:
            raise errors.NotFound('evidence_not_found',
                                  'No evidence has come for this launch.')
        return found

    def session(self, project_id, launch_id, uploaded):
        """Give a launch its owner's session.

        :param uploaded: the session of the request body, as documented
        :returns: Launch
        :raises BadRequest: it is none
        :raises Conflict: the launch does not wait for it, or has another
        """
        launch = self._driven(project_id, launch_id)
        try:
            made = owner.read_session(
                requests.decode(uploaded['dh_cert'], 'session_malformed',
                                'GODH certificate'),
                requests.decode(uploaded['session'], 'session_malformed',
                                'session'))
        except launch_errors.FormatError as exc:
            raise errors.BadRequest('session_malformed', str(exc)) from exc
        if launch.status == launches.AWAITING_SESSION:
            try:
                self._set_session(launch, made)
            except db_exc.DBDuplicateEntry:
                raise errors.Conflict(
                    'session_reused',
                    'Another launch has a session with this nonce; make a '
                    'new session for each launch.') from None
            launch = self._lookup.owned(project_id, launch_id)
        if launch.session is None:
            raise requests.closed(launch)
        if not hmac.compare_digest(
                launch.dh_cert + launch.session,
                made.godh_certificate + made.session):
            raise errors.Conflict(
                'session_conflict',
                'The launch has another session; only the first counts.')
        return launch

    @db_api.retried
    def _set_session(self, launch, made):
        with self._parts.journal.writer() as entry:
            if launches.set_session(entry.session, launch, made,
                                    self._expiry):
                entry.record_launch('launch.session_issued', launch,
                                    **details.of_platform(launch))

    def secret(self, context, launch_id, uploaded):
        """Release a launch with what its owner packed.

        :param context: RequestContext of the owner
        :param uploaded: the secret of the request body, as documented; None:
            the guest gets none
        :returns: Launch
        :raises BadRequest: it is no packed secret for this launch's guest
        :raises Conflict: the launch does not wait for it, or has another
        :raises Denied: the policy does not allow the release; the launch is
            closed
        """
        launch = self._driven(context.project_id, launch_id)
        parts = uploaded and {
            'header': requests.decode(uploaded['secret_header'],
                                      'release_malformed', 'secret header'),
            'data': requests.decode(uploaded['secret'], 'release_malformed',
                                    'secret'),
            'gpa': uploaded.get('gpa')}
        fingerprint = _fingerprint(parts)
        if launch.status == launches.AWAITING_RELEASE:
            launch = self._release(
                launch, parts and self._packet(launch, **parts),
                release_fingerprint=fingerprint, decided_by=context.user_id,
            ) or self._lookup.owned(context.project_id, launch_id)
        elif launch.is_open:
            raise errors.Conflict(
                'evidence_missing',
                'The host has sent no evidence yet; a secret that is packed '
                'before cannot be of this launch.')
        if launch.release_fingerprint is None:
            raise requests.closed(launch)
        if not hmac.compare_digest(launch.release_fingerprint, fingerprint):
            raise errors.Conflict(
                'release_conflict',
                'The launch was released with another secret; only the '
                'first counts.')
        return launch

    def _release(self, launch, packet, **values):
        try:
            content = self._limiting.check(launch).content
            return self._releasing.release(launch, content, packet, **values)
        except errors.Denied as denial:
            if self._denying.deny(launch, denial):
                raise
            return None

    def _packet(self, launch, header, data, gpa):
        """What is to be injected where, as a Release."""
        try:
            area = self._area(launch, gpa)
            packet = owner.read_secret(header, data, area)
        except launch_errors.FormatError as exc:
            raise errors.BadRequest('release_malformed', str(exc)) from exc
        except launch_errors.SecretTooLarge as exc:
            raise errors.BadRequest('secret_too_large', str(exc)) from exc
        return launches.Release(packet.header, packet.data, area.base)

    def _area(self, launch, gpa):
        """Where the guest's firmware takes a secret.

        :param gpa: the owner's word on it, None where there is none
        :returns: firmware.Area
        """
        areas = self._areas(launch)
        named = gpa is not None and owner.area_at(int(gpa))
        if not areas:
            if named:
                return named
            raise errors.BadRequest(
                'release_malformed',
                'The policy names no firmware, so that the secret needs a '
                'gpa: the address that "sev-attest firmware inspect" shows.')
        if named:
            for area in areas:
                left = area.base + area.size - named.base
                if area.base <= named.base and left > 0:
                    return launch_firmware.Area(named.base, left)
            raise errors.BadRequest(
                'gpa_outside',
                f'The address {named.base:#x} is in the secret area of none '
                f'of the policy\'s firmwares: {_shown(areas)}.')
        if len(areas) > 1:
            raise errors.BadRequest(
                'release_malformed',
                f'The policy\'s firmwares have different secret areas, so '
                f'that the secret needs a gpa: {_shown(areas)}.')
        return areas[0]

    def _areas(self, launch):
        """The different secret areas of the policy's firmwares."""
        content = self._limiting.content(launch)
        if content is None:
            return []
        with self._parts.database.reader() as session:
            images = self._parts.firmwares.load(session, launch.project_id,
                                                content.firmwares)
        return sorted({image.secret_area for image in images.values()},
                      key=lambda area: area.base)

    def _driven(self, project_id, launch_id):
        launch = self._lookup.owned(project_id, launch_id)
        if launch.verifier != policies.OWNER:
            raise errors.Conflict(
                'not_owner_driven',
                'The service verifies this launch and makes its session and '
                'secret; for the owner to do so, the policy\'s verifier must '
                'be "owner".')
        return launch


def _shown(areas):
    return ', '.join(f'{area.base:#x} and {area.size} bytes'
                     for area in areas)


def _fingerprint(parts):
    """SHA-256 that names what was uploaded, None for no secret."""
    return requests.fingerprint(parts and [
        parts['header'].hex(), parts['data'].hex(),
        parts['gpa'] and int(parts['gpa'])])
