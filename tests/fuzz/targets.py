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

"""Every parser that reads what others wrote, as a function of bytes.

Each target takes any bytes, and either returns or raises one of the errors
that it names; anything else is a fault. What it accepts is looked at once
more, where there is something to hold it to. Two drivers share the targets:
hypothesis in the unit tests, and a coverage-guided fuzzer,
``python -m tests.fuzz.run``.
"""

import base64
import dataclasses
import functools
import io
import json
import struct
import typing
import uuid

from nova_sev_attest.emulator import firmware as emulated_firmware
from nova_sev_attest.emulator import launch as emulated_launch
from nova_sev_attest.keyservice.engine import requests
from nova_sev_attest.keyservice import errors as service_errors
from nova_sev_attest.keyservice.schemas import document
from nova_sev_attest.keyservice.schemas import launches as schemas
from nova_sev_attest.launch import bundle
from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import errors
from nova_sev_attest.launch import firmware
from nova_sev_attest.launch import machine
from nova_sev_attest.launch import measurement
from nova_sev_attest.launch import owner
from nova_sev_attest.launch import policy as launch_policy
from nova_sev_attest.launch import secret
from tests.unit.launch import platforms

_CERTIFICATE = certificates.SEV_CERTIFICATE_SIZE
_POLICY = launch_policy.LaunchPolicy.for_technology('amd-sev')


@dataclasses.dataclass(frozen=True)
class Target:
    """A parser.

    :ivar run: function of bytes; returns whether they were accepted.
    :ivar seeds: function that returns a list of inputs to begin with.
    :ivar refusals: the exceptions that it may raise.
    :ivar largest: bytes of the longest input worth trying.
    """

    run: typing.Callable
    seeds: typing.Callable
    refusals: tuple
    largest: int


TARGETS = {}


def target(seeds, refusals=(errors.LaunchError,), largest=8192):
    def register(function):
        def run(data):
            try:
                function(data)
            except refusals:
                return False
            return True

        TARGETS[function.__name__] = Target(
            run, functools.cache(seeds), refusals, largest)
        return function
    return register


@functools.cache
def _platform():
    return platforms.platform()


@functools.cache
def _verified():
    return _platform().parse().verify([platforms.anchor()])


def _certificates():
    made = _platform()
    return [made.pdh, made.pek, made.oca, made.cek]


@target(_certificates, largest=_CERTIFICATE + 1)
def sev_certificate(data):
    parsed = certificates.SevCertificate.parse(data)
    assert parsed.to_bytes() == data
    parsed.public_key()


def _amd_certificates():
    made = platforms.ask_ark()
    return [made[:832], made[832:]]


@target(_amd_certificates, largest=1601)
def amd_certificate(data):
    parsed = certificates.AmdCertificate.parse(data)
    assert parsed.to_bytes() == data
    parsed.public_key()


@target(lambda: [_platform().pdh + _platform().cert_chain],
        largest=4 * _CERTIFICATE + 1)
def platform_certificates(data):
    """The PDH, then the chain, verified to the one root there is."""
    parsed = chain.PlatformCertificates.from_libvirt(
        data[:_CERTIFICATE], data[_CERTIFICATE:])
    verified = parsed.verify([platforms.anchor()])
    # Nothing that is signed can be changed; signatures not looked at can.
    for part, whole in zip((parsed.pdh, parsed.pek, parsed.oca, parsed.cek),
                           _certificates()):
        assert part.signed_bytes() == whole[:len(part.signed_bytes())]
    assert verified.emulated


def _bundles():
    whole = _platform().pdh + _platform().cert_chain
    armour = (b'-----BEGIN CERTIFICATE-----\n' + base64.encodebytes(
        platforms.ask_ark()) + b'-----END CERTIFICATE-----\n')
    return [b'\0' + whole, b'\0' + base64.b64encode(whole), b'\0' + armour,
            b'\1' + whole, b'\0' + platforms.ask_ark(),
            b'\0' + whole + platforms.ask_ark()]


@target(_bundles, largest=16384)
def certificate_bundle(data):
    """One file or, after an odd first byte, the halves in two."""
    body = data[1:]
    files = {'whole': body}
    if data[:1] and data[0] & 1:
        # A certificate is the likeliest place to part them.
        files = {'first': body[:_CERTIFICATE], 'rest': body[_CERTIFICATE:]}
    read = bundle.Bundle.read(files)
    assert read.certificates
    for usage in read.certificates:
        assert read.get(usage).usage == usage


def _images():
    return [platforms.firmware(size=4096),
            platforms.firmware(secret=(0, 0), hash_table=(0, 0), size=4096),
            platforms.firmware(secret=None, hash_table=None, size=4096),
            platforms.firmware(reset_eip=None, size=8192)]


@target(_images, (errors.LaunchError, emulated_firmware.FirmwareError))
def firmware_tables(data):
    """The verifier's reader; and the platform's, which has to agree."""
    ours = firmware.Firmware.parse(data)
    theirs = emulated_firmware.parse(data)
    for mine, other in ((ours.secret_area, theirs.secret),
                        (ours.hash_table_area, theirs.hashes)):
        assert (mine and (mine.base, mine.size)) == (
            other and (other.base, other.size))
    assert ours.reset_eip == theirs.reset
    area = ours.require_secret_area()
    assert area.base and area.size
    ours.require_hash_table()


def _outcome(read):
    try:
        return read()
    except errors.LaunchError as exc:
        return type(exc), str(exc)


