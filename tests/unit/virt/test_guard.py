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

import threading
from unittest import mock

import libvirt
from nova import exception
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import host as libvirt_host
from oslo_config import fixture
import pytest

from nova_sev_attest.virt import conf
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import exceptions
from nova_sev_attest.virt import guard
from tests.unit.virt import fakes

START_PAUSED = 1


@pytest.fixture(autouse=True)
def config():
    with_fixture = fixture.Config(conf.CONF)
    with_fixture.setUp()
    yield with_fixture
    with_fixture.cleanUp()


def marked(state=None, xml=fakes.DOMAIN, run='7'):
    domain = domain_xml.parse(xml)
    domain_xml.mark_pending(domain, 'launch')
    mark = domain.find(f'metadata/{{{domain_xml.NAMESPACE}}}launch')
    if state:
        mark.set('state', state)
        mark.set('run', run)
    return fakes.Domain(domain_xml.to_text(domain))


def test_plain_guest_is_novas():
    domain = fakes.Domain(fakes.PLAIN_DOMAIN)
    guest = fakes.make_guest(domain)
    guest.launch()
    guest.launch(pause=True)
    guest.resume()
    assert domain.calls == [('create', 0), ('create', START_PAUSED),
                            ('resume',)]


@pytest.mark.parametrize('pause', [False, True])
def test_launch_without_permit(pause):
    domain = fakes.Domain()
    with pytest.raises(exceptions.UnattestedRun):
        fakes.make_guest(domain).launch(pause=pause)
    assert domain.calls == []


@pytest.mark.parametrize('pause', [False, True])
def test_launch_by_permit_is_paused_and_once(pause):
    domain = fakes.Domain()
    guest = fakes.make_guest(domain, [fakes.UUID])
    guest.launch(pause=pause)
    assert domain.calls == [('create', START_PAUSED)]
    with pytest.raises(exceptions.UnattestedRun):
        guest.launch(pause=pause)


def test_permit_of_another_server():
    with pytest.raises(exceptions.UnattestedRun):
        fakes.make_guest(fakes.Domain(), ['another']).launch()


@pytest.mark.parametrize('domain', [
    fakes.Domain(), marked(), marked('pending'),
    marked('released', run='6')])
def test_resume_of_what_was_not_released(domain):
    with pytest.raises(exceptions.UnattestedRun):
        fakes.make_guest(domain).resume()
    assert domain.calls == []


def test_resume_of_what_was_released():
    domain = marked('released')
    fakes.make_guest(domain).resume()
    assert domain.calls == [('resume',)]


def test_memory_leaves_the_host_in_no_other_way():
    domain = marked('released')
    guest = fakes.make_guest(domain)
    for leave in (guest.save_memory_state,
                  lambda: guest.migrate('qemu+tcp://other/system')):
        with pytest.raises(
                exceptions.OperationRefused):
            leave()
    assert domain.calls == []


def test_plain_memory_is_novas_to_save_and_migrate():
    domain = fakes.Domain(fakes.PLAIN_DOMAIN)
    guest = fakes.make_guest(domain)
    guest.save_memory_state()
    guest.migrate('qemu+tcp://other/system')
    assert [call[0] for call in domain.calls] == ['managedSave', 'migrate']


def test_optional_mode_guards_marked_domains_only(config):
    config.config(group='sev_attest', mode='optional')
    assert not fakes.make_guest(fakes.Domain()).is_guarded()
    assert fakes.make_guest(marked()).is_guarded()


def test_mark_guards_what_lost_its_launch_security(config):
    # As by 'virsh edit'.
    for mode in ('required', 'optional'):
        config.config(group='sev_attest', mode=mode)
        domain = marked(xml=fakes.PLAIN_DOMAIN)
        for run in (fakes.make_guest(domain).launch,
                    fakes.make_guest(domain).resume):
            with pytest.raises(exceptions.UnattestedRun):
                run()
        assert domain.calls == []


def test_release_marks_the_live_definition_alone():
    domain = marked()
    fakes.make_guest(domain).mark_released('launch')
    ((name, kind, element, prefix, uri, flags),) = domain.calls
    # VIR_DOMAIN_METADATA_ELEMENT and VIR_DOMAIN_AFFECT_LIVE
    assert (name, kind, flags) == ('setMetadata', 2, 1)
    assert element == '<launch id="launch" state="released" run="7"/>'
    assert (prefix, uri) == ('attest', domain_xml.NAMESPACE)


