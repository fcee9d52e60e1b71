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

"""What a guest owner who keeps the keys hands in: session and secret.

In the owner-driven mode the verifier never has TEK or TIK. It can hold what
is uploaded to its form only:

- that the session opens on the platform, and for which policy word, is under
  MACs of keys that only owner and platform have;
- so is the MAC of a secret packet, and with it whether the packet belongs to
  this launch, what its plain text is, and that it is a secret table at all.

The platform's firmware checks those MACs, at LAUNCH_START and LAUNCH_SECRET,
and refuses. The forms are those that ``sevctl session`` and libvirt's
``virt-qemu-sev-validate`` write, base64 decoded.
"""

import dataclasses
import struct

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import secret
from nova_sev_attest.launch import session as launch_session

_SESSION = struct.Struct('<16s32s16s32s32s')
_SESSION_FIELDS = ('nonce', 'wrapped keys', 'wrap IV', 'wrap MAC',
                   'policy MAC')
_HEADER = struct.Struct('<I16s32s')
_COMPRESSED = 1


@dataclasses.dataclass(frozen=True)
class OwnerSession:
    """A session that an owner made, fit to be handed to the host.

    :ivar godh_certificate: 2084 bytes; libvirt's ``dhCert``, undecoded. Not
        byte for byte what was uploaded: see :func:`read_session`.
    :ivar session: 128 bytes; libvirt's ``session``, undecoded.
    :ivar nonce: its first 16 bytes, which no other launch may have.
    """

    godh_certificate: bytes
    session: bytes

    @property
    def nonce(self):
        """What the session's keys were derived with, 16 bytes."""
        return self.session[:16]


def read_session(godh_certificate, session):
    """Check all that can be checked of an uploaded session without its keys.

    What follows the key in the certificate may be a piece of the memory that
    the owner's tool worked with (see ``SevCertificate.parse_exchange``); the
    certificate returned has zeros there, so that no host gets to see it.

    :param godh_certificate: 2084 bytes; see ``SevCertificate.parse_exchange``
        for what it has to be.
    :param session: 128 bytes: nonce[16], wrapped keys[32], wrap IV[16], wrap
        MAC[32], policy MAC[32] (AMD publication 55766, LAUNCH_START). Each is
        random or a cipher's or MAC's output: one of zeros alone was not
        filled in.
    :returns: OwnerSession.
    :raises CertificateMalformed: the certificate is something else.
    :raises SessionMalformed: the session is.
    """
    godh = certificates.SevCertificate.parse_exchange(godh_certificate)
    session = bytes(session)
    if len(session) != launch_session.SESSION_SIZE:
        raise errors.SessionMalformed(
            f'a session buffer has {launch_session.SESSION_SIZE} bytes, this '
            f'has {len(session)}; upload what the owner\'s tool wrote for '
            f'libvirt\'s <session>')
    _all_filled_in(_SESSION_FIELDS, _SESSION.unpack(session),
                   errors.SessionMalformed, 'session')
    return OwnerSession(godh.to_bytes(), session)


def read_secret(header, data, area):
    """Check all that can be checked of a packed secret without its keys.

    Its MAC cannot be: the TIK is the owner's alone. A packet of another
    launch, or damaged under way, passes here and is refused by the platform,
    whereupon the guest never runs.

    :param header: 52 bytes: flags (u32, little-endian), IV[16], MAC[32] (AMD
        publication 55766, LAUNCH_SECRET). The flags must be 0: hypervisors
        have no way to say how long a compressed packet is when unpacked.
    :param data: the ciphertext: a non-zero multiple of 16 bytes, at most
        16384.
    :param area: firmware.Area that it is injected at; from
        ``Firmware.require_secret_area``, or :func:`area_at` where the owner
        names an address and not a firmware.
    :returns: secret.LaunchSecret.
    :raises SecretMalformed: a size or a field is wrong.
    :raises SecretTooLarge: it does not fit into the area.
    """
    packet = secret.LaunchSecret(bytes(header), bytes(data))
    flags, iv, mac = _HEADER.unpack(packet.header)
    if flags == _COMPRESSED:
        raise errors.SecretMalformed(
            'the launch secret is compressed, which hypervisors cannot '
            'inject; pack it without compression')
    if flags:
        raise errors.SecretMalformed(
            f'the flags of the launch secret are {flags:#x}, expected 0; '
            f'header and secret may be of different files, or not decoded')
    _all_filled_in(('IV', 'MAC'), (iv, mac), errors.SecretMalformed,
                   'launch secret')
    if len(packet.data) > area.size:
        raise errors.SecretTooLarge(len(packet.data), area.size)
    return packet


def area_at(gpa):
    """The Area at an address that an owner names, as large as a packet.

    What the guest's firmware keeps there is not known: that it keeps room for
    a secret, and how much, is the owner's word.

    :param gpa: guest-physical address, libvirt's
        ``sev-secret-set-address``.
    :returns: firmware.Area.
    :raises SecretMalformed: it is 0, no multiple of 16, or the largest
        packet would reach beyond 4 GiB.
    """
    if gpa % 16 or not 0 < gpa <= (1 << 32) - secret.MAX_SIZE:
        raise errors.SecretMalformed(
            f'a launch secret cannot be put at {gpa:#x}; expected a multiple '
            f'of 16, not 0, that leaves {secret.MAX_SIZE} bytes below 4 GiB: '
            f'the address that "sev-attest firmware inspect" shows')
    return firmware.Area(gpa, secret.MAX_SIZE)


def _all_filled_in(names, values, error, what):
    for name, value in zip(names, values):
        if not any(value):
            raise error(f'the {name} of the {what} is all zeros; it was not '
                        f'filled in')
