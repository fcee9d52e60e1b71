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

"""Certificate files as users have them.

Known layouts: libvirt's ``pdh`` and ``cert-chain`` (PEK, OCA, CEK), the whole
chain that ``sevctl export --full`` writes (PDH, PEK, OCA, CEK, ASK, ARK),
AMD's ``ask_ark`` files (ASK, ARK), and each certificate alone; as they are, in
base64, or in PEM armour under any label. Every certificate names its usage,
so a file may hold them in any order and a set may be spread over any number of
files.

Reading is not trusting: what comes out is parsed, nothing is verified.
"""

import base64
import binascii
import dataclasses
import re
import struct
import types

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import errors

#: Largest file that is read, in bytes; a whole chain in PEM has about 16 KiB.
MAX_FILE_SIZE = 64 * 1024
#: Most files that make one set.
MAX_FILES = 16
_MAX_CERTIFICATES = 6  # of one file

_USAGE = certificates.Usage
_SEV_USAGES = (_USAGE.PDH, _USAGE.PEK, _USAGE.OCA, _USAGE.CEK)
_ORDER = _SEV_USAGES + (_USAGE.ASK, _USAGE.ARK)

_SEV_HEADER = struct.Struct('<I4xI')
_AMD_HEADER = struct.Struct('<I32xI16xII')

# The ARK of Naples was published without its signature, the signature apart.
_UNSIGNED_NAPLES_ARK_SIZE = 576
_NAPLES_ARK_SIGNATURE_SIZE = 256

_LAYOUTS = {
    (_USAGE.PEK, _USAGE.OCA, _USAGE.CEK): "libvirt's cert-chain",
    (_USAGE.PDH, _USAGE.PEK, _USAGE.OCA, _USAGE.CEK): "sevctl's chain",
    _ORDER: "sevctl's full chain",
    (_USAGE.ASK, _USAGE.ARK): "AMD's ask_ark bundle",
}

_TEXT = frozenset(range(0x20, 0x7f)) | frozenset(b'\t\n\r')
_PEM = re.compile(
    rb'-----BEGIN ([A-Z0-9 ]{1,64})-----([A-Za-z0-9+/=\s]*)'
    rb'-----END \1-----')


class BundleMalformed(errors.FormatError):
    """A file that is none of the known layouts.

    :ivar code: ``bundle_malformed``.
    """

    code = 'bundle_malformed'


class BundleConflict(errors.FormatError):
    """Different certificates for one place, or a set without one it needs.

    :ivar code: ``bundle_conflict``.
    """

    code = 'bundle_conflict'


class BundleIncomplete(BundleConflict):
    """A certificate is missing from the set.

    :ivar code: ``bundle_incomplete``.
    """

    code = 'bundle_incomplete'


