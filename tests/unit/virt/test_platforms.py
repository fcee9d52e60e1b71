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

from nova_sev_attest.virt import platforms

CONNECTION = object()


class Attester:
    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    def read_platform(self, connection):
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_read_once():
    cache = platforms.PlatformCache()
    attester, other = Attester({'pdh': b'1'}), Attester({'pdh': b'2'})
    for _ in range(3):
        assert cache.read('amd-sev', attester, CONNECTION) == {'pdh': b'1'}
        assert cache.read('amd-sev-es', other, CONNECTION) == {'pdh': b'2'}
    assert (attester.asked, other.asked) == (1, 1)


def test_read_anew_from_another_libvirt():
    cache = platforms.PlatformCache()
    attester = Attester({'pdh': b'1'}, {'pdh': b'2'})
    cache.read('amd-sev', attester, CONNECTION)
    assert cache.read('amd-sev', attester, object()) == {'pdh': b'2'}


def test_changed():
    cache = platforms.PlatformCache()
    attester = Attester({'pdh': b'1'}, {'pdh': b'2'})
    shown = cache.read('amd-sev', attester, CONNECTION)
    assert cache.changed('amd-sev', attester, CONNECTION, shown)
    assert cache.read('amd-sev', attester, CONNECTION) == {'pdh': b'2'}
    assert attester.asked == 2


def test_change_that_another_launch_saw_first():
    cache = platforms.PlatformCache()
    attester = Attester({'pdh': b'1'}, {'pdh': b'2'}, {'pdh': b'2'})
    shown = cache.read('amd-sev', attester, CONNECTION)
    assert cache.changed('amd-sev', attester, CONNECTION, shown)
    assert cache.changed('amd-sev', attester, CONNECTION, shown)


def test_unchanged_unreadable_and_never_shown():
    cache = platforms.PlatformCache()
    attester = Attester({'pdh': b'1'}, {'pdh': b'1'}, RuntimeError('gone'))
    shown = cache.read('amd-sev', attester, CONNECTION)
    assert not cache.changed('amd-sev', attester, CONNECTION, shown)
    assert not cache.changed('amd-sev', attester, CONNECTION, shown)
    assert not cache.changed('amd-sev', attester, CONNECTION, None)
    assert attester.asked == 3
