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

"""One process that wants the CEK of a chip: see test_chips.py.

Arguments: URL of the server, folder of the cache, folder with ask_ark.cert,
pek.cert, and the chip's id in hexadecimal. Prints the CEK's SHA-256.
"""

import pathlib
import sys

from nova_sev_attest.launch import certificates
from nova_sev_attest.launch import chain
from nova_sev_attest.trust import chips
from nova_sev_attest.trust import kds


def main(url, cache, folder, chip_id):
    folder = pathlib.Path(folder)
    ask_ark = (folder / 'ask_ark.cert').read_bytes()
    parse = certificates.AmdCertificate.parse
    anchor = chain.Anchor('test', parse(ask_ark[832:]), parse(ask_ark[:832]),
                          emulated=True)
    found = chips.ChipCertificates(
        [anchor], cache=cache, server=kds.HttpServer(url)).get(
            bytes.fromhex(chip_id), certificates.SevCertificate.parse(
                (folder / 'pek.cert').read_bytes()))
    print(found.sha256.hex())


if __name__ == '__main__':
    main(*sys.argv[1:])
