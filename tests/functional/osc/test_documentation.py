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

"""The commands of README.rst and doc/source/cli/index.rst."""

from importlib import metadata
import pathlib
import re
import shlex

import pytest

from tests.functional.keyservice import harness

CHECKOUT = pathlib.Path(__file__).parents[3]
PAGE = CHECKOUT / 'doc' / 'source' / 'cli' / 'index.rst'
README = CHECKOUT / 'README.rst'
COMMANDS = {each.name.replace('_', ' '): each for each in
            metadata.entry_points(group='openstack.attestation.v1')}


def commands(page=PAGE):
    """Each openstack command of a page, as its words."""
    text = page.read_text().replace('\\\n', ' ')
    return [shlex.split(line)[1:] for line in re.findall(
        r'^ +(openstack attestation .*)$', text, re.MULTILINE)]


def test_there_are_some():
    assert len(commands()) > 15
    assert len(commands(README)) == 2


@pytest.mark.parametrize('words', commands() + commands(README),
                         ids=' '.join)
def test_every_command_is_one(words):
    name = next(name for name in COMMANDS
                if words[:len(name.split())] == name.split())
    command = COMMANDS[name].load()(None, None)
    # Exits where an option is wrong or missing.
    command.get_parser(name).parse_args(words[len(name.split()):])


def test_the_life_of_a_policy(openstack, files, keyservice, cloud):
    """What the page does with a policy, in its order."""
    (files / 'vmlinuz-new').write_bytes(b'a newer kernel')
    cloud.barbican.names[keyservice.secret()] = 'passphrase'
    for words in commands():
        if words[1] == 'policy':
            done = openstack(*words)
            assert done.status == 0, (words, done.err)
    policy = openstack('attestation', 'policy', 'show', 'web', '-f',
                       'json').json
    assert len(policy['kernels']) == 1 and policy['revoked_at']
    assert policy['limits']['max_releases'] == 10


def test_a_launch_is_looked_at(openstack, files, keyservice, cloud):
    keyservice.policy()
    host = harness.Host(keyservice)
    cloud.nova.names['web-1'] = host.server_id
    host.launch()
    host.send(host.measure())
    host.outcome('running')
    seen = [words for words in commands()
            if words[1:3] in (['launch', 'list'], ['launch', 'show'],
                              ['launch', 'watch'])]
    assert len(seen) == 4
    for words in seen:
        done = openstack(*words)
        assert done.status == 0, (words, done.err)
    assert (files / 'launch.svg').stat().st_size > 1000
