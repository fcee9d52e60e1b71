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

"""Which CPU a guest sees, as far as SEV-ES measures it: its signature.

Family, model and stepping of QEMU's CPU models (QEMU target/i386/cpu.c,
builtin_x86_defs); all versions of a model share them.
"""

import re

#: The emulated chip itself, for guests that get the host's CPU: a Milan.
CHIP = (25, 1, 1)

_MODELS = {
    'EPYC': (23, 1, 2),
    'EPYC-IBPB': (23, 1, 2),
    'EPYC-Rome': (23, 49, 0),
    'EPYC-Milan': (25, 1, 1),
    'EPYC-Genoa': (25, 17, 0),
    'EPYC-Turin': (26, 0, 0),
    'qemu64': (15, 107, 1),
    'kvm64': (15, 6, 1),
    'host': CHIP,
    'max': CHIP,
}
_NUMBERS = ('family', 'model', 'stepping')


class UnknownModel(Exception):
    """A CPU whose signature is not known here; the text says what to do."""


def signature(model, features):
    """CPUID function 1 EAX of a CPU as QEMU's ``-cpu`` names it.

    :param model: name of the model, with or without its version.
    :param features: its properties; ``family``, ``model`` and ``stepping``
        override the model's.
    :raises UnknownModel: the model is unknown, or a number malformed.
    """
    numbers = _MODELS.get(re.sub(r'-v\d+$', '', model))
    if numbers is None:
        raise UnknownModel(
            f'the emulated platform does not know CPU model {model}; it '
            f'knows {", ".join(sorted(_MODELS))}')
    try:
        family, number, stepping = (
            int(features[name], 0) if name in features else default
            for name, default in zip(_NUMBERS, numbers))
    except ValueError as error:
        raise UnknownModel(f'-cpu {model}: {error}') from error
    if not (0 <= family <= 270 and 0 <= number <= 255
            and 0 <= stepping <= 15):
        raise UnknownModel(f'-cpu {model}: family {family}, model {number}, '
                           f'stepping {stepping} are out of range')
    # The manual's base and extended family; volume 3, appendix E.
    base = min(family, 15)
    return ((family - base) << 20 | (number >> 4) << 16 | base << 8
            | (number & 15) << 4 | stepping)
