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

"""The operator's commands of all pages, run in order.

tests/unit/doc/test_commands.py sees to it that none is left out.
"""

import pathlib

from tests import documented
from tests.functional.keyservice import test_audit

PROGRAM = 'nova-sev-attest-manage'


def commands():
    """Each as its words after the program's name.

    Where the text only names what another command does, it is left out.
    """
    found = [command for command in documented.commands()
             if command.program == PROGRAM
             and not command.text.startswith(f'{PROGRAM} amd-root')]
    for command in found:
        if not command.inline or not any(
                other.text.startswith(f'{command.text} ')
                for other in found):
            yield command.words[1:]


class _Node:
    """A node of the service that is set up by what is run.

    :ivar values: what the pages' words stand for
    """

    def __init__(self, folder):
        self._audit = test_audit.Audit(f'sqlite:///{folder}/db', folder)
        with self._audit.config_file.open('a') as stream:
            stream.write(f'[sealing]\nkey_repository = {folder}/sealing\n')
        log = folder / 'service.log'
        log.touch()
        self.values = {'ID]': 'p', '[--project': '--project',
                       '/srv/kept/service.log': str(log)}

    def run(self, capsys, words):
        if words == ['audit-key', 'retire', 'ID']:
            # "To rotate, create another one."
            words = words[:2] + [self._audit.keys.private_ids()[0]]
            self._audit.keys.create()
        elif 'ID' in words:
            words = [word.replace('ID', 'p') for word in words]
        words = [self.values.get(word, word) for word in words]
        assert self._audit.run(capsys, *words)[0] == 0, words
        if words == ['audit-key', 'list']:
            self._kept()

    def _kept(self):
        """Something happens, and its signed head goes elsewhere."""
        self._audit.write(3)
        head = str(self._audit.head())
        self.values['HEAD'] = head
        log = self.values['/srv/kept/service.log']
        with open(log, 'a') as stream:
            stream.write(f'... {head} ...\n')
        public, = pathlib.Path(self._audit.keys.path).glob('*.pub')
        self.values['/srv/kept/0001-5f0e2c1a.pub'] = str(public)


def test_every_command_of_the_operator(tmp_path, capsys):
    node = _Node(tmp_path)
    done = []
    for words in commands():
        node.run(capsys, words)
        done.append(' '.join(words[:2]))
    assert {'db sync', 'db check', 'sealing-key rotate', 'audit verify',
            'audit-key retire', 'launch expire'} <= set(done)