@dataclasses.dataclass(frozen=True)
class Bundle:
    """The certificates of one platform, of AMD, or of both.

    :ivar certificates: mapping of certificates.Usage to SevCertificate (PDH,
        PEK, OCA, CEK) or AmdCertificate (ASK, ARK).
    :ivar origins: mapping of certificates.Usage to the name of the file that
        the certificate came from.
    :ivar recognised: mapping of each file's name to what it was recognised
        as, such as "libvirt's cert-chain (PEK, OCA, CEK)".
    """

    certificates: types.MappingProxyType
    origins: types.MappingProxyType
    recognised: types.MappingProxyType

    @classmethod
    def read(cls, files):
        """Read a set of files.

        The same certificate may be there several times, as where layouts
        overlap. The one case in which two different ones may claim one
        place: a CEK that carries a signature by an ASK takes that of a CEK
        of the same key that carries none, which is what hosts show.

        :param files: mapping of a name, for messages, to the file's bytes:
            at most 16 files of at most 64 KiB.
        :raises BundleMalformed: a file is empty, too large, or of no known
            layout.
        :raises BundleConflict: two different certificates for one place.
        :raises CertificateMalformed: what looks like a certificate is none.
        """
        if not files:
            raise BundleIncomplete('no certificate file was given')
        if len(files) > MAX_FILES:
            raise BundleConflict(
                f'{len(files)} certificate files were given, expected at '
                f'most {MAX_FILES}')
        read = {name: _read_file(name, data) for name, data in files.items()}
        recognised = {name: _describe(found) for name, found in read.items()}
        _complete_naples_ark(read)
        chosen, origins = {}, {}
        for name, found in read.items():
            for certificate in found:
                usage = certificate.usage
                if usage in chosen:
                    certificate, name_of = _settle(
                        recognised, chosen[usage], origins[usage],
                        certificate, name)
                else:
                    name_of = name
                chosen[usage], origins[usage] = certificate, name_of
        return cls(*(types.MappingProxyType(part)
                     for part in (chosen, origins, recognised)))

    def get(self, usage):
        """The certificate of a usage.

        :raises BundleIncomplete: the set has none.
        """
        self._require((usage,))
        return self.certificates[usage]

    def platform(self):
        """The four certificates of the platform, as PlatformCertificates.

        :raises BundleIncomplete: one of PDH, PEK, OCA, CEK is missing.
        """
        self._require(_SEV_USAGES)
        return chain.PlatformCertificates(
            pdh=self.certificates[_USAGE.PDH],
            pek=self.certificates[_USAGE.PEK],
            oca=self.certificates[_USAGE.OCA],
            cek=self.certificates[_USAGE.CEK])

    def _require(self, usages):
        missing = [usage.name for usage in usages
                   if usage not in self.certificates]
        if missing:
            raise BundleIncomplete(
                f'missing: {", ".join(missing)}. {_list(self.recognised)}')


def _list(recognised):
    return 'Recognised: ' + '; '.join(
        f'{name}: {what}' for name, what in recognised.items())


def _settle(recognised, old, old_name, new, new_name):
    """Which of two certificates of one usage holds, and its file."""
    usage = new.usage
    if old.to_bytes() == new.to_bytes():
        return old, old_name
    if usage is _USAGE.CEK and (
            (old.curve, old.x, old.y) == (new.curve, new.x, new.y)):
        signed = [pair for pair in ((old, old_name), (new, new_name))
                  if any(signature.usage is _USAGE.ASK
                         for signature in pair[0].signatures)]
        if len(signed) == 1:
            return signed[0]
    raise BundleConflict(
        f'{old_name} and {new_name} hold different {usage.name} '
        f'certificates; give those of one platform. {_list(recognised)}')


def _describe(found):
    if isinstance(found[0], _NaplesArkSignature):
        return 'the signature of the ARK of Naples'
    usages = tuple(certificate.usage for certificate in found)
    names = ', '.join(usage.name for usage in usages)
    layout = _LAYOUTS.get(usages)
    return names if layout is None else f'{layout} ({names})'


class _UnsignedNaplesArk(bytes):
    """576 bytes, without the signature."""

    usage = _USAGE.ARK


class _NaplesArkSignature(bytes):
    """256 bytes, which complete an unsigned ARK."""


def _complete_naples_ark(read):
    """Replace the two parts of an ARK, in place, by the whole."""
    unsigned = [(name, at) for name, found in read.items()
                for at, item in enumerate(found)
                if isinstance(item, _UnsignedNaplesArk)]
    signatures = [name for name, found in read.items()
                  if isinstance(found[0], _NaplesArkSignature)]
    if len(unsigned) != len(signatures) or len(unsigned) > 1:
        raise BundleIncomplete(
            f'an ARK of Naples without its signature (576 bytes) and that '
            f'signature (256 bytes) belong together, one of each; found '
            f'{len(unsigned)} and {len(signatures)}: '
            f'{", ".join([name for name, _at in unsigned] + signatures)}')
    for name, at in unsigned:
        signature, = read[signatures[0]]
        read[name][at] = certificates.AmdCertificate.parse(
            read[name][at] + signature)
        read[signatures[0]].clear()


