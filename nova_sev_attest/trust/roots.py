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

"""The roots that platforms are verified against.

AMD's ARK and ASK of each generation are pinned here by the SHA-256 of the
whole certificate; the files themselves come from AMD and are given by the
operator. The pins are those of the certificates in the virtee/sev project
(``src/certs/sev/builtin``); the RSA keys of Milan, Genoa and Turin are also
those of AMD's X.509 certificates for SEV-SNP. The Naples pins are of the ARK
with its signature, which AMD's first publication lacks.

Any other root is an emulated platform's: it comes by configuration alone
and is always flagged as emulated.
"""

import pathlib

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import chain
from nova_sev_attest.launch import errors

#: Generation -> SHA-256 of its ARK and of its ASK.
_PINS = {
    'naples': (
        'dedabca561e1dece8cc00b7bda864cf5f20b95017864408cfe18eaee0dce24b9',
        'c6f30cf923f526c3bcd5c8c221db51e0db65911782f046de17a6603131cdfd7f'),
    'rome': (
        '865977b268c16d5b27772b00aaefb4e737ba9499e818ed8e9f65b0cecefbc529',
        '7754a69407d25540fe3a695be6b02c58a53bffd12594f5c30793d6cb62875706'),
    'milan': (
        '1246469862b78a7a8625579b0378d1f8e975eb8b82a1623b579d7968a5969888',
        'c7c73765561c58003a3d09adb2c76993027dd3a1ec4e9be876024c035e015cec'),
    'genoa': (
        '8f4e3fd36589c23f1fe0c8338465bac7e2e066d97fc92f228bbee4fd356fb674',
        'c30307e4f594fb6c51fd753ab758eb78ad4bb70d9e4d96690e51c0621901031d'),
    'turin': (
        'f6405e5096a6eee1eb7d5df75c49f9b9f7c8357a31c7fff150149d68588a7bf7',
        '2ee285477f0d5eb94a69029197f4cf58ca82d8e1b9a276da1ac45b0db3f4be56'),
}

#: Generations of AMD's processors whose roots are pinned.
GENERATIONS = tuple(_PINS)

#: Names of AMD's own roots; what a policy trusts unless it says otherwise.
AMD_ROOTS = tuple(f'amd-{generation}' for generation in GENERATIONS)

_NAPLES_UNSIGNED_ARK_SIZE = 576
_NAPLES_ARK_SIGNATURE = 'ark_naples.sig'
_NAPLES_ARK_SIGNATURE_SIZE = 256
_NAPLES_SIZE = 832
_MAX_FILE_SIZE = 2 * 1600


class AnchorRefused(errors.LaunchError):
    """A root that is configured and cannot be trusted.

    :ivar code: ``anchor_refused``.
    """

    code = 'anchor_refused'


def load_anchors(directory=None, extra=()):
    """Load the trust anchors.

    :param directory: folder with AMD's files under the names that AMD
        publishes them by, ``ask_ark_<generation>.cert``: ASK then ARK. A
        generation without a file is not trusted. An ARK of Naples without
        its signature is completed from ``ark_naples.sig`` (256 bytes).
        None: no AMD root.
    :param extra: strings ``name=/path/to/ask_ark.cert``, anchors of emulated
        platforms.
    :returns: list of chain.Anchor.
    :raises AnchorRefused: a file cannot be read, is malformed, misses its
        pin or does not verify; a name is unfit or given twice.
    """
    anchors = [] if directory is None else _load_amd(pathlib.Path(directory))
    names = set(AMD_ROOTS)
    for item in extra:
        name, separator, path = item.partition('=')
        if not separator or not name.strip() or not path.strip():
            raise AnchorRefused(
                f'extra anchor {item!r}: expected name=/path/to/ask_ark.cert')
        name = name.strip()
        if name in names:
            raise AnchorRefused(
                f'extra anchor {name}: the name is taken; choose another')
        names.add(name)
        anchors.append(_load_extra(name, pathlib.Path(path.strip())))
    return anchors


