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

"""Errors that Nova shows to users, so in words that help one.

Nova keeps 255 characters of a fault, and of NovaException only.
"""

from nova import exception

MAX_FAULT = 255


def _shorten(text, limit):
    text = ' '.join(text.split())
    return text if len(text) <= limit else text[:limit - 3] + '...'


class AttestationRefused(exception.BuildAbortException):
    """The server must not run, and another host would not help.

    A denial by the key service, a key service that cannot be asked, a
    server that cannot be attested at all. Nova does not reschedule these:
    trying elsewhere would only replace this message by "no valid host".

    :param instance_uuid: the server
    :param reason: what differed and what to do, cut to fit the fault
    :param tail: a short ending that is kept whole where reason is cut
    """

    def __init__(self, instance_uuid, reason, tail=''):
        head = len(self.msg_fmt % {'instance_uuid': instance_uuid,
                                   'reason': ''})
        tail = f' {tail}' if tail else ''
        if not reason.endswith('.'):
            reason += '.'
        super().__init__(
            instance_uuid=instance_uuid,
            reason=_shorten(reason, MAX_FAULT - head - len(tail)) + tail)


class AttestationFault(exception.NovaException):
    """This host could not attest the server; another one might."""

    msg_fmt = ('Server %(instance_uuid)s cannot be attested on this host: '
               '%(reason)s')


class UnattestedRun(exception.NovaException):
    """Something would have run a guest whose launch was not attested."""

    msg_fmt = ('Server %(instance_uuid)s was not run: its memory is '
               'encrypted and this launch of it was not attested. Hard '
               'reboot it to attest it anew.')


class OperationRefused(exception.NotSupported):
    """What would run, save or move a guest that is attested at launch."""

    msg_fmt = ('Operation "%(operation)s" is not supported for server '
               '%(instance_uuid)s, which is attested at launch.')