def _read_file(name, data):
    """The certificates of a file, a list of one or more, in its order."""
    if not data:
        raise BundleMalformed(f'{name} is empty')
    if len(data) > MAX_FILE_SIZE:
        raise BundleMalformed(
            f'{name} has {len(data)} bytes, expected a certificate file of '
            f'at most {MAX_FILE_SIZE}')
    data = bytes(data)
    parts = _decode_text(name, data) if _TEXT.issuperset(data) else [data]
    if len(parts) == 1 and len(parts[0]) == _NAPLES_ARK_SIGNATURE_SIZE:
        return [_NaplesArkSignature(parts[0])]
    return [certificate for part in parts for certificate in _split(
        name, part)]


def _decode_text(name, data):
    """What a text file holds: the contents of its PEM blocks, or base64."""
    blocks = list(_PEM.finditer(data))
    rest = _PEM.sub(b'', data)
    if not blocks:
        return [_decode_base64(name, data)]
    if rest.strip():
        raise BundleMalformed(
            f'{name} has text outside of its PEM blocks, or a damaged block')
    if len(blocks) > _MAX_CERTIFICATES:
        raise BundleMalformed(
            f'{name} has {len(blocks)} PEM blocks, expected at most '
            f'{_MAX_CERTIFICATES}')
    return [_decode_base64(name, block.group(2)) for block in blocks]


def _decode_base64(name, text):
    try:
        return base64.b64decode(b''.join(text.split()), validate=True)
    except binascii.Error:
        raise BundleMalformed(
            f'{name} is text, and neither base64 nor PEM') from None


def _split(name, data):
    found, at = [], 0
    while at < len(data):
        if len(found) == _MAX_CERTIFICATES:
            raise BundleMalformed(
                f'{name} goes on after {_MAX_CERTIFICATES} certificates')
        size, parse = _recognise(name, data, at)
        if len(data) - at < size:
            raise BundleMalformed(
                f'{name} breaks off: {size} bytes of a certificate are '
                f'expected at offset {at}, {len(data) - at} are there')
        try:
            found.append(parse(data[at:at + size]))
        except errors.CertificateMalformed as exc:
            raise errors.CertificateMalformed(
                f'{name}, offset {at}: {exc}') from exc
        at += size
    if not found:
        raise BundleMalformed(f'{name} holds no certificate')
    return found


def _recognise(name, data, at):
    """Size and parser of the certificate that begins at an offset."""
    rest = len(data) - at
    if rest >= _SEV_HEADER.size:
        version, usage = _SEV_HEADER.unpack_from(data, at)
        if version == 1 and usage in _SEV_USAGES:
            return (certificates.SEV_CERTIFICATE_SIZE,
                    certificates.SevCertificate.parse)
    if rest >= _AMD_HEADER.size:
        version, usage, exponent, modulus = _AMD_HEADER.unpack_from(data, at)
        if (version == 1 and usage in (_USAGE.ASK, _USAGE.ARK)
                and exponent == modulus):
            if (rest == _UNSIGNED_NAPLES_ARK_SIZE and modulus == 2048
                    and usage == _USAGE.ARK):
                return rest, _UnsignedNaplesArk
            for size, bits in certificates.AmdCertificate.SIZES.items():
                if bits == modulus:
                    return size, certificates.AmdCertificate.parse
    if data[at:at + 2] == b'\x30\x82':
        raise BundleMalformed(
            f'{name} holds an X.509 certificate, as SEV-SNP uses them '
            f'(VCEK, ASK, ARK); SEV and SEV-ES need PDH, PEK, OCA and CEK in '
            f'AMD\'s own format')
    raise BundleMalformed(
        f'{name}: no certificate begins at offset {at}; expected PDH, PEK, '
        f'OCA, CEK, ASK or ARK, as they are, in base64 or in PEM')
