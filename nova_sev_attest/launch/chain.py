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

"""A SEV platform's certificate chain, from AMD's root to the PDH.

    ARK -> ASK -> CEK -> PEK <- OCA        PEK -> PDH

The host shows PDH, PEK, OCA and CEK, in the form of PDH_CERT_EXPORT of the AMD
SEV API specification (publication 55766). ARK and ASK come from the verifier's
own configuration and are never taken from the host.
"""

import dataclasses

from cryptography.hazmat.primitives.asymmetric import ec

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import errors

_USAGE = certificates.Usage
_ALGORITHM = certificates.Algorithm
_ECDSA = (_ALGORITHM.ECDSA_SHA256, _ALGORITHM.ECDSA_SHA384)
_ECDH = (_ALGORITHM.ECDH_SHA256,)

_VERIFIED_BY_CHAIN = object()


@dataclasses.dataclass(frozen=True)
class Anchor:
    """A trusted pair of root (ARK) and signing key (ASK).

    :ivar name: how configuration, policies and verdicts call it.
    :ivar ark: self-signed root, an AmdCertificate.
    :ivar ask: signed by ``ark``, an AmdCertificate.
    :ivar emulated: whether platforms below it are software, no hardware.
    :raises ChainVerificationError: when constructed from certificates that
        do not fit together.
    """

    name: str
    ark: certificates.AmdCertificate
    ask: certificates.AmdCertificate
    emulated: bool

    def __post_init__(self):
        for usage, certificate in ((_USAGE.ARK, self.ark),
                                   (_USAGE.ASK, self.ask)):
            if certificate.usage is not usage:
                raise errors.ChainVerificationError(
                    usage.name, None,
                    f'anchor {self.name} has a certificate of usage '
                    f'{certificate.usage.name} in its place')
            try:
                certificate.verify_issued_by(self.ark)
            except errors.CertificateVerificationError as exc:
                raise errors.ChainVerificationError(
                    usage.name, 'ARK', f'anchor {self.name}: {exc}') from exc


@dataclasses.dataclass(frozen=True)
class PlatformFacts:
    """What a verified chain says about a platform; no key in it.

    The CEK names a chip only in so far as its certificate was obtained for
    that chip from AMD; neither it nor the chain tells the firmware's
    version.

    :ivar anchor_name: name of the anchor that the chain ends in.
    :ivar emulated: whether that anchor stands for software platforms.
    :ivar api: SEV API version, (major, minor), of the firmware that made
        the PDH.
    :ivar cek_fingerprint: SHA-256 of the CEK's whole certificate, 32 bytes.
    """

    anchor_name: str
    emulated: bool
    api: tuple
    cek_fingerprint: bytes


class VerifiedPlatform:
    """A platform whose chain was verified.

    Only :meth:`PlatformCertificates.verify` makes one.

    :ivar pdh: the platform's Diffie-Hellman SevCertificate.
    :ivar facts: PlatformFacts. Its fields are attributes here, too.
    :ivar oca_fingerprint: SHA-256 of the whole certificate of who owns the
        platform, 32 bytes.
    :ivar chip_id: the id for which the CEK was had from AMD; None when the
        CEK is the one that the host shows, whose fingerprint names no chip.
    """

    def __init__(self, pdh, facts, oca_fingerprint=None, chip_id=None, *,
                 token=None):
        if token is not _VERIFIED_BY_CHAIN:
            raise errors.StateError(
                'a verified platform comes from PlatformCertificates.verify '
                'only')
        self.pdh = pdh
        self.facts = facts
        self.oca_fingerprint = oca_fingerprint
        self.chip_id = chip_id

    @property
    def anchor_name(self):
        """Name of the root, such as ``amd-milan``."""
        return self.facts.anchor_name

    @property
    def emulated(self):
        """Whether the root is an emulated platform's."""
        return self.facts.emulated

    @property
    def api(self):
        """(major, minor) of the firmware that made the PDH."""
        return self.facts.api

    @property
    def cek_fingerprint(self):
        """SHA-256 of the whole CEK certificate, 32 bytes."""
        return self.facts.cek_fingerprint


def _check_fitness(certificate, usage, algorithms):
    name = usage.name
    if certificate.usage is not usage:
        raise errors.ChainVerificationError(
            name, None,
            f'a certificate of usage {certificate.usage.name} is in its '
            f'place; the host must show the PDH apart, and PEK, OCA, CEK in '
            f'this order')
    if certificate.algorithm not in algorithms:
        raise errors.ChainVerificationError(
            name, None,
            f'its key is for {certificate.algorithm.name}, expected '
            f'{" or ".join(algorithm.name for algorithm in algorithms)}')
    if certificate.curve is not ec.SECP384R1:
        raise errors.ChainVerificationError(
            name, None,
            f'its key is on curve {certificate.curve.name}, expected '
            f'secp384r1 (P-384)')


