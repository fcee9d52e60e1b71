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

"""The program of doc/source/sdk.rst, run as it stands there."""

import pathlib
import re
import textwrap

from nova_sev_attest.client import exceptions
from tests.functional.keyservice import harness
from tests.functional.osc import conftest

PAGE = pathlib.Path(__file__).parents[3] / 'doc' / 'source' / 'sdk.rst'


def program():
    """The page's code blocks, each a piece of one program."""
    return [textwrap.dedent(block) for block in re.findall(
        r'^\.\. code-block:: python\n\n((?:    .*\n|\n)+)',
        PAGE.read_text(), re.MULTILINE)]


def test_the_program(keyservice, cloud, files, monkeypatch, capsys):
    for name, value in conftest.environment(cloud).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(files)
    (files / 'vmlinuz-new').write_bytes(b'a newer kernel')
    keyservice.policy(name='other', approval='owner', is_default=False)
    host = harness.Host(keyservice, policy='other')
    host.launch()
    host.send(host.measure())
    found = {}
    for at, piece in enumerate(program()):
        exec(compile(piece, f'{PAGE.name}, piece {at + 1}', 'exec'), found)
    # It did what its words say.
    printed = capsys.readouterr().out
    assert found['changed'].body['revision'] == 2
    assert 'somebody changed it meanwhile' in printed
    policy = found['attestation'].policies.get(found['policy'].body['id'])
    assert policy.body['revision'] == 4 and len(policy.body['kernels']) == 2
    assert policy.body['revoked_at'] is None
    assert host.show()['status'] == 'released'
    assert f'{host.server_id} awaiting_release' in printed
    assert 'launch.session_issued' in printed
    assert 'attestation.firmware_in_use' in printed
    assert 'host-1 emulated verified' in printed
    assert harness.PASSPHRASE.decode() not in printed


def test_every_error_is_told(keyservice):
    """The table has each class that a caller may meet."""
    told = PAGE.read_text()
    for name, kind in vars(exceptions).items():
        if isinstance(kind, type) and name not in (
                # Of compute hosts.
                'AttestationDenied', 'OwnerTimeout'):
            assert f'``{name}``' in told