@target(_images)
def firmware_in_pieces(data):
    """Read from a stream, the end of one piece and the next: as at once."""
    # One page is missing to a piece.
    whole = bytes(0x40000 - firmware.GRANULE) + data
    assert _outcome(lambda: firmware.Firmware.read(io.BytesIO(whole))) == (
        _outcome(lambda: firmware.Firmware.parse(whole)))
    firmware.Firmware.parse(data)


@target(_images, (emulated_firmware.FirmwareError,))
def emulated_firmware_tables(data):
    """The platform's reader alone, of images of any size."""
    emulated_firmware.parse(data)


def _sessions():
    issued = machine.begin(_verified(), uuid.uuid4(), _POLICY)
    return [struct.pack('<I', _POLICY.word) + issued.godh_certificate +
            issued.session]


def _start(data):
    launch = emulated_launch.Launch(_platform().pdh_key, (1, 51), 3)
    word = int.from_bytes(data[:4], 'little')
    launch.start(word, data[4:4 + _CERTIFICATE], data[4 + _CERTIFICATE:])
    return launch


@target(_sessions, (emulated_launch.CommandError,),
        largest=4 + _CERTIFICATE + 129)
def session(data):
    """Policy word, GODH certificate and session, as the platform takes them.

    What it accepts is whole: nonce, keys and policy are under a MAC.
    """
    _start(data)
    # But for the API version, the room of an RSA key and the signatures,
    # which firmware does not look at.
    made, = TARGETS['session'].seeds()
    assert data[:4] == made[:4] and data[12:168] == made[12:168]
    assert data[4 + _CERTIFICATE:] == made[4 + _CERTIFICATE:]


@target(lambda: [data[4:] for data in _sessions()],
        largest=_CERTIFICATE + 129)
def owner_session(data):
    """GODH certificate and session of an owner who keeps the keys.

    What is accepted is as it came, but for the room behind the key.
    """
    read = owner.read_session(data[:_CERTIFICATE], data[_CERTIFICATE:])
    again = owner.read_session(read.godh_certificate, read.session)
    assert again == read and read.session == data[_CERTIFICATE:]
    assert read.godh_certificate[:164] == data[:164]
    assert read.godh_certificate[0x414:] == data[0x414:_CERTIFICATE]


@target(lambda: [bytes(4) + bytes(range(1, 49)) + bytes(64)],
        largest=52 + 16384 + 16)
def owner_secret(data):
    """Header and data of an owner's packed secret."""
    packet = owner.read_secret(data[:52], data[52:], owner.area_at(0x810000))
    assert packet.header + packet.data == data


@functools.cache
def _measured():
    launch = _start(_sessions()[0])
    launch.update(bytes(4096))
    launch.measure()
    return launch


@target(lambda: [bytes(52 + 64)], (emulated_launch.CommandError,),
        largest=52 + 16384 + 16)
def secret_packet(data):
    """Header and data, as the platform takes them: nobody knows the TIK."""
    _measured().secret(data[:52], data[52:])
    raise AssertionError('a packet without the TIK was accepted')


def _tables():
    return [struct.pack('<16sH', bytes(range(16)), 4) + b'abcd',
            struct.pack('<16sH', secret.LUKS_PASSPHRASE_GUID.bytes_le, 32) +
            bytes(32) + struct.pack('<16sH', b'1' * 16, 1) + b'x']


@target(_tables, largest=20000)
def secret_table(data):
    """Entries of GUID, length and secret, built; a guest reads the same."""
    entries, at = {}, 0
    while at + 18 <= len(data):
        guid, size = struct.unpack_from('<16sH', data, at)
        entries[uuid.UUID(bytes_le=guid)] = data[at + 18:at + 18 + size]
        at += 18 + size
    table = secret.build_secret_table(entries)
    assert len(table) % 16 == 0 and len(table) <= secret.MAX_SIZE
    assert platforms.read_secret_table(table) == [
        (guid.bytes_le, value) for guid, value in entries.items()]


@target(lambda: [bytes(range(51))], largest=64)
def evidence(data):
    """A measurement, then API version and build, a byte each."""
    parsed = measurement.Evidence.parse(data[:48], *data[48:51].ljust(
        3, b'\0'))
    assert parsed.measure + parsed.mnonce == data[:48]


def _text(data):
    return base64.b64encode(data).decode()


def _evidence_bodies():
    body = {'evidence': {
        'technology': 'amd-sev', 'measurement': _text(bytes(48)),
        'api_major': 1, 'api_minor': 51, 'build_id': 3, 'policy': 59}}
    claims = {'claims': {'firmware_sha256': '00' * 32}}
    return [json.dumps(body).encode(), json.dumps(body | claims).encode()]


@target(_evidence_bodies, (service_errors.BadRequest,))
def evidence_json(data):
    """The body of a PUT of evidence, as far as its parsing goes."""
    body = document.parse_json(data)
    schemas.EVIDENCE.check_body(body)
    requests.parse_evidence(body['evidence'])


def _launch_bodies():
    return [json.dumps({'launch': {
        'server_id': str(uuid.UUID(int=1)), 'host': 'compute',
        'technology': 'amd-sev',
        'platform': {'pdh': _text(_platform().pdh),
                     'cert_chain': _text(_platform().cert_chain)}}}).encode()]


@target(_launch_bodies, (service_errors.BadRequest, errors.FormatError),
        largest=16384)
def launch_json(data):
    """The body that begins a launch, with the certificates in it."""
    body = document.parse_json(data)
    schemas.CREATE.check_body(body)
    platform = body['launch']['platform']
    chain.PlatformCertificates.from_libvirt(
        *(requests.decode(platform[name], 'platform_malformed', name)
          for name in ('pdh', 'cert_chain')))