@pytest.fixture
def host():
    made = libvirt_host.Host('qemu:///system')
    guard.guard_host(made)
    return made


def test_host_hands_out_guarded_guests(host):
    def plain():
        return libvirt_guest.Guest(fakes.Domain())

    with mock.patch.object(libvirt_host.Host, 'get_guest',
                           return_value=plain()):
        guest = host.get_guest(None)
    with mock.patch.object(libvirt_host.Host, 'write_instance_config',
                           return_value=plain()):
        defined = host.write_instance_config('<domain/>')
    with mock.patch.object(libvirt_host.Host, 'list_guests',
                           return_value=[plain()]):
        (listed,) = host.list_guests()
    for given in (guest, defined, listed):
        with pytest.raises(exceptions.UnattestedRun):
            given.launch()
        with host.permit_start(fakes.UUID):
            given.launch()


def test_host_defines_nothing_as_released(host):
    xml = marked('released').xml
    with mock.patch.object(libvirt_host.Host, 'write_instance_config',
                           return_value=None) as define:
        host.write_instance_config(xml)
    (defined,), _ = define.call_args
    assert domain_xml.marker(domain_xml.parse(defined)) == (
        domain_xml.Marker('launch', 'pending'))


def test_host_finds_a_guest_by_its_server(host):
    with mock.patch.object(
            libvirt_host.Host, 'get_guest',
            return_value=libvirt_guest.Guest(fakes.Domain())) as get:
        assert isinstance(host.find_guest('u'), guard.GuardedGuest)
        assert get.call_args[0][0].uuid == 'u'
        get.side_effect = exception.InstanceNotFound(instance_id='u')
        assert host.find_guest('u') is None


def test_host_knows_whose_domain_is_guarded(host):
    with mock.patch.object(libvirt_host.Host, '_get_domain') as get:
        for domain, guarded in ((marked(), True), (fakes.Domain(
                fakes.PLAIN_DOMAIN), False)):
            get.return_value = domain
            assert host.is_guarded(None) is guarded
        get.side_effect = exception.InstanceNotFound(instance_id='u')
        assert not host.is_guarded(None)


def test_permit_ends_with_its_block(host):
    with mock.patch.object(libvirt_host.Host, 'get_guest',
                           return_value=libvirt_guest.Guest(fakes.Domain())):
        guest = host.get_guest(None)
    with pytest.raises(KeyboardInterrupt), host.permit_start(fakes.UUID):
        raise KeyboardInterrupt
    with pytest.raises(exceptions.UnattestedRun):
        guest.launch()


def test_libvirtd_that_goes_away_while_it_is_asked(host):
    """It is told to whoever asks, under Nova's lock of the connection."""
    gone, back = mock.Mock(), mock.Mock()
    # As Nova does with native threads, whatever these tests run with.
    told = libvirt_host._ThreadingLibvirtEventHandler(host._connection_closed)

    def go_away():
        told._queue_event({'conn': gone, 'reason': 1})
        raise fakes.libvirt_error('client socket is closed',
                                  domain=libvirt.VIR_FROM_RPC)

    gone.getLibVersion.side_effect = go_away
    host._wrapped_conn = gone
    found = []
    with mock.patch.object(host, '_get_new_connection', return_value=back):
        asking = threading.Thread(
            target=lambda: found.append(host.get_connection()), daemon=True)
        asking.start()
        asking.join(10)
    assert found == [back]


@pytest.mark.parametrize('novas, ours, make', [
    (libvirt_guest.Guest, guard.GuardedGuest,
     lambda kind: guard.guard_guest(kind(fakes.Domain()), set())),
    (libvirt_host.Host, guard.GuardedHost,
     lambda kind: guard.guard_host(kind('qemu:///system')))])
def test_class_of_a_nova_to_come_is_refused(novas, ours, make):
    with pytest.raises(RuntimeError, match='Later cannot be guarded'):
        make(type('Later', (novas,), {}))
    make(novas)
    make(ours)


def test_stand_ins_are_left_alone(host):
    stand_in = mock.Mock()
    with mock.patch.object(libvirt_host.Host, 'get_guest',
                           return_value=stand_in):
        assert host.get_guest(None) is stand_in
    guard.guard_host(stand_in)
    assert isinstance(stand_in, mock.Mock)