def _check_issued(subject, issuer):
    try:
        subject.verify_issued_by(issuer)
    except errors.CertificateVerificationError as exc:
        raise errors.ChainVerificationError(
            subject.usage.name, issuer.usage.name,
            f'{exc}; the chain is damaged, or parts of two platforms or of '
            f'two ownerships were mixed: export the platform certificates '
            f'again') from exc


@dataclasses.dataclass(frozen=True)
class PlatformCertificates:
    """The four certificates that a SEV host shows, parsed, not trusted.

    :ivar chip_id: the id for which the CEK was had from AMD's key server or
        the operator's own store; None when the host showed the CEK.
    """

    pdh: certificates.SevCertificate
    pek: certificates.SevCertificate
    oca: certificates.SevCertificate
    cek: certificates.SevCertificate
    chip_id: bytes | None = None

    @classmethod
    def from_libvirt(cls, pdh, cert_chain, cek=None):
        """Parse what libvirt's ``virNodeGetSEVInfo`` returns, decoded.

        :param pdh: the PDH certificate, 2084 bytes.
        :param cert_chain: PEK, OCA and CEK, 6252 bytes.
        :param cek: 2084 bytes of a CEK certificate to use in place of the
            host's, such as the one that AMD signed for the chip.
        :raises CertificateMalformed: sizes or contents are wrong.
        """
        size = certificates.SEV_CERTIFICATE_SIZE
        if len(cert_chain) != 3 * size:
            raise errors.CertificateMalformed(
                f'a platform certificate chain is PEK, OCA and CEK of {size} '
                f'bytes each; expected {3 * size} bytes, got '
                f'{len(cert_chain)}')
        parse = certificates.SevCertificate.parse
        return cls(pdh=parse(pdh), pek=parse(cert_chain[:size]),
                   oca=parse(cert_chain[size:2 * size]),
                   cek=parse(cert_chain[2 * size:] if cek is None else cek))

    def of_chip(self, chip_id, cek):
        """These certificates with the CEK that AMD signed for the chip.

        :param chip_id: the chip's id, bytes, under which AMD's key server or
            the operator's store has the CEK; never said of a CEK that came
            from the host.
        :param cek: SevCertificate.
        :returns: PlatformCertificates.
        """
        return dataclasses.replace(self, cek=cek, chip_id=chip_id)

    def verify(self, anchors):
        """Verify the chain up to one of the anchors.

        :param anchors: the trusted Anchors to choose from. The ASK that
            signed the CEK decides which it is.
        :returns: VerifiedPlatform.
        :raises ChainVerificationError: a certificate is not fit for its
            place (usage, algorithm, curve) or a signature is missing or
            wrong.
        """
        _check_fitness(self.cek, _USAGE.CEK, _ECDSA)
        _check_fitness(self.oca, _USAGE.OCA, _ECDSA)
        _check_fitness(self.pek, _USAGE.PEK, _ECDSA)
        _check_fitness(self.pdh, _USAGE.PDH, _ECDH)
        anchor = self._find_anchor(anchors)
        _check_issued(self.oca, self.oca)
        _check_issued(self.pek, self.oca)
        _check_issued(self.pek, self.cek)
        _check_issued(self.pdh, self.pek)
        return VerifiedPlatform(
            self.pdh,
            PlatformFacts(
                anchor_name=anchor.name, emulated=anchor.emulated,
                api=(self.pdh.api_major, self.pdh.api_minor),
                cek_fingerprint=self.cek.sha256),
            oca_fingerprint=self.oca.sha256, chip_id=self.chip_id,
            token=_VERIFIED_BY_CHAIN)

    def find_root(self, anchors):
        """Which of the anchors signed the CEK, or None."""
        for anchor in anchors:
            try:
                self.cek.verify_issued_by(anchor.ask)
            except errors.CertificateVerificationError:
                continue
            return anchor
        return None

    def _find_anchor(self, anchors):
        found = self.find_root(anchors)
        if found is not None:
            return found
        names = ', '.join(anchor.name for anchor in anchors) or 'none'
        raise errors.ChainVerificationError(
            'CEK', 'ASK',
            f'not signed by the ASK of any trusted root (tried: {names}). A '
            f"host's own copy of the CEK is usually not signed by AMD: get "
            f"the signed one for the chip's id from AMD's key server and use "
            f'it in its place. If the platform has another root, the '
            f"operator must configure it and the owner's policy name it")
