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

from keystoneauth1 import exceptions as ksa_exceptions
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
import pytest

from nova_sev_attest.client import exceptions as client_exceptions
from nova_sev_attest import files
from nova_sev_attest.launch import errors
from nova_sev_attest.osc import base
from tests.unit.osc import fakes


@pytest.mark.parametrize('error, words', [
    (client_exceptions.NotFound(404, 'attestation.x', 'No such thing.',
                                request_id='req-1'),
     'No such thing. (HTTP 404, req-1)'),
    (client_exceptions.RequestRefused(401, '', ''),
     'The key service refused the request (HTTP 401): no reason given. The '
     'token is not valid, or not any more: log in anew, with --os-cloud or '
     'without OS_TOKEN.'),
    (client_exceptions.ServiceUnavailable('It is silent.'),
     'It is silent. "openstack catalog show attestation" tells where it '
     'should answer.'),
    (PermissionError(13, 'Permission denied', 'key'),
     'key: Permission denied'),
    (sdk_exceptions.DuplicateResource('More than one.'),
     'More than one. Name it by its ID.'),
    (FileNotFoundError(2, 'No such file or directory', 'x.fd'),
     'x.fd: No such file or directory'),
    (files.Unusable('x is no y'), 'x is no y'),
    (errors.FormatError('two\nlines'), 'two lines'),
    (ksa_exceptions.Unauthorized('who?'), 'who? (HTTP 401)'),
    (KeyError('status'), "unexpected KeyError: 'status'; please report it "
                         "with what --debug shows"),
    (files.Unusable('\x1b[2Jgone'), '\ufffd[2Jgone')])
def test_an_error_is_one_line(error, words):
    class Fails(base.Command):
        def take_action(self, parsed_args):
            raise error

    with pytest.raises(exceptions.CommandError) as caught:
        fakes.App().run(Fails)
    assert str(caught.value) == words
    assert caught.value.__cause__ is error


def test_a_broken_pipe_is_left_to_the_shell():
    class Fails(base.Command):
        def take_action(self, parsed_args):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        fakes.App().run(Fails)


def test_the_status_is_the_verdict():
    class Says(base.Command):
        status = 2

        def take_action(self, parsed_args):
            pass

    assert fakes.App().run(Says) == 2


@pytest.mark.parametrize('word, names, words', [
    ('wbe', ['web', 'db'], 'There is no policy "wbe". Did you mean web?'),
    ('WEB', ['my-web-1'], 'There is no policy "WEB". Did you mean my-web-1?'),
    ('x', ['web', 'db'], 'There is no policy "x". There is db, web.'),
    ('x', list('abcdefg'), 'There is no policy "x". There is a, b, c, d, e '
                           'and 2 more.'),
    ('x', [None], 'There is no policy "x".'),
    ('\x07', [], 'There is no policy "\ufffd".')])
def test_suggestions(word, names, words):
    assert str(base.unknown(word, 'policy', names)) == words


def test_uuids():
    assert base.is_uuid('0D6A1F0E-4f0e-4e6c-9a52-0d9d1a7c2f11')
    assert not base.is_uuid('0d6a1f0e4f0e4e6c9a520d9d1a7c2f11')
    assert not base.is_uuid('web')