def _load_amd(directory):
    prefix, suffix = 'ask_ark_', '.cert'
    try:
        found = {path.name[len(prefix):-len(suffix)]: path
                 for path in directory.iterdir()
                 if path.name.startswith(prefix) and
                 path.name.endswith(suffix)}
    except OSError as exc:
        raise AnchorRefused(
            f'the folder of AMD roots cannot be read: {exc}') from exc
    unknown = sorted(set(found) - set(_PINS))
    if unknown:
        raise AnchorRefused(
            f'{found[unknown[0]]}: no pin is known for generation '
            f'{unknown[0]!r}; expected one of {", ".join(_PINS)}. A root '
            f'that is not AMD\'s belongs in the extra anchors')
    return [_load_generation(generation, found[generation])
            for generation in _PINS if generation in found]


def pinned_anchor(generation, data, origin):
    """The anchor of a generation, from a file's contents.

    :param generation: 'naples', 'rome', 'milan', 'genoa' or 'turin'
    :param data: ASK then ARK, 1664 or 3200 bytes
    :param origin: where the data came from, for messages
    :returns: chain.Anchor named ``amd-<generation>``
    :raises AnchorRefused: malformed, not of this generation's pins, or not
        signed by each other
    """
    ask, ark = _split(origin, data)
    for certificate, pin in zip((ark, ask), _PINS[generation]):
        if certificate.sha256.hex() != pin:
            raise AnchorRefused(
                f'{origin}: the {certificate.usage.name} has SHA-256 '
                f'{certificate.sha256.hex()}, expected {pin}; get the file '
                f'from AMD again')
    return _anchor(origin, f'amd-{generation}', ark, ask, emulated=False)


def recognise(ask, ark):
    """The anchor that AMD's certificates make, whatever generation's.

    :param ask: AmdCertificate
    :param ark: AmdCertificate
    :returns: chain.Anchor
    :raises AnchorRefused: they are not a pinned pair
    """
    for generation, pins in _PINS.items():
        if (ark.sha256.hex(), ask.sha256.hex()) == pins:
            return _anchor('ASK and ARK', f'amd-{generation}', ark, ask,
                           emulated=False)
    raise AnchorRefused(
        f'the ARK has SHA-256 {ark.sha256.hex()} and the ASK '
        f'{ask.sha256.hex()}, which are no pair of AMD\'s that this release '
        f'knows ({", ".join(_PINS)})')


def _load_generation(generation, path):
    return pinned_anchor(generation, completed(_read(path), path.parent),
                         path)


def completed(data, directory):
    """An ask_ark file; that of Naples gets its ARK's signature if it lacks.

    :param data: bytes of the file
    :param directory: pathlib.Path of the folder that has ``ark_naples.sig``
    :raises AnchorRefused: the signature is needed and is not there
    """
    if len(data) != _NAPLES_SIZE + _NAPLES_UNSIGNED_ARK_SIZE:
        return data
    path = directory / _NAPLES_ARK_SIGNATURE
    signature = _read(path)
    if len(signature) != _NAPLES_ARK_SIGNATURE_SIZE:
        raise AnchorRefused(
            f'{path} has {len(signature)} bytes, expected '
            f'{_NAPLES_ARK_SIGNATURE_SIZE}')
    return data + signature


def _load_extra(name, path):
    ask, ark = _split(path, _read(path))
    return _anchor(path, name, ark, ask, emulated=True)


def _anchor(path, name, ark, ask, emulated):
    try:
        return chain.Anchor(name, ark, ask, emulated)
    except errors.ChainVerificationError as exc:
        raise AnchorRefused(f'{path}: {exc}') from exc


def _split(path, data):
    parse = certificates.AmdCertificate.parse
    half = len(data) // 2
    try:
        return parse(data[:half]), parse(data[half:])
    except errors.CertificateMalformed as exc:
        raise AnchorRefused(
            f'{path}: expected an ASK and an ARK, one after the other: '
            f'{exc}') from exc


def _read(path):
    try:
        with open(path, 'rb') as stream:
            data = stream.read(_MAX_FILE_SIZE + 1)
    except OSError as exc:
        raise AnchorRefused(f'{path} cannot be read: {exc}') from exc
    if len(data) > _MAX_FILE_SIZE:
        raise AnchorRefused(
            f'{path} has more than the {_MAX_FILE_SIZE} bytes of an ASK and '
            f'an ARK')
    return data
