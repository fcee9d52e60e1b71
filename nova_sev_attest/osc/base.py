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

"""What all commands have in common."""

import contextlib
import itertools
import logging

from osc_lib.command import command
from osc_lib import exceptions

_VERBOSE = 2


class _Told:
    """A command whose errors are one line, and whose status may be a verdict.

    ``self.status`` is what it exits with where there is no error.
    """

    status = 0

    def run(self, parsed_args):
        try:
            with _quiet_client(self.app.options.verbose_level):
                return super().run(parsed_args) or self.status
        except (exceptions.CommandError, BrokenPipeError):
            raise
        except Exception as error:
            raise exceptions.CommandError(_line(error)) from error

    @property
    def client(self):
        """The key service's Client."""
        return self.app.client_manager.attestation

    def warn(self, text):
        self.log.warning('Warning: %s', clean(text))


class Command(_Told, command.Command):
    """A command without a result."""


class Lister(_Told, command.Lister):
    """A command whose result is a table."""


class ShowOne(_Told, command.ShowOne):
    """A command whose result is one thing."""


@contextlib.contextmanager
def _quiet_client(verbose_level):
    """Leave to --verbose what the client logs of each attempt.

    It is for services; people get the error that is made of it.
    """
    logger = logging.getLogger('nova_sev_attest.client')
    level = logger.level
    if verbose_level < _VERBOSE:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _line(error):
    """An error as one line for people."""
    from nova_sev_attest.osc import advice

    text = advice.line(error)
    if text is None:
        text = ' '.join(
            f'unexpected {type(error).__name__}: {error}; please report it '
            f'with what --debug shows'.split())
    return clean(text)


def clean(text):
    """Text of another's without what would steer a terminal.

    A compute host words the reason of a launch that failed, and it is not
    trusted.
    """
    return ''.join(char if char.isprintable() or char == '\n' else '\ufffd'
                   for char in text)


def find(word, items, what, key, limit=1000):
    """The items that a word names.

    :param items: iterable of what there is, looked at up to a limit
    :param what: what they are, for messages
    :param key: function of an item that gives the name
    :returns: list of them, not empty
    :raises CommandError: there is none; names some that are like it
    """
    known = list(itertools.islice(items, limit))
    found = [item for item in known if key(item) == word]
    if not found:
        raise unknown(word, what, [key(item) for item in known])
    return found


def unknown(word, what, names):
    """CommandError for a name that nothing has."""
    import difflib

    names = sorted({name for name in names if name})
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    near = near or [name for name in names
                    if word.lower() in name.lower()][:3]
    text = f'There is no {what} "{word}".'
    if near:
        text += f' Did you mean {" or ".join(near)}?'
    elif names:
        text += f' There is {", ".join(names[:5])}'
        text += f' and {len(names) - 5} more.' if len(names) > 5 else '.'
    return exceptions.CommandError(clean(text))


def is_uuid(word):
    import uuid

    try:
        return str(uuid.UUID(word)) == word.lower()
    except ValueError:
        return False


def each(command, words, do):
    """Do something to several things, to the last of them even after errors.

    :param do: called with each word
    :raises CommandError: one or more of them failed; each was told before
    """
    failed = 0
    for word in words:
        try:
            do(word)
        except Exception as error:
            failed += 1
            text = (str(error) if isinstance(error, exceptions.CommandError)
                    else _line(error))
            command.log.error('%s: %s', clean(word), text)
    if failed:
        raise exceptions.CommandError(
            f'{failed} of {len(words)} could not be done.')
